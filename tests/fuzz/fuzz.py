"""Fuzz what takes bytes from outside, guided by the lines that they reach: needs atheris, extra `fuzz`.

    python tests/fuzz/fuzz.py TARGET [-max_total_time=60] [CORPUS]

Without a target it names them all.  Options are libFuzzer's (-help=1); the corpus is a directory, which begins with
the target's seeds.  What it finds is written to a file crash-...; it becomes one of the target's `findings`.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import atheris

MORE_MEMORY = 1 << 30
"""Bytes beyond what the program has when it begins: what wants more, wants it by a number in its input."""
LIMITS = ("-timeout=20", "-rss_limit_mb=4096")

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
with atheris.instrument_imports(include=["streamfuse", "tomllib", "yaml", "csv"]):
    from fuzz_targets import TARGETS


def main(arguments: list[str]) -> None:
    name = arguments[0] if arguments else ""
    if name not in TARGETS:
        sys.exit(f"give one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    for seed in (*target.seeds, *target.findings):
        target.run(seed)  # also what is set up once
    longest = max(4096, *(2 * len(seed) for seed in target.seeds))
    for corpus in [Path(text) for text in arguments[1:] if not text.startswith("-")][:1]:
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate((*target.seeds, *target.findings)):
            if len(seed) <= longest:
                (corpus / f"seed-{number:03d}").write_bytes(seed)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MORE_MEMORY, resource.RLIM_INFINITY))
    atheris.Setup([sys.argv[0], *LIMITS, f"-max_len={longest}", *arguments[1:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
