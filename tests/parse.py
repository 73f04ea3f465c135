"""`python tests/parse.py streamfuse COMMAND ...` fails unless the command line is valid; nothing is run."""

from __future__ import annotations

import sys

from commands import parse

if __name__ == "__main__":
    assert sys.argv[1] == "streamfuse"
    print(*parse(sys.argv[2:]))
