"""Weights files and published checkpoints."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from published_weights import FILES, write_published
from safetensors.torch import load_file, save_file

from streamfuse.cli.weights import command
from streamfuse.errors import OutputError, WeightsError
from streamfuse.network import checkpoint
from streamfuse.network.config import (
    CrossFuseConfig,
    Ends,
    Output,
    Preset,
    SkipArea,
    SkipBorder,
    SkipWeights,
    Veil,
    Window,
)
from streamfuse.network.crossfuse import CrossFuse
from streamfuse.network.published import import_published

CONFIG = CrossFuseConfig(1, SkipWeights.MAGNITUDE, Output.DIRECT)
REQUIRED = ("depth", "skip_weights", "output")
"""Required metadata of a network."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def weights(published: Path) -> Path:
    path = published / "w.safetensors"
    checkpoint.save(import_published(published, CONFIG), path)
    return path


def changed(weights: Path, tmp_path: Path, change: dict[str, Any], **metadata: str) -> Path:
    """Write a copy with some tensors replaced (None: removed) and other metadata."""
    tensors = load_file(weights)
    tensors.update({key: value for key, value in change.items() if value is not None})
    tensors = {key: value for key, value in tensors.items() if change.get(key, value) is not None}
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path, {**checkpoint.read_info(weights).metadata, **metadata})
    return path


def test_round_trip(published: Path, weights: Path) -> None:
    original, loaded = import_published(published, CONFIG), checkpoint.load(weights)
    assert loaded.config == CONFIG
    assert not loaded.training
    for key, value in original.state_dict().items():
        assert torch.allclose(loaded.state_dict()[key].float(), value.float(), rtol=1e-3, atol=1e-5) or "tracked" in key
    info = checkpoint.read_info(weights)
    assert info.parameters == pytest.approx(21_300_000, rel=0.01)
    assert info.dtypes == ("F16",)
    assert info.metadata["skip_weights"] == "magnitude"


def test_every_tensor_is_mapped(published: Path) -> None:
    """Encoders are mapped by modality; cross_atten1 is that of the visible stream."""
    files = [torch.load(published / name, weights_only=True) for name in FILES]
    state = import_published(published, CONFIG).state_dict()
    cam = "cross_atten_block"
    for ours, file, theirs in (
        ("encoder_ir.dense2.grow.1.weight", 0, "fea_encoder1.dense_blocks.2.dense_conv1.conv2d.0.weight"),
        ("encoder_vis.dense1.adjust.bias", 1, "fea_encoder1.dense_blocks.0.adjust_conv.conv2d.0.bias"),
        ("cam.self_ir.0.qkv.weight", 2, f"{cam}.self_atten_block1.self_atten1.blocks.0.attn.qkv.weight"),
        ("cam.self_vis.1.mlp.fc2.bias", 2, f"{cam}.self_atten_block2.self_atten2.blocks.0.mlp.fc2.bias"),
        ("cam.cross_vis.blocks.0.k.weight", 2, f"{cam}.cross_atten_block.cross_atten1.blocks.0.attn.k_linear.weight"),
        ("cam.cross_ir.norm.weight", 2, f"{cam}.cross_atten_block.cross_atten2.norm.weight"),
        ("decoder.conv3.conv.weight", 2, "decoder_fusion.conv_block.2.conv2d.0.weight"),
        ("decoder.last.norm.running_var", 2, "decoder_fusion.conv_last.conv2d.1.running_var"),
    ):
        assert torch.equal(state[ours], files[file][theirs]), ours


