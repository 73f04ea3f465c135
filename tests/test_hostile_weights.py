"""Untrusted weights files: no code in them runs, no header allocates memory, and errors are StreamfuseErrors."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from published_weights import FILES, write_published
from small import RECIPE, fuse_task

from streamfuse.errors import StreamfuseError, WeightsError
from streamfuse.network import checkpoint
from streamfuse.network.config import CrossFuseConfig
from streamfuse.network.published import import_published
from streamfuse.training import state

CONFIG = CrossFuseConfig()
METADATA = {"format": checkpoint.FORMAT, "depth": "1", "skip_weights": "signed", "output": "direct"}


class Exploit:
    """Makes a directory when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _as_tensor(exploit: Exploit) -> object:
    return OrderedDict({"fea_encoder1.conv1.conv2d.0.weight": exploit, "x": torch.zeros(3)})


def _write_zip(path: Path, exploit: Exploit) -> None:
    torch.save(_as_tensor(exploit), path)


def _write_old(path: Path, exploit: Exploit) -> None:
    torch.save(_as_tensor(exploit), path, _use_new_zipfile_serialization=False)


def _write_pickle(path: Path, exploit: Exploit) -> None:
    path.write_bytes(pickle.dumps(_as_tensor(exploit)))


@pytest.fixture
def published_copy(published: Path, tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).hardlink_to(published / name)
    (tmp_path / FILES[0]).unlink()
    return tmp_path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("published")
    write_published(directory)
    return directory


@pytest.mark.parametrize("write", [_write_zip, _write_old, _write_pickle])
def test_pickle_given_as_any_file_runs_no_code(
    write: Callable[[Path, Exploit], None], published_copy: Path, tmp_path: Path
) -> None:
    """The file read as a published checkpoint, as weights, and as a training checkpoint."""
    owned = tmp_path / "owned"
    path = published_copy / FILES[0]
    write(path, Exploit(owned))
    renamed = tmp_path / "w.safetensors"
    renamed.hardlink_to(path)
    task = fuse_task(RECIPE)
    for read in (
        lambda: import_published(published_copy, CONFIG),
        lambda: checkpoint.load(renamed),
        lambda: checkpoint.read_info(renamed),
        lambda: state.read_state(renamed),
        lambda: state.read_network(renamed, task.network),
    ):
        with pytest.raises(StreamfuseError):
            read()
    assert not owned.exists()


def test_exploit_runs_when_unpickled(tmp_path: Path) -> None:
    _write_pickle(tmp_path / "p", Exploit(tmp_path / "owned"))
    pickle.loads((tmp_path / "p").read_bytes())
    assert (tmp_path / "owned").is_dir()


def test_compressed_archive_is_not_unpacked(published_copy: Path) -> None:
    """A megabyte that expands to a gigabyte of zeros."""
    stored, bomb = published_copy / "stored", published_copy / FILES[0]
    torch.save({"x": torch.zeros(1 << 20)}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(WeightsError, match="compressed archive"):
        import_published(published_copy, CONFIG)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1).expand(1 << 20, 1 << 10),  # four bytes that claim to be a gigabyte
        lambda: torch.zeros(32, 1, 3, 3).to_sparse(),
        lambda: torch.zeros(32, 1, 3, 3, device="meta"),
        lambda: torch.quantize_per_tensor(torch.zeros(32, 1, 3, 3), 0.1, 0, torch.qint8),
    ],
    ids=["expanded", "sparse", "meta", "quantised"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds(make: Callable[[], torch.Tensor], published: Path, published_copy: Path) -> None:
    tensors = torch.load(published / FILES[0], weights_only=True)
    torch.save(tensors | {"fea_encoder1.conv1.conv2d.0.weight": make()}, published_copy / FILES[0])
    with pytest.raises(WeightsError):
        import_published(published_copy, CONFIG)


@given(data=st.data())
def test_damaged_pickles(published: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes are changed in the pickle inside an archive and in one without an archive."""
    directory = tmp_path_factory.mktemp("damaged")
    path = directory / FILES[0]
    torch.save({"a": torch.zeros(2, 3), "b": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    entries[name] = _changed(data, entries[name])
    if data.draw(st.booleans()):
        path.write_bytes(entries[name])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
    with pytest.raises(WeightsError):
        import_published(directory, CONFIG)


def _changed(data: st.DataObject, original: bytes) -> bytes:
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    return bytes(changed)


# Safetensors


def _safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(shape: object, offsets: object = (0, 4), dtype: object = "F32") -> dict[str, object]:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return {"__metadata__": METADATA, "encoder_ir.conv.weight": entry}


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=9), inner, max_size=4)),
    max_leaves=8,
)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.builds(_safetensors, _JSON, st.binary(max_size=20), st.one_of(st.none(), st.integers(0, 2**64 - 1))),
        st.builds(_safetensors, st.builds(_tensor, _JSON, _JSON, _JSON), st.binary(max_size=20)),
        st.builds(
            lambda key, value: _safetensors({"__metadata__": METADATA | {key: value}}),
            st.sampled_from([*METADATA, "attention", "fusion", "preset"]),
            _JSON,
        ),
    )
)
@example(_safetensors({}, length=2**64 - 1))
@example(_safetensors({}, length=9_999_999))
@example(_safetensors(_tensor([2**40, 2**40]), bytes(4)))
@example(_safetensors(_tensor([2**31, 2**31], (0, 2**62)), bytes(4)))
@example(_safetensors(_tensor([10**300] * 1000), bytes(4)))
@example(_safetensors(_tensor([-1, -1]), bytes(4)))
@example(_safetensors(_tensor([1], (4, 0)), bytes(4)))
@example(_safetensors(b"[" * 100_000))
@example(_safetensors({"__metadata__": METADATA, "x": 3}))
def test_headers(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        checkpoint.load(path)
    with contextlib.suppress(WeightsError):
        assert checkpoint.read_info(path).parameters >= 0
    with pytest.raises(StreamfuseError):
        state.read_state(path)


@pytest.mark.parametrize(
    "change", [{"about": "[" * 9000}, {"about": "3"}, {"step": "x"}, {"best": ""}, {"about": None}]
)
def test_checkpoint_without_its_run(change: dict[str, str | None], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    metadata = {"format": state.FORMAT, "about": "{}", "step": "1", "best": "1.0"} | change
    save_file({"x": torch.zeros(1)}, tmp_path / "c", {k: v for k, v in metadata.items() if v is not None})
    task = fuse_task(RECIPE)
    optimizer = torch.optim.SGD(task.network.parameters())
    with pytest.raises(StreamfuseError, match="does not say of which run"):
        state.load_state(tmp_path / "c", task.network, {}, optimizer, {})
