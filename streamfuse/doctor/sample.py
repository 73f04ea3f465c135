"""The pair of pictures that every engine fuses, and the luma that the shipped network gives for it in FP32.

    sample/ir.png, vis.png          the pair, 320x240 grey
    sample/quality.png, ...         the fused luma of every preset, from FP32 PyTorch on a CPU
    sample/sample.json              the digests of the weights files that made them

`python -m streamfuse.doctor.sample` makes them again: after the shipped weights or the network changed.
Reading them takes only NumPy, so that it works where no image library is installed.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamfuse.color import Plane
from streamfuse.engines.torch import TorchEngine
from streamfuse.network.checkpoint import default_weights, read_info
from streamfuse.network.config import Preset
from streamfuse.support.files import write_whole
from streamfuse.tone import make_tone

DIRECTORY = Path(__file__).parent / "sample"
SCENE = "synthetic:{channel}?fps=25&size=320x240&seconds=2"
"""The source of the pair: the scene that the program draws."""
FRAME = 30
"""The frame of it."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2
"""The filter that stores each byte's difference to the one above it."""


@dataclass(frozen=True, slots=True)
class Sample:
    ir: Plane
    """(240, 320) uint8 luma, full range."""
    vis: Plane
    references: Mapping[Preset, Plane]
    """Fused luma of the pair, uint8, by preset."""
    digests: Mapping[str, str]
    """SHA-256 of each weights file that made the references, hex, by file name."""

    def made_by(self, weights: Path) -> bool:
        """Tell whether the references are of these weights: a file and the small one beside it."""
        info = read_info(weights)
        lite = info.lite()
        return {info.digest, *([lite.digest] if lite is not None else [])} == set(self.digests.values())


def load_sample(directory: Path = DIRECTORY) -> Sample:
    references = {preset: read_grey(directory / f"{preset}.png") for preset in Preset}
    digests: dict[str, str] = json.loads((directory / "sample.json").read_text())["weights"]
    return Sample(read_grey(directory / "ir.png"), read_grey(directory / "vis.png"), references, digests)


def make_references(ir: Plane, vis: Plane, weights: Path) -> dict[Preset, Plane]:
    """Fuse a pair by the network as it is written, in FP32 on the CPU: (H, W) uint8 luma of every preset there is."""
    with TorchEngine(weights, "fp32") as engine:
        made = {}
        for preset in engine.presets:
            engine.use(preset)
            made[preset] = make_tone("per-frame", str(engine.output)).apply(engine.fuse(ir, vis), 0)
        return made


def write_sample(ir: Plane, vis: Plane, weights: Path, directory: Path = DIRECTORY) -> None:
    """Write a pair, (H, W) uint8 each, with the references that `weights` make of it.  Raises OutputError."""
    info = read_info(weights)
    files = [info, *([lite] if (lite := info.lite()) is not None else [])]
    directory.mkdir(exist_ok=True)
    pictures = {"ir": ir, "vis": vis}
    pictures |= {str(preset): made for preset, made in make_references(ir, vis, weights).items()}
    for name, picture in pictures.items():
        write_grey(directory / f"{name}.png", picture)
    described = {"weights": {file.path.name: file.digest for file in files}}
    write_whole(directory / "sample.json", (json.dumps(described, indent=2) + "\n").encode())


def write_grey(path: Path, picture: Plane) -> None:
    """(H, W) uint8 to a PNG that `read_grey` and every viewer read."""
    height, width = picture.shape
    rows = np.empty((height, 1 + width), np.uint8)
    rows[:, 0] = _UP
    rows[:, 1:] = picture
    rows[1:, 1:] -= picture[:-1]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows.tobytes(), 9), b"IEND": b""}
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    write_whole(path, _SIGNATURE + body)


def read_grey(path: Path) -> Plane:
    """(H, W) uint8 from a PNG of `write_grey`; ValueError for any other."""
    data = path.read_bytes()
    if not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR":
        raise ValueError(f"{path} is not a PNG")
    width, height = struct.unpack(">II", data[16:24])
    packed, position = b"", len(_SIGNATURE)
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            packed += data[position + 8 : position + 8 + length]
        position += 12 + length
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width)
    if (rows[:, 0] != _UP).any():
        raise ValueError(f"{path} was written by another program")
    return np.cumsum(rows[:, 1:], axis=0, dtype=np.uint8)


def main() -> None:
    """Draw the pair and make its references by the shipped weights."""
    from streamfuse.sources import open_source

    planes = []
    for channel in ("ir", "vis"):
        with open_source(SCENE.format(channel=channel)) as source:
            planes.append(next(frame for frame in source if frame.index == FRAME).luma)
    write_sample(planes[0], planes[1], default_weights())


if __name__ == "__main__":
    main()
