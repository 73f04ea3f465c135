"""Fuzz functions that parse bytes from outside, guided by code coverage.  Needs atheris (extra `fuzz`).

    python tests/fuzz/fuzz.py TARGET [-max_total_time=60] [CORPUS]

Without a target, all targets are listed.  Options are libFuzzer's (-help=1); the corpus is a directory, to which the
target's seeds are added.  An input that fails is written to a file crash-...; add it to the target's `findings`.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import atheris

MORE_MEMORY = 1 << 30
"""Memory that inputs may take, bytes: more can only come from a number in the input."""
LIMITS = ("-timeout=20", "-rss_limit_mb=4096")

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
with atheris.instrument_imports(include=["streamfuse", "tomllib", "yaml", "csv"]):
    from fuzz_target import Target, file
    from fuzz_targets import TARGETS

STRANGE = (b"9" * 400, b"1e999", b"-1", b"nan", b"null", b"true", b"[]", b"{}", b'""', b"\0", b"\x1b", b"\xff")


def main(arguments: list[str]) -> None:
    name = arguments[0] if arguments else ""
    if name not in TARGETS:
        sys.exit(f"give one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    for seed in (*target.seeds, *target.findings):
        target.run(seed)  # includes one-time initialisation
    longest = max(4096, *(2 * len(seed) for seed in target.seeds))
    for corpus in [Path(text) for text in arguments[1:] if not text.startswith("-")][:1]:
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate((*target.seeds, *target.findings)):
            if len(seed) <= longest:
                (corpus / f"seed-{number:03d}").write_bytes(seed)
    words = _dictionary(target)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MORE_MEMORY, resource.RLIM_INFINITY))
    atheris.Setup([sys.argv[0], *LIMITS, f"-max_len={longest}", f"-dict={words}", *arguments[1:]], target.run)
    atheris.Fuzz()


def _dictionary(target: Target) -> Path:
    """Write a dictionary for the fuzzer: the words of the seeds, and unusual ones."""
    words = {word for seed in target.seeds for word in re.findall(rb"[\w.-]{2,40}", seed)}
    lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in (*STRANGE, *sorted(words)[:500]))
    return file("".join(f'"{line}"\n' for line in lines).encode(), "dictionary")


if __name__ == "__main__":
    main(sys.argv[1:])
