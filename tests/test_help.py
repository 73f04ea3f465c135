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
    """As they are written; a line that ends in a backslash goes on."""
    text = re.sub(r"\\\n +", "", COMMANDS[name].help or "")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("streamfuse ")]


@pytest.mark.parametrize("name", LEAVES)
def test_its_examples_would_be_taken(name: str) -> None:
    assert examples(name), f"{name} shows no example"
    calls = [parse(shlex.split(example)[1:]) for example in examples(name)]
    assert tuple(name.split()) in calls
    lines = [
        line.strip() for line in (COMMANDS[name].help or "").splitlines() if line.strip().startswith("streamfuse ")
    ]
    for line in lines:
        assert line in shown(name), "it is wrapped: it stands in no \\b paragraph"


def test_the_exit_codes_are_those_of_the_errors() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.StreamfuseError)
    ]
    for code in {kind.exit_code for kind in kinds} | {0, 130, 143}:
        assert f"{code} " in EXIT_CODES
