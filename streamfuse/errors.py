"""Everything that streamfuse raises on purpose.

    StreamfuseError            exit 1
    ├── UsageError             exit 2   an option or a value that cannot be
    ├── InputError             exit 3   a source that is missing, unreadable or unsuitable
    │   ├── DamagedInput       exit 3   readable in part; what could be read has been used
    │   └── NothingReceived    exit 3   a subscriber that waited in vain
    ├── EngineError            exit 4   an engine that is unknown, unavailable or failed
    │   ├── EngineUnavailable  exit 4   an engine that cannot run on this machine; `auto` takes another
    │   └── WeightsError       exit 4   a weights file that does not fit the network
    ├── TrainingError          exit 6   a training run that cannot go on: a loss that is not finite
    └── OutputError            exit 5   an output that cannot be written

The text says what is wrong and what to do; it is one line and holds no secret.  The command line
prints it and exits with `exit_code`; a traceback is shown only with `--debug`.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` as one line with nothing in it that a terminal would obey: other characters become escapes, as \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class StreamfuseError(Exception):
    """Any of them; `exit_code` is that of the command line."""

    exit_code = 1

    def __str__(self) -> str:
        """On one line whatever was read from outside, and nothing in it that a terminal would obey."""
        return printable(super().__str__())


class UsageError(StreamfuseError):
    """An option or a value that cannot be."""

    exit_code = 2


class InputError(StreamfuseError):
    """A source that is missing, unreadable or unsuitable."""

    exit_code = 3


class DamagedInput(InputError):
    """Raised at the very end of a run: everything that was readable has been fused and written."""


class NothingReceived(InputError):
    """Raised by a subscriber after its time limit; it goes on trying, and may be asked again."""


class EngineError(StreamfuseError):
    """An engine that is unknown or failed."""

    exit_code = 4


class EngineUnavailable(EngineError):
    """An engine that cannot run on this machine; `auto` takes another."""


class WeightsError(EngineError):
    """A weights file that does not fit the network."""


class TrainingError(StreamfuseError):
    """A training run that cannot go on."""

    exit_code = 6


class OutputError(StreamfuseError):
    """An output that cannot be written."""

    exit_code = 5


_OUT_OF_MEMORY = (
    *("out of memory", "allocate memory", "unable to allocate", "not enough memory", "insufficient memory"),
    *("bad_alloc", "bad alloc", "failed to map segment", "can't start new thread"),
)


def is_out_of_memory(error: Exception) -> bool:
    """The libraries have no common type for it, nor has the loader of libraries."""
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in _OUT_OF_MEMORY)
