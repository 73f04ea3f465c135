"""VOT sequences that are written, as they are read by this program and by the VOT toolkit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bags import PERIOD_NS
from command_line import SMALL, streamfuse
from media import luma_of, write_images
from test_mcap_sink import fused_frames
from test_video_sink import coloured

from streamfuse.errors import InputError, OutputError
from streamfuse.frames import FusedFrame
from streamfuse.sinks import open_sink
from streamfuse.sinks.about import About
from streamfuse.sources.vot import open_vot

GAP = 3
"""The frame, from 0, without a partner."""


def sequence(directory: Path, length: int = 8) -> Path:
    """A VOT-RGBT sequence with ground truth, a tag and a value; one infrared frame is missing."""
    numbers = range(1, length + 1)
    write_images(directory / "ir", [f"{k:08d}.jpg" for k in numbers if k != GAP + 1])
    write_images(directory / "color", [f"{k:08d}.jpg" for k in numbers], colour=True)
    (directory / "sequence").write_text(
        "name=street\nchannels.color=color/%08d.jpg\nchannels.ir=ir/%08d.jpg\nfps=30\nformat=default\n"
    )
    (directory / "groundtruth.txt").write_text("".join(f"{k},10,8,6\n" for k in range(length)))
    (directory / "occlusion.tag").write_text("".join(f"{k % 2}\n" for k in range(length)))
    (directory / "size_change.value").write_text("".join(f"{k / 4}\n" for k in range(length - 2)))
    return directory


def fuse(directory: Path, output: Path) -> None:
    done = streamfuse("run", "--vot", directory, "-o", f"vot:{output}", *SMALL)
    assert done.returncode in (0, 3), done.stderr  # 3: an image is missing


KEPT = [0, 1, 2, 4, 5, 6, 7]


def test_annotations_follow_the_frames(tmp_path: Path) -> None:
    fuse(sequence(tmp_path / "street"), tmp_path / "fused")
    lines = {path.name: path.read_text().split() for path in (tmp_path / "fused").iterdir() if path.is_file()}
    assert lines["groundtruth.txt"] == [f"{k},10,8,6" for k in KEPT]
    assert lines["occlusion.tag"] == [str(k % 2) for k in KEPT]
    assert lines["size_change.value"] == [str(k / 4) for k in KEPT if k < 6]
    assert dict(line.split("=") for line in lines["sequence"]) == {
        "name": "fused",
        "channels.color": "color/%08d.jpg",
        "fps": "30",
        "format": "default",
        "width": "64",
        "height": "48",
        "length": "7",
    }
    assert len(list((tmp_path / "fused/color").glob("*.jpg"))) == 7


def test_it_is_read_as_a_sequence(tmp_path: Path) -> None:
    """By this program, with the fused frames as the colour channel."""
    fuse(sequence(tmp_path / "street"), tmp_path / "fused")
    description = tmp_path / "fused/sequence"
    description.write_text(description.read_text() + "channels.ir=color/%08d.jpg\n")
    _, vis = open_vot(tmp_path / "fused")
    frames = list(vis)
    assert [frame.stamp_ns for frame in frames] == [round(k * 1e9 / 30) for k in range(7)]
    assert not vis.drops


def test_the_vot_toolkit_reads_it(tmp_path: Path) -> None:
    dataset: Any = pytest.importorskip(
        "vot.dataset",
        reason="the VOT toolkit asks for opencv-python, which cannot be beside opencv-python-headless: install it "
        "without its dependencies by scripts/vot-toolkit",
    )
    fuse(sequence(tmp_path / "street"), tmp_path / "fused")
    found = dataset.load_sequence(str(tmp_path / "fused"))
    assert (found.name, len(found), found.size) == ("fused", 7, (64, 48))
    for index, k in enumerate(KEPT):
        region = found.groundtruth(index)
        assert (region.x, region.y, region.width, region.height) == (k, 10, 8, 6)
        assert ("occlusion" in found.tags(index)) is (k % 2 == 1)
        assert found.values(index)["size_change"] == (k / 4 if k < 6 else 0)
        expected = cv2.imread(str(tmp_path / f"fused/color/{index + 1:08d}.jpg"))
        assert expected is not None
        np.testing.assert_array_equal(found.frame(index).image("color"), expected[..., ::-1])


def test_other_layouts_have_the_ground_truth_of_the_visible_frames(tmp_path: Path) -> None:
    for name in ("infrared", "visible"):
        write_images(tmp_path / "man" / name, [f"{k:04d}.png" for k in range(4)], colour=name == "visible")
        (tmp_path / "man" / f"{name}.txt").write_text("".join(f"{k},{name}\n" for k in range(4)))
    fuse(tmp_path / "man", tmp_path / "fused")
    assert (tmp_path / "fused/groundtruth.txt").read_text().split() == [f"{k},visible" for k in range(4)]


def test_a_crop_leaves_the_ground_truth_out(tmp_path: Path) -> None:
    calib = tmp_path / "calib.toml"
    text = "version = 1\nmethod = 'm'\ndate = 2026-01-01\nir_size = [64, 48]\nvis_size = [64, 48]\n"
    calib.write_text(text + "homography = [[1.0, 0, 4], [0, 1, 2], [0, 0, 1]]\n")
    arguments = ["--vot", sequence(tmp_path / "street"), "-o", f"vot:{tmp_path / 'fused'}", "--calib", calib]
    done = streamfuse("run", *arguments, "--crop", "overlap", *SMALL)
    assert "has no ground truth" in done.stderr
    assert not (tmp_path / "fused/groundtruth.txt").exists()


def test_a_sequence_is_protected(tmp_path: Path) -> None:
    target = f"vot:{tmp_path / 'out'}"
    for frames in (fused_frames(6), fused_frames(3)):
        sink = open_sink(target, force=len(frames) == 3)
        for frame in frames:
            sink.write(frame)
        sink.close()
    assert sorted(path.name for path in (tmp_path / "out/color").iterdir()) == [f"{k:08d}.jpg" for k in (1, 2, 3)]
    with pytest.raises(OutputError, match="not empty"):
        open_sink(target)
    with pytest.raises(OutputError, match="overwrite the input"):
        open_sink(target, force=True, inputs=[tmp_path / "out/color/00000001.jpg"])
    with pytest.raises(OutputError, match="overwrite the input"):
        open_sink(target, force=True, about=About(sequence=tmp_path / "out"))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        open_sink(f"vot:{tmp_path / 'file'}")


def test_nothing_fused_leaves_nothing(tmp_path: Path) -> None:
    open_sink(f"vot:{tmp_path / 'new'}").close(failed=True)
    assert not (tmp_path / "new").exists()


def test_a_killed_run_leaves_a_sequence(tmp_path: Path) -> None:
    sink = open_sink(f"vot:{tmp_path / 'out'}", period_ns=PERIOD_NS)
    for frame in fused_frames(3):
        sink.write(frame)
    description = (tmp_path / "out/sequence").read_text()
    assert "length" not in description
    assert "fps=25\n" in description


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    sink = open_sink(f"vot:{tmp_path / 'out'}")
    sink.write(fused_frames(1)[0])
    with pytest.raises(OutputError, match="another size"):
        sink.write(FusedFrame(luma_of(0, (96, 128)), coloured((96, 128)), 1, PERIOD_NS))


def test_annotations_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    directory = sequence(tmp_path / "street")
    (directory / "occlusion.tag").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"occlusion.tag is not text"):
        open_sink(f"vot:{tmp_path / 'out'}", about=About(sequence=directory))
