"""`--help` of every command: the examples are accepted by the command line, and the exit codes are complete."""

from __future__ import annotations

import re
import shlex

import click
import pytest
from click.testing import CliRunner
from commands import parse, walk

from streamfuse import errors
from streamfuse.cli import EXIT_CODES, cli

COMMANDS = {" ".join(path): command for path, command in walk()}
LEAVES = [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)]


def shown(name: str) -> str:
    done = CliRunner().invoke(cli, [*name.split(), "--help"], terminal_width=100)
    assert done.exit_code == 0
    return done.output


def examples(name: str) -> list[str]:
    """Return the examples of a command's help; a backslash continues a line."""
    text = re.sub(r"\\\n +", "", COMMANDS[name].help or "")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("streamfuse ")]


@pytest.mark.parametrize("name", LEAVES)
def test_examples_are_accepted(name: str) -> None:
    assert examples(name), f"{name} shows no example"
    calls = [parse(shlex.split(example)[1:]) for example in examples(name)]
    assert tuple(name.split()) in calls
    lines = [
        line.strip() for line in (COMMANDS[name].help or "").splitlines() if line.strip().startswith("streamfuse ")
    ]
    for line in lines:
        assert line in shown(name), "the example is wrapped: put it into a \\b paragraph"


def test_exit_codes_are_those_of_the_errors() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.StreamfuseError)
    ]
    for code in {kind.exit_code for kind in kinds} | {0, 130, 143}:
        assert f"{code} " in EXIT_CODES


@pytest.mark.parametrize("name", LEAVES)
def test_the_bounds_of_a_range_are_short(name: str) -> None:
    assert not re.search(r"0{10}", shown(name))
