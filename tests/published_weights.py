"""Random checkpoints in the published three-file layout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

FILES = ("auto_encoder_ir.model", "auto_encoder_vi.model", "fusetrans.model")


def _layer(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from ((f"{name}.{value}", (channels,)) for value in ("weight", "bias", "running_mean", "running_var"))
    yield f"{name}.num_batches_tracked", ()


def _attention(name: str, cross: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _layer(f"{name}.norm1", 512)
    yield from _layer(f"{name}.norm2", 512)
    yield from _layer(f"{name}.attn.qkv", 1536, 512)
    for linear in ("q_linear", "k_linear", "v_linear") if cross else ():
        yield from _layer(f"{name}.attn.{linear}", 512, 512)
    yield from _layer(f"{name}.attn.proj", 512, 512)
    yield from _layer(f"{name}.mlp.fc1", 2048, 512)
    yield from _layer(f"{name}.mlp.fc2", 512, 2048)


def _encoder_file() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _layer("fea_encoder1.conv1.conv2d.0", 32, 1, 3, 3)
    for block, inputs in ((0, 32), (2, 128)):
        name = f"fea_encoder1.dense_blocks.{block}"
        for k in range(3):
            yield from _layer(f"{name}.dense_conv{k}.conv2d.0", 64, inputs + 64 * k, 3, 3)
        yield from _layer(f"{name}.adjust_conv.conv2d.0", 128, inputs + 192, 3, 3)
    yield from _layer("recon_decoder1.conv1.conv2d.0", 64, 128, 3, 3)


def _fusion_file() -> Iterator[tuple[str, tuple[int, ...]]]:
    cam = "cross_atten_block"
    for half in (1, 2):
        for modality in (1, 2):
            name = f"{cam}.self_atten_block{half}.self_atten{modality}"
            yield from _attention(f"{name}.blocks.0", cross=False)
            yield from _layer(f"{name}.norm", 512)
    for modality in (1, 2):
        name = f"{cam}.cross_atten_block.cross_atten{modality}"
        yield from _attention(f"{name}.blocks.0", cross=True)
        yield from _layer(f"{name}.norm", 512)
    yield "conv_gra.weight", (32, 32, 3, 3)
    layers = (
        ("conv1", 64, 128, 3),
        ("conv_block.0", 64, 64, 3),
        ("conv_block.2", 32, 64, 3),
        ("conv_block.4", 32, 32, 3),
    )
    for layer, outputs, inputs, side in (*layers, ("conv_last", 1, 32, 1)):
        yield from _layer(f"decoder_fusion.{layer}.conv2d.0", outputs, inputs, side, side)
        yield from _norm(f"decoder_fusion.{layer}.conv2d.1", outputs)
    yield "decoder_fusion.weight.conv_sh.weight", (32, 32, 3, 3)
    yield "decoder_fusion.weight.conv_de.weight", (128, 128, 3, 3)


def write_published(directory: Path, seed: int = 0) -> Path:
    """Write the three files, with values scaled to keep features of order one."""
    directory.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    for name in FILES:
        shapes = _fusion_file() if name == FILES[2] else _encoder_file()
        torch.save({key: _value(key, shape, generator) for key, shape in shapes}, directory / name)
    return directory


def _value(key: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if key.endswith("running_var"):
        return torch.rand(shape, generator=generator) + 0.5
    noise: Tensor = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return noise.div(math.prod(shape[1:]) ** 0.5)
    return noise.mul(0.1).add(float(key.endswith("weight")))
