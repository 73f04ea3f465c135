"""The commands shown in the documentation, and the command line that must accept them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from streamfuse.cli import cli

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    file
    for place in (".", "docs", "calib", "weights")
    for file in (ROOT / place).glob("*.md")
    if file.name != "CHANGELOG.md"
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_COMMENT = re.compile(r"\s+# .*$", re.M)


@dataclass(frozen=True)
class Block:
    """Text between two fences."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands, one for each line; a backslash continues a line, and # starts a comment."""
        whole = _COMMENT.sub("", self.text.replace("\\\n", " "))
        return [" ".join(line.split()) for line in whole.splitlines() if line.strip() and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(page, text.count("\n", 0, m.start()) + 1, m[1], m[2]) for m in _FENCE.finditer(text)]


def all_blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


def walk(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command and group with its path of names."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, (*path, name))


def parse(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the path of the command that accepts these arguments; raises click's errors.  Nothing is run."""
    command: click.Command = cli
    path: tuple[str, ...] = ()
    rest = list(arguments)
    context: click.Context | None = None
    while True:
        context = command.make_context(path[-1] if path else "streamfuse", rest, parent=context)
        if not isinstance(command, click.Group):
            return path
        name, child, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert child is not None
        path, command = (*path, name), child
