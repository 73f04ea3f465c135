"""Memory and speed of reading bags: write a bag of two cameras, then read both topics in a new process.

    python benchmarks/bag_reading.py --megabytes 400 --kind mcap --kind ros1 --kind sqlite

A line for each kind: size, seconds, MB/s and peak memory of the reading process, without and with the network's
packages, which reading does not load.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import bags  # noqa: E402

READ = """
import itertools, resource, sys
from streamfuse.sources import open_pair
ir, vis = open_pair(sys.argv[1], sys.argv[2])
frames = 0
with ir, vis:
    for pair in itertools.zip_longest(ir, vis):
        frames += sum(frame is not None for frame in pair)
assert not ir.damage and not vis.damage, (ir.damage, vis.damage)
print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
IR, VIS = "/ir/image_raw", "/eo/image_raw"


@click.command()
@click.option("--megabytes", type=int, default=400, show_default=True)
@click.option("--kind", "kinds", multiple=True, default=["mcap"], show_default=True, help="mcap, ros1 or sqlite.")
@click.option("--directory", type=click.Path(path_type=Path, exists=True), help="Where the bags are written.")
def main(megabytes: int, kinds: tuple[str, ...], directory: Path | None) -> None:
    writers = {
        "mcap": bags.write_mcap(chunk_size=1 << 20),
        "ros1": bags.write_ros1(chunk_size=1 << 20),
        "sqlite": bags.write_ros2("sqlite"),
    }
    for kind in kinds:
        with tempfile.TemporaryDirectory(dir=directory) as made:
            path = writers[kind](Path(made), _messages(megabytes))
            size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
            began = time.monotonic()
            command = [sys.executable, "-c", READ, f"{path}?topic={IR}", f"{path}?topic={VIS}"]
            done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            seconds = time.monotonic() - began
            frames, peak = done.stdout.split()
            click.echo(
                f"{kind}: {size / 1e6:.0f} MB, {frames} frames in {seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s, "
                f"peak {float(peak):.0f} MiB"
            )


def _messages(megabytes: int) -> Iterator[bags.Sent]:
    """Pictures of two cameras, 1.6 MB a pair."""
    grey = (np.arange(640 * 512, dtype=np.uint32) % 900 + 7000).astype(np.uint16).reshape(512, 640)
    color = np.arange(640 * 512 * 3, dtype=np.uint32).astype(np.uint8).reshape(512, 640, 3)
    for k in range(max(megabytes * 1_000_000 // 1_640_000, 2)):
        yield bags.image(IR, grey + np.uint16(k % 50), "mono16", k)
        yield bags.image(VIS, color, "bgr8", k)


if __name__ == "__main__":
    main()
