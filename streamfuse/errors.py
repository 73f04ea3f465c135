"""The exceptions of streamfuse.

    StreamfuseError            exit 1
    ├── UsageError             exit 2   an invalid option or value
    ├── InputError             exit 3   a source that is missing, unreadable or unsuitable
    │   ├── DamagedInput       exit 3   a source that is partly unreadable; the rest has been used
    │   └── NothingReceived    exit 3   a subscriber's timeout
    ├── EngineError            exit 4   an engine that is unknown, unavailable or failed
    │   ├── EngineUnavailable  exit 4   an engine that cannot run on this machine; `auto` falls back to another
    │   └── WeightsError       exit 4   a weights file that is missing, invalid or does not fit the network
    ├── TrainingError          exit 6   a training run that cannot continue, such as after a loss that is not finite
    └── OutputError            exit 5   an output that cannot be written

The text says what is wrong and what to do; it is one line and contains no secret.  The command line prints it and exits
with `exit_code`; a traceback is shown only with `--debug`.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """Make `text` one printable line: control and other unprintable characters become escapes such as \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class StreamfuseError(Exception):
    """Base class of all errors that streamfuse raises."""

    exit_code = 1
    """Exit code of the command line."""

    def __str__(self) -> str:
        """The message as one printable line, even if it quotes untrusted text."""
        return printable(super().__str__())


class UsageError(StreamfuseError):
    """An option or a value is invalid."""

    exit_code = 2


class InputError(StreamfuseError):
    """A source is missing, unreadable or unsuitable."""

    exit_code = 3


class DamagedInput(InputError):
    """A source is partly unreadable; raised at the end of a run, after all readable frames were fused and written."""


class NothingReceived(InputError):
    """A subscriber received no frame within its time limit; the call may be repeated."""


class EngineError(StreamfuseError):
    """An engine is unknown or has failed."""

    exit_code = 4


class EngineUnavailable(EngineError):
    """An engine cannot run on this machine; `auto` falls back to another."""


class WeightsError(EngineError):
    """A weights file is missing, invalid or does not fit the network."""


class TrainingError(StreamfuseError):
    """A training run cannot continue."""

    exit_code = 6


class OutputError(StreamfuseError):
    """An output cannot be written."""

    exit_code = 5


_OUT_OF_MEMORY = (
    *("out of memory", "allocate memory", "unable to allocate", "not enough memory", "insufficient memory"),
    *("bad_alloc", "bad alloc", "failed to map segment", "can't start new thread"),
)


def is_out_of_memory(error: Exception) -> bool:
    """Return True if an error means that memory is exhausted; libraries have no common type for that."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in _OUT_OF_MEMORY)
