"""One check's outcome, and all of them together."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from streamfuse.errors import StreamfuseError, printable


class Verdict(enum.StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, with a loss that the text names."""
    FAILED = "failed"
    """Something that is installed does not work."""


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check."""

    name: str
    verdict: Verdict
    text: str
    """The finding and, unless the verdict is ok, what to do; one line."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """The figures in the text, for programs."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, which has no infinity: null stands for it."""
        values = {key: _plain(value) for key, value in self.values.items()}
        return {"name": self.name, "verdict": str(self.verdict), "text": self.text, "values": values}


Checking: TypeAlias = Callable[[], Iterable[Check]]
"""Makes checks of one topic."""


def ok(name: str, text: str, **values: Any) -> Check:
    return Check(name, Verdict.OK, printable(text), values)


def warning(name: str, text: str, **values: Any) -> Check:
    return Check(name, Verdict.WARNING, printable(text), values)


def failed(name: str, text: str, **values: Any) -> Check:
    return Check(name, Verdict.FAILED, printable(text), values)


def run_checks(topics: Mapping[str, Checking]) -> Iterator[Check]:
    """The checks of every topic, as they are made.  An error ends its topic with a failed check, not the rest."""
    for name, checking in topics.items():
        try:
            yield from checking()
        except StreamfuseError as error:
            yield failed(name, str(error))
        except Exception as error:  # an unforeseen error is a finding too, and the other topics are still wanted
            yield failed(name, f"unexpected {type(error).__name__}: {error}")


def worst(checks: Iterable[Check]) -> Verdict:
    order = list(Verdict)
    return max((check.verdict for check in checks), key=order.index, default=Verdict.OK)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
