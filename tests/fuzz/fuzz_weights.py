"""Targets for weights, training checkpoints, published checkpoints, and image headers."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import torch
from fuzz_target import Target, directory, file
from test_hostile_text import none_if_refused

from streamfuse.network import checkpoint, published
from streamfuse.network.config import CrossFuseConfig, Fusion, Output
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.sources.image_header import image_shape, jpeg_shape
from streamfuse.training import state

SMALL = CrossFuseConfig(output=Output.DIRECT, fusion=Fusion.CNN, shallow=1, deep=8, growth=1)


def weights(data: bytes) -> object:
    path = file(data, "w.safetensors")
    info = none_if_refused(lambda: checkpoint.read_info(path))
    if info is None:
        return None
    assert info.parameters >= 0
    return none_if_refused(lambda: checkpoint.load(path))


def training(data: bytes) -> object:
    path = file(data, "c.safetensors")
    network = torch.nn.Linear(2, 1)
    none_if_refused(lambda: state.read_network(path, network))
    return none_if_refused(
        lambda: state.load_state(path, network, {}, torch.optim.Adam(network.parameters()), {"seed": 1})
    )


def pickled(data: bytes) -> object:
    return none_if_refused(lambda: published._load_pickled(file(data, "a.model")))


def image(data: bytes) -> object:
    for shape in (jpeg_shape(data), image_shape(data)):
        assert shape is None or len(shape) == 2
    return shape


def _weights(storage: checkpoint.Storage) -> bytes:
    torch.manual_seed(0)
    path = directory() / "seed.safetensors"
    checkpoint.save(CrossFuse(SMALL), path, storage=storage)
    return path.read_bytes()


def _training() -> bytes:
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2)).sum().backward()
    optimizer.step()
    path = directory() / "seed.checkpoint"
    state.save_state(path, network, {}, optimizer, state.Progress(3, 0.5), {"seed": 1})
    return path.read_bytes()


def _pickled(*, archive: bool) -> bytes:
    made = io.BytesIO()
    torch.save({"a": torch.zeros(2, 3), "b": torch.ones(4).half()}, made, _use_new_zipfile_serialization=archive)
    return made.getvalue()


def _images() -> tuple[bytes, ...]:
    picture = np.zeros((40, 48), np.uint8)
    kinds = (".png", ".jpg", ".tif", ".bmp", ".pgm", ".webp", ".jp2")
    return tuple(cv2.imencode(kind, picture)[1].tobytes() for kind in kinds)


BIG = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 1 << 63)
"""A BigTIFF whose tags are beyond the end of any file."""

TARGETS = {
    "weights": Target(weights, tuple(map(_weights, (checkpoint.Storage.FP16, checkpoint.Storage.INT8)))),
    "training": Target(training, (_training(),)),
    "pickled": Target(pickled, (_pickled(archive=True), _pickled(archive=False))),
    "image": Target(image, _images(), (b"P5" + b" " * 28 + b"x", b"\xff\xd8" + b"\xff" * (4 << 20), BIG)),
}
