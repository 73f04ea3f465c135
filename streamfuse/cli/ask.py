"""Questions to a user at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs
from streamfuse.errors import UsageError

if TYPE_CHECKING:
    from streamfuse.sources.bags.choose import ImageTopic, Pair


def ask_topics(bag: Path) -> Callable[[Sequence[ImageTopic]], Pair] | None:
    """Return a function that asks which topic of a bag is infrared, and which visible; None without a terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or logs.as_json():
        return None

    def ask(topics: Sequence[ImageTopic]) -> Pair:
        logs.say(f"{bag} has {len(topics)} topics of pictures:")
        logs.say(*(f"{number:3}  {topic}" for number, topic in enumerate(topics, 1)))
        ir, vis = (_number(role, topics) for role in ("infrared", "visible"))
        if ir == vis:
            raise UsageError(f"{ir.topic.name} cannot be both: give two topics")
        return ir, vis

    return ask


def _number(role: str, topics: Sequence[ImageTopic]) -> ImageTopic:
    answer = click.prompt(f"number of the {role} one", type=click.IntRange(1, len(topics)), err=True)
    return topics[answer - 1]
