"""Import of the published checkpoints: three pickled state dicts, read without running any code in them.

They are one auto-encoder per modality (only its encoder is used) and one fusion network.  The files also contain
tensors that do not affect the fused image: the auto-encoders' decoders, `conv_gra`, the fixed 1/9 filters, the
self-attention modules' trailing `norm` and the cross-attention blocks' `attn.qkv`.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from streamfuse.errors import WeightsError
from streamfuse.network.checkpoint import check_finite, check_keys, is_counter

if TYPE_CHECKING:
    from torch import Tensor

    from streamfuse.network.config import CrossFuseConfig
    from streamfuse.network.crossfuse import CrossFuse

PUBLISHED_FILES = {
    "ir": "auto_encoder_ir.model",
    "vis": "auto_encoder_vi.model",
    "fusion": "fusetrans.model",
}


def import_published(directory: Path, config: CrossFuseConfig, files: Mapping[str, str] = PUBLISHED_FILES) -> CrossFuse:
    """Load the published files of `directory` as a network.  `files`: file names by "ir", "vis" and "fusion"."""
    from streamfuse.network.crossfuse import CrossFuse

    loaded = {role: _load_pickled(directory / name) for role, name in files.items()}
    network = CrossFuse(config).eval()
    names = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    tensors: dict[str, Tensor] = {}
    for role, found in loaded.items():
        table = _published_names(role, names, config.depth)
        check_keys(
            {theirs: names[ours] for theirs, ours in table.items()}, _used(role, found), str(directory / files[role])
        )
        tensors |= {ours: found[theirs].float() for theirs, ours in table.items()}
    check_finite(tensors, str(directory))
    network.load_state_dict(tensors, strict=False)
    return network


def _load_pickled(path: Path) -> dict[str, Tensor]:
    import torch

    try:
        _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unknown pickle protocols; it then raises too
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"there is no {path}; other file names go in --ir-file, --vis-file, --fusion-file") from None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    except WeightsError:
        raise
    except Exception:  # damaged pickles raise exceptions of any class
        raise WeightsError(f"{path} is not a PyTorch state dict, is damaged, or contains more than tensors") from None
    if not isinstance(found, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) and _is_plain(value) for key, value in found.items()
    ):
        raise WeightsError(f"{path} is not a PyTorch state dict of tensors")
    return found


def _check_archive(path: Path) -> None:
    """Refuse compressed archives: PyTorch writes none, and a few kilobytes of zip could expand to fill the memory."""
    if not zipfile.is_zipfile(path):
        return  # the older format
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise WeightsError(f"{path} is a compressed archive, which PyTorch does not write")


def _is_plain(tensor: Tensor) -> bool:
    """Return True for a tensor that is not sparse, quantised or on the meta device; pickles may contain those too."""
    import torch

    return tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _used(role: str, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without those that do not affect the fused image."""
    used = {}
    for key, value in found.items():
        parts = key.split(".")
        unused = (
            parts[0] in {"recon_decoder1", "conv_gra"}
            or is_counter(key)
            or ".weight.conv_" in key  # the fixed 1/9 filters
            or (role == "fusion" and "cross_atten_block.cross_atten" in key and ".attn.qkv." in key)
            or (".self_atten_block" in key and ".blocks." not in key)  # the trailing norm
        )
        if not unused:
            used[key] = value
    return used


def _published_names(role: str, names: Mapping[str, tuple[int, ...]], depth: int) -> dict[str, str]:
    """Return a mapping from published keys to those of this program, for the file of `role`."""
    prefix = {"ir": "encoder_ir.", "vis": "encoder_vis."}.get(role)
    table = {}
    for ours in names:
        if is_counter(ours):
            continue
        if prefix is None and ours.startswith(("cam.", "decoder.")):
            table[_fusion_key(ours, depth)] = ours
        elif prefix is not None and ours.startswith(prefix):
            table[_encoder_key(ours.removeprefix(prefix))] = ours
    return table


def _encoder_key(name: str) -> str:
    """Return the published key of an encoder's tensor, such as dense2.grow.1.bias or dense1.adjust.weight."""
    parts = name.split(".")
    if parts[0] == "conv":
        return f"fea_encoder1.conv1.conv2d.0.{parts[-1]}"
    block = {"dense1": 0, "dense2": 2}[parts[0]]
    layer = f"dense_conv{parts[2]}" if parts[1] == "grow" else "adjust_conv"
    return f"fea_encoder1.dense_blocks.{block}.{layer}.conv2d.0.{parts[-1]}"


def _fusion_key(name: str, depth: int) -> str:
    """Return the published key of a tensor, such as cam.self_ir.1.qkv.weight or cam.cross_vis.blocks.0.q.bias."""
    parts = name.split(".")
    if parts[0] == "decoder":
        layer = {"conv1": "conv1", "conv2": "conv_block.0", "conv3": "conv_block.2", "conv4": "conv_block.4"}
        kind = {"conv": 0, "norm": 1}[parts[2]]
        return f"decoder_fusion.{layer.get(parts[1], 'conv_last')}.conv2d.{kind}.{parts[-1]}"
    if parts[1].startswith("self_"):
        modality = {"self_ir": 1, "self_vis": 2}[parts[1]]
        half, block = divmod(int(parts[2]), depth)  # the paper's A and B, each `depth` blocks
        module = f"cross_atten_block.self_atten_block{half + 1}.self_atten{modality}"
        return f"{module}.blocks.{block}." + _block_key(parts[3:])
    # cross_atten1 takes its keys, values and residual from the visible stream, cross_atten2 from the infrared.
    modality = {"cross_vis": 1, "cross_ir": 2}[parts[1]]
    module = f"cross_atten_block.cross_atten_block.cross_atten{modality}"
    if parts[2] == "norm":
        return f"{module}.norm.{parts[-1]}"
    return f"{module}.blocks.{parts[3]}." + _block_key(parts[4:])


def _block_key(parts: list[str]) -> str:
    layer = {"qkv": "attn.qkv", "q": "attn.q_linear", "k": "attn.k_linear", "v": "attn.v_linear", "proj": "attn.proj"}
    return ".".join([layer.get(parts[0], parts[0]), *parts[1:]])
