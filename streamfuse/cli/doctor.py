"""`streamfuse doctor`: whether the program works on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options
from streamfuse.errors import OutputError

if TYPE_CHECKING:
    from streamfuse.doctor.report import Check

COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@click.option("--quick", is_flag=True, help="Look at the machine only: fuse, write and send nothing.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A safetensors file of `streamfuse weights import`; default: the shipped one.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the report here.")
@options.force
@options.common
def command(quick: bool, weights: Path | None, json_file: Path | None, force: bool) -> int:
    """Check this machine and everything that is installed, and say what to do about what does not work.

    \b
    streamfuse doctor
    streamfuse doctor --quick
    streamfuse doctor --json report.json

    A small pair of pictures goes through every engine, precision and preset, and is compared with what they should
    make of it; then files, ZeroMQ and the preview are tried on this machine.  It takes half a minute, the first time
    longer, as networks are compiled.  The exit code is 0 if nothing failed, else 1.
    """
    from streamfuse.doctor import checks
    from streamfuse.doctor.report import Verdict, run_checks, worst

    if json_file is not None and json_file.exists() and not force:
        raise OutputError(f"{json_file} exists: choose another name, or replace it with --force")
    logs.silence_notes()
    topics = checks.machine_checks(weights)
    found: list[Check] = []
    if not quick:
        topics |= checks.run_checks(weights)
    for check in run_checks(topics):
        found.append(check)
        _show(check)
    verdict = worst(found)
    counts = {str(kind): sum(check.verdict is kind for check in found) for kind in Verdict}
    click.secho(", ".join(f"{count} {kind}" for kind, count in counts.items()), fg=COLORS[verdict], bold=True)
    if json_file is not None:
        _write(json_file, verdict, found)
    return int(verdict is Verdict.FAILED)


def _show(check: Check) -> None:
    click.echo(f"{click.style(f'{check.verdict:<8}', fg=COLORS[check.verdict])} {check.name:<26} {check.text}")


def _write(path: Path, verdict: str, found: list[Check]) -> None:
    from streamfuse.support.files import write_whole

    report = {"verdict": str(verdict), "checks": [check.as_dict() for check in found]}
    write_whole(path, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