@pytest.mark.parametrize("storage", [checkpoint.Storage.FP16, checkpoint.Storage.INT8])
def test_values_beyond_fp16_are_stored_in_fp32(tmp_path: Path, storage: checkpoint.Storage) -> None:
    network, key = CrossFuse(CrossFuseConfig(shallow=8, deep=32, growth=16)), "decoder.conv1.norm.running_var"
    network.state_dict()[key][3] = 1e5
    checkpoint.save(network, tmp_path / "w.safetensors", storage=storage)
    assert checkpoint.load(tmp_path / "w.safetensors").state_dict()[key][3] == 1e5
    assert {"F16", "F32"} <= set(checkpoint.read_info(tmp_path / "w.safetensors").dtypes)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("encoder_ir.conv.bias", None, "missing: encoder_ir.conv.bias"),
        ("extra", torch.zeros(1), "unexpected: extra"),
        ("encoder_ir.conv.bias", torch.zeros(7), r"encoder_ir.conv.bias is \(7,\), not \(32,\)"),
        ("encoder_ir.conv.bias", torch.full((32,), float("nan")), "not finite.*encoder_ir.conv.bias"),
    ],
)
def test_wrong_tensors_are_named(weights: Path, tmp_path: Path, key: str, value: Any, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        checkpoint.load(changed(weights, tmp_path, {key: value}))


def test_optional_metadata(weights: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG,
        skip_border=SkipBorder.REFLECT,
        shallow=4,
        deep=8,
        growth=4,
        skip_power=8,
        skip_infrared=0.75,
        skip_area=SkipArea.BLOCK,
        window=Window.FITTED,
        ends=Ends.BENT,
        veil=Veil.LIFTED,
    )
    checkpoint.save(CrossFuse(config), tmp_path / "w.safetensors")
    assert checkpoint.load(tmp_path / "w.safetensors").config == config
    metadata = {
        key: value for key, value in checkpoint.read_info(weights).metadata.items() if key in ("format", *REQUIRED)
    }
    assert checkpoint.parse_config(metadata, weights) == CONFIG


def test_wrong_metadata_is_named(weights: Path, tmp_path: Path) -> None:
    for metadata, words in (
        ({"depth": "x"}, "depth 'x'"),
        ({"skip_weights": "none"}, "skip_weights 'none'"),
        ({"skip_border": "grey"}, "skip_border 'grey'"),
        ({"skip_power": "3"}, "skip_power '3'"),
        ({"skip_infrared": "much"}, "skip_infrared 'much'"),
        ({"skip_area": "all"}, "skip_area 'all'"),
        ({"window": "round"}, "window 'round'"),
        ({"ends": "loose"}, "ends 'loose'"),
        ({"veil": "torn"}, "veil 'torn'"),
        ({"ends": "bent", "output": "minmax"}, "ends 'bent'"),
        ({"format": "other"}, "not a streamfuse weights file"),
    ):
        with pytest.raises(WeightsError, match=words):
            checkpoint.read_info(changed(weights, tmp_path, {}, **metadata))
    with pytest.raises(WeightsError, match=r"missing: cam\.self_ir\.2"):  # weights of another network
        checkpoint.load(changed(weights, tmp_path, {}, depth="2"))


def test_invalid_weights_files_are_refused(weights: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    half.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    with pytest.raises(WeightsError, match="damaged"):
        checkpoint.load(half)
    for name, data in (("empty", b""), ("text", b"no weights" * 10), ("header", b"\x04" + bytes(7) + b"nope")):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="not a safetensors file"):
            checkpoint.read_info(path)
    with pytest.raises(WeightsError, match="there is no weights file"):
        checkpoint.read_info(tmp_path / "gone")


def test_saving_is_atomic(tmp_path: Path) -> None:
    network = CrossFuse(CONFIG)
    with pytest.raises(OutputError, match="cannot write"):
        checkpoint.save(network, tmp_path / "gone" / "w.safetensors")
    with torch.no_grad():
        network.encoder_ir.conv.weight.fill_(torch.nan)
    with pytest.raises(WeightsError, match="not finite"):
        checkpoint.save(network, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_packed_weights_are_half_as_large_and_nearly_equal(weights: Path, tmp_path: Path) -> None:
    original = checkpoint.load(weights)
    for tensor in original.state_dict().values():
        if tensor.dim() > 1:
            tensor[0] *= 50  # rows of one tensor differ in size
    checkpoint.save(original, tmp_path / "w.safetensors", extra={"preset": "balanced"})
    run("pack", str(tmp_path / "w.safetensors"), "-o", str(tmp_path / "p.safetensors"))
    assert (tmp_path / "p.safetensors").stat().st_size < 0.51 * weights.stat().st_size
    info = checkpoint.read_info(tmp_path / "p.safetensors")
    assert (info.dtypes, info.preset) == (("F16", "F32", "I8"), Preset.BALANCED)
    assert info.parameters == checkpoint.read_info(weights).parameters
    packed = checkpoint.load(info.path)
    assert packed.config == CONFIG
    for key, value in packed.state_dict().items():
        wanted = original.state_dict()[key].float().flatten(1 if value.dim() > 1 else 0)
        off = value.float().view_as(wanted) - wanted
        step = wanted.abs().amax(-1, keepdim=True) / 127
        clipped = off.abs().square().mean(-1, keepdim=True).sqrt()
        assert bool((clipped <= 0.35 * step + 1e-6).all()), key  # rounding evenly: 0.29 steps RMS
    with pytest.raises(OutputError, match="--force"):
        run("pack", str(weights), "-o", str(info.path))


def run(*args: str) -> None:
    assert CliRunner().invoke(command, args, catch_exceptions=False).exit_code == 0


def test_packed_values_need_one_scale_a_row(weights: Path, tmp_path: Path) -> None:
    name = "decoder.conv1.conv.weight"
    checkpoint.save(checkpoint.load(weights), tmp_path / "p.safetensors", storage=checkpoint.Storage.INT8)
    scale = load_file(tmp_path / "p.safetensors")[f"{name}.scale"]
    for wrong in (None, scale[:-1], scale.int(), scale[:, None]):
        with pytest.raises(WeightsError, match=rf"damaged: {name} has 8 bits a value, and {name}.scale not one"):
            checkpoint.load(changed(tmp_path / "p.safetensors", tmp_path, {f"{name}.scale": wrong}))
    with pytest.raises(WeightsError, match="not finite"):
        checkpoint.load(changed(tmp_path / "p.safetensors", tmp_path, {f"{name}.scale": scale * float("inf")}))
    with pytest.raises(WeightsError, match=r"unexpected: extra.scale"):
        checkpoint.load(changed(weights, tmp_path, {"extra.scale": scale}))


# Published checkpoints


class Exploit:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_does_not_run(published: Path, tmp_path: Path) -> None:
    target = tmp_path / "was-run"
    for name in FILES:
        (tmp_path / name).write_bytes((published / name).read_bytes())
    torch.save({"fea_encoder1.conv1.conv2d.0.weight": Exploit(target)}, tmp_path / FILES[0])
    with pytest.raises(WeightsError, match="more than tensors"):
        import_published(tmp_path, CONFIG)
    (tmp_path / FILES[0]).write_bytes(pickle.dumps(Exploit(target)))
    with pytest.raises(WeightsError, match="more than tensors"):
        import_published(tmp_path, CONFIG)
    assert not target.exists()


def test_missing_and_wrong_keys_are_in_one_error(published: Path, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes((published / name).read_bytes())
    state = torch.load(tmp_path / FILES[2], weights_only=True)
    state["decoder_fusion.conv9.weight"] = state.pop("decoder_fusion.conv1.conv2d.0.weight")
    torch.save(state, tmp_path / FILES[2])
    with pytest.raises(WeightsError, match=r"fusetrans.model.*missing: decoder_fusion.conv1.*unexpected: .*conv9"):
        import_published(tmp_path, CONFIG)
    (tmp_path / FILES[1]).unlink()
    with pytest.raises(WeightsError, match=r"there is no .*auto_encoder_vi.model.*--vis-file"):
        import_published(tmp_path, CONFIG)


def test_import_command(published: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name, new in zip(FILES, ("a", "b", "c"), strict=True):
        (other / new).write_bytes((published / name).read_bytes())
    out = tmp_path / "w.safetensors"
    args = ["import", str(other), "-o", str(out), "--ir-file", "a", "--vis-file", "b", "--fusion-file", "c"]
    result = CliRunner().invoke(command, args, catch_exceptions=False)
    assert result.exit_code == 0
    assert checkpoint.read_info(out).config == CrossFuseConfig(1, SkipWeights.SIGNED, Output.MINMAX)
    with pytest.raises(OutputError, match="--force"):
        CliRunner().invoke(command, args, catch_exceptions=False)
    more = ["--force", "--skip-weights", "magnitude", "--output", "direct", "--fp32"]
    assert CliRunner().invoke(command, args + more, catch_exceptions=False).exit_code == 0
    assert checkpoint.read_info(out).config == CONFIG
    assert checkpoint.read_info(out).dtypes == ("F32",)
