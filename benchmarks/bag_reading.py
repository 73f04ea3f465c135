"""Memory and speed of reading and fusing bags: write a bag of two cameras, then read or fuse it in a new process.

    python benchmarks/bag_reading.py --megabytes 400 --kind mcap --kind ros1 --kind sqlite
    python benchmarks/bag_reading.py --megabytes 10000 --fuse

A line for each kind: size, seconds, MB/s and peak memory of the process; reading does not load the network's packages.
`--fuse` runs `streamfuse run --preset realtime` into an MP4 file, and gives the memory after each tenth of it, too.
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
FUSE = """
import resource, sys, threading
from pathlib import Path
from streamfuse import cli

samples = []
def watch():
    while not done.wait(1):
        samples.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20)
done = threading.Event()
watching = threading.Thread(target=watch)
watching.start()
ir, vis, output = sys.argv[1:]
sys.argv = ["streamfuse", "run", "--ir", ir, "--vis", vis, "-o", output, "--preset", "realtime"]
try:
    cli.main()
except SystemExit as end:
    code = end.code
done.set()
watching.join()
if code:
    sys.exit(code)
tenths = [f"{samples[len(samples) * k // 10]:.0f}" for k in range(1, 10)]
print("MiB after each tenth: " + " ".join(tenths))
print(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
IR, VIS = "/ir/image_raw", "/eo/image_raw"


@click.command()
@click.option("--megabytes", type=int, default=400, show_default=True)
@click.option("--kind", "kinds", multiple=True, default=["mcap"], show_default=True, help="mcap, ros1 or sqlite.")
@click.option("--fuse", is_flag=True, help="Fuse the bag instead of only reading it.")
@click.option("--directory", type=click.Path(path_type=Path, exists=True), help="Where the bags are written.")
def main(megabytes: int, kinds: tuple[str, ...], fuse: bool, directory: Path | None) -> None:
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
            command = [sys.executable, "-c", FUSE if fuse else READ, f"{path}?topic={IR}", f"{path}?topic={VIS}"]
            command += [str(Path(made) / "fused.mp4")] if fuse else []
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode:
                raise click.ClickException(done.stderr)
            seconds = time.monotonic() - began
            *said, last = done.stdout.splitlines()
            peak = last.split()[1]
            click.echo("\n".join([*done.stderr.splitlines(), *said]), nl=bool(said))
            click.echo(
                f"{kind}: {size / 1e6:.0f} MB, {2 * _pairs(megabytes)} frames in {seconds:.1f} s, "
                f"{size / 1e6 / seconds:.0f} MB/s, peak {float(peak):.0f} MiB"
            )


def _messages(megabytes: int) -> Iterator[bags.Sent]:
    """Pictures of two cameras, 1.6 MB a pair."""
    grey = (np.arange(640 * 512, dtype=np.uint32) % 900 + 7000).astype(np.uint16).reshape(512, 640)
    color = np.arange(640 * 512 * 3, dtype=np.uint32).astype(np.uint8).reshape(512, 640, 3)
    for k in range(_pairs(megabytes)):
        yield bags.image(IR, grey + np.uint16(k % 50), "mono16", k)
        yield bags.image(VIS, color, "bgr8", k)


def _pairs(megabytes: int) -> int:
    return max(megabytes * 1_000_000 // 1_640_000, 2)


if __name__ == "__main__":
    main()
