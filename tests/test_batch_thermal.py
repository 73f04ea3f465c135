"""Batches of thermal cameras: images that hold both pictures, and temperatures in the address."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media import every, write_video
from test_batch_run import Here, fusing, run_all
from test_mcap_sink import messages
from test_radiometric import GEOMETRY, VISIBLE
from thermal_files import Container, counts_of, warm_spot

from streamfuse.batch.options import BatchOptions, check, made_of
from streamfuse.batch.recordings import Recording, pair_patterns, read_manifest, stored_recordings
from streamfuse.batch.run import Status
from streamfuse.errors import UsageError
from streamfuse.options import FusionOptions
from streamfuse.sinks.video_format import VideoFormat

__all__ = ["fusing"]

MCAP = BatchOptions(FusionOptions(video=VideoFormat("jpeg")))


def flight(directory: Path, celsius: float = 60) -> Path:
    for number in range(1, 4):
        Container(counts_of(warm_spot(celsius=celsius)), visible=VISIBLE, geometry=GEOMETRY).write(
            directory / f"FLIR{number:04}.jpg"
        )
    return directory


def test_images_that_hold_both_pictures_are_fused_with_their_geometry(tmp_path: Path, fusing: BatchOptions) -> None:
    for name in ("a", "b.1"):
        flight(tmp_path / "flights" / name)
    (tmp_path / "flights/notes.txt").touch()
    options = check(MCAP, [])
    found = stored_recordings(f"{tmp_path}/flights/*", tmp_path / "out", options.suffix)
    assert [one.output.name for one in found] == ["a.mcap", "b.1.mcap"]
    entries = run_all(Here(2), found, options)
    assert [(entry.status, entry.error) for entry in entries] == [(Status.DONE, None)] * 2
    sent = messages(found[0].output)["/fused/temperature"]
    values = sent[0][1].data.view("<u2").reshape(240, 320)
    assert len(sent) == 3
    rows, columns = np.nonzero(values == values.max())
    assert abs(rows.mean() - (120 - 8 + (20.5 - 29.5) * 2.5 - 0.5)) < 0.5  # as tests/test_radiometric.py computes it
    assert abs(columns.mean() - (160 + 12 + (30.5 - 39.5) * 2.5 - 0.5)) < 0.5


def test_a_manifest_names_images_that_hold_both_pictures(tmp_path: Path) -> None:
    flight(tmp_path / "flights/a.1")
    (tmp_path / "m.csv").write_text("ir\nflights/a.1\nflights/a.1/FLIR0002.jpg\n")
    found = read_manifest(tmp_path / "m.csv", tmp_path / "out", ".mp4")
    assert [(one.output.name, one.vis) for one in found] == [("a.1.mp4", ""), ("FLIR0002.mp4", "")]
    assert found[0].inputs == (str(tmp_path / "flights/a.1"),)
    (tmp_path / "m.csv").write_text("ir\nir.mkv\n")
    with pytest.raises(UsageError, match=r"m\.csv:2: give ir and vis, or vot, .*ir\.mkv alone is no image"):
        read_manifest(tmp_path / "m.csv", tmp_path / "out", ".mp4")
    with pytest.raises(UsageError, match="--vis missing"):
        stored_recordings(f"{tmp_path}/*.mkv", tmp_path, ".mp4")


def test_temperatures_stand_in_manifests_and_patterns(tmp_path: Path, fusing: BatchOptions) -> None:
    write_video(tmp_path / "ir.mkv", every(40, 4), codec="ffv1", pixel_format="gray16le")
    write_video(tmp_path / "vis.mp4", every(40, 4))
    (tmp_path / "m.csv").write_text("ir,vis\nir.mkv?temperature=kelvin/64,vis.mp4\n")
    options = check(MCAP, [])
    found = read_manifest(tmp_path / "m.csv", tmp_path / "out", options.suffix)
    warm = f"{tmp_path}/ir.mkv?temperature=kelvin/64"
    assert found == [Recording(tmp_path / "out/vis.mcap", warm, f"{tmp_path}/vis.mp4")]
    (entry,) = run_all(Here(), found, options)
    assert (entry.status, entry.error) == (Status.DONE, None)
    assert len(messages(found[0].output)["/fused/temperature"]) == 4
    listed, _ = pair_patterns(f"{tmp_path}/i*.mkv?temperature=kelvin/64", f"{tmp_path}/i*.mkv", tmp_path / "o", ".mp4")
    assert listed[0].ir == warm
    other = Recording(found[0].output, f"{tmp_path}/ir.mkv?temperature=kelvin/100", found[0].vis)
    assert made_of(found[0], options)["inputs"] != made_of(other, options)["inputs"]
