"""The command line, `streamfuse COMMAND`; each command is a module of this package, imported on demand."""

from __future__ import annotations

import copy
import errno
import sys
import traceback
from importlib import import_module

import click

from streamfuse import __version__
from streamfuse.cli import logs
from streamfuse.errors import EngineError, OutputError, StreamfuseError, is_out_of_memory
from streamfuse.support.files import reason

_COMMANDS = {
    "run": "Fuse two streams into a video, images or a preview in the browser.",
    "subscribe": "Receive the frames that a run publishes.",
    "keys": "Make keys for publishing on a network.",
    "top": "Show the state of a run in the terminal.",
    "batch": "Fuse an archive of recordings, on all cores or a cluster.",
    "fuse": "Fuse two images or two directories of images.",
    "demo": "Render a scene, fuse it and show the result.",
    "evaluate": "Score fused images or streams.",
    "build": "Compile the network in advance.",
    "bench": "Measure the speed of an engine on this machine.",
    "probe": "Show what a recording holds, such as the topics of a bag.",
    "doctor": "Check that everything works on this machine.",
    "calibrate": "Calibrate a camera pair: alignment and time offset.",
    "train": "Train the network on your own pairs.",
    "weights": "Import and inspect weights files.",
}
INTERRUPTED = 130
EXIT_CODES = (
    "Exit codes: 0 success, 1 internal error, 2 usage, 3 input, 4 engine or weights, 5 output, 6 training, "
    "130 or 143 stopped by a signal."
)
"""Shown at the end of every --help."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = import_module(f"streamfuse.cli.{name}").command
        assert isinstance(command, click.Command)
        _complete(command, f"STREAMFUSE_{name}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _complete(command: click.Command, prefix: str) -> None:
    """Add the exit codes to a command's help, and name the environment variables of its options."""
    command.epilog = command.epilog or EXIT_CODES
    for option in command.params:
        long = next((name for name in option.opts if name.startswith("--")), None)
        if isinstance(option, click.Option) and long is not None and option.envvar is None and option.expose_value:
            option.envvar = f"{prefix}_{long[2:]}".replace("-", "_").upper()
            if option.multiple:  # by default click splits at spaces, which values contain
                option.type = copy.copy(option.type)
                option.type.envvar_list_splitter = "\n"  # type: ignore[misc]
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            _complete(below, f"{prefix}_{name}")


@click.command(
    cls=_Commands,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "STREAMFUSE"},
)
@click.version_option(__version__, message="streamfuse %(version)s")
def cli() -> None:
    """Fuse an infrared and a visible stream into a single picture that shows both.

    \b
    streamfuse demo
    streamfuse run --ir cam0 --vis cam1
    streamfuse run --ir ir.mp4 --vis vis.mp4 -o fused.mp4
    streamfuse run --help

    Options may also be set in the environment: STREAMFUSE_RUN_TONE=smooth is --tone smooth of `run`.
    """
    logs.show_notes()


def main() -> None:
    """Run the command line; errors become one line and an exit code, with a traceback only if --debug is given."""
    debug = "--debug" in sys.argv
    try:
        outcome = cli.main(standalone_mode=False)
        code = outcome if isinstance(outcome, int) else 0
    except click.ClickException as error:
        code = error.exit_code
        if _as_json():
            _show(error.format_message(), debug)
        else:
            error.show()
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except StreamfuseError as error:
        code = error.exit_code
        _show(str(error), debug)
    except BrokenPipeError:
        code = 1  # the reader of stdout is gone
    except Exception as error:
        code, message = _explain(error)
        _show(message, debug)
    sys.exit(code)


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and message for an error that is not a StreamfuseError."""
    if is_out_of_memory(error):
        return EngineError.exit_code, "out of memory: allow more, or use smaller pictures or --preset realtime"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return OutputError.exit_code, f"cannot write to stdout or stderr: {reason(error.errno, str(error))}"
    return 1, f"unexpected {type(error).__name__}: {error} (this is a bug; --debug shows where)"


def _as_json() -> bool:
    """Return True if messages are JSON, also if the options have not been parsed."""
    return logs.as_json() or logs.FLAG in sys.argv


def _show(message: str, debug: bool) -> None:
    if _as_json():
        logs.show_json()
        logs.log.error("%s", message, exc_info=debug)
        return
    if debug:
        traceback.print_exc()
    logs.say(message, mark=f"{click.style('error:', fg='red')} ")
