"""Batches of bags: how they are listed, fused whole and in segments, and written as MCAP files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bags import CONTAINERS, EPOCH_NS, PERIOD_NS
from media import read_video
from test_bag_topics import small_rig
from test_bags import walk
from test_batch_run import Here, fusing, run_all
from test_mcap_sink import messages

from streamfuse.batch.options import BatchOptions, check, made_of
from streamfuse.batch.recordings import Recording, bag_recordings, pair_patterns, read_manifest
from streamfuse.batch.run import Status
from streamfuse.errors import InputError, UsageError
from streamfuse.options import FusionOptions
from streamfuse.sinks.video_format import VideoFormat

__all__ = ["fusing"]


def bags(directory: Path, *names: str, count: int = 8) -> None:
    """Write bags NAME.mcap."""
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        path = CONTAINERS["mcap"]((directory / name).parent, [*small_rig(), *walk(count)])
        path.rename(directory / f"{name}.mcap")


def test_bags_are_listed_by_a_pattern(tmp_path: Path) -> None:
    bags(tmp_path, "rec/a", "rec/b")
    (tmp_path / "rec/notes.txt").touch()
    found = bag_recordings(f"{tmp_path}/rec/*", tmp_path / "out", ".mp4")
    assert [one.output.name for one in found] == ["a.mcap.mp4", "b.mcap.mp4"]
    found = bag_recordings(f"{tmp_path}/rec/*.mcap", tmp_path / "out", ".mp4")
    assert [(one.output, one.bag) for one in found] == [
        (tmp_path / f"out/{name}.mp4", str(tmp_path / f"rec/{name}.mcap")) for name in "ab"
    ]
    assert bag_recordings(f"{tmp_path}/rec/b.mcap", tmp_path, ".mkv")[0].output == tmp_path / "b.mkv"
    with pytest.raises(InputError, match="there is no bag"):
        bag_recordings(f"{tmp_path}/rec/*.bag", tmp_path / "out", ".mp4")


def test_topics_of_bags_are_paired_by_two_patterns(tmp_path: Path) -> None:
    bags(tmp_path, "rec/a")
    (one,), _ = pair_patterns(f"{tmp_path}/rec/*.mcap?topic=/ir", f"{tmp_path}/rec/*.mcap?topic=/eo", tmp_path, ".mp4")
    assert one == Recording(tmp_path / "a.mp4", f"{tmp_path}/rec/a.mcap?topic=/ir", f"{tmp_path}/rec/a.mcap?topic=/eo")


def test_a_manifest_names_bags_and_topics(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("ir,vis,bag\n,,rec/a.mcap\nb.bag?topic=/ir,b.bag?topic=/eo/image,\n,,rec/walk\n")
    found = read_manifest(tmp_path / "m.csv", tmp_path / "out", ".mp4")
    assert [one.output.name for one in found] == ["a.mp4", "b.mp4", "walk.mp4"]
    assert found[0].inputs == (str(tmp_path / "rec/a.mcap"),)
    assert found[1].inputs == (f"{tmp_path}/b.bag?topic=/ir", f"{tmp_path}/b.bag?topic=/eo/image")
    (tmp_path / "m.csv").write_text("ir,vis,bag\na,b,c\n")
    with pytest.raises(UsageError, match="or bag"):
        read_manifest(tmp_path / "m.csv", tmp_path / "out", ".mp4")


def test_another_topic_is_another_input(tmp_path: Path) -> None:
    bags(tmp_path, "a")
    path = tmp_path / "a.mcap"
    first, second = (Recording(tmp_path / "a.mp4", f"{path}?topic=/{name}", f"{path}?topic=/vis") for name in "xy")
    options = check(BatchOptions(), [])
    assert made_of(first, options)["inputs"] != made_of(second, options)["inputs"]


def test_a_bag_is_fused_in_segments_as_whole(tmp_path: Path, fusing: BatchOptions) -> None:
    bags(tmp_path, "long", count=450)
    names = ("segments.mkv", "whole.mkv")
    lossless = FusionOptions(video=VideoFormat("ffv1"))
    split, whole = (Recording(tmp_path / name, bag=str(tmp_path / "long.mcap")) for name in names)
    here = Here(2)
    (entry,) = run_all(here, [split], check(BatchOptions(lossless, split_s=6), []))
    assert (entry.status, entry.error) == (Status.DONE, None)
    assert [kind for kind, _, _ in here.log] == ["look", "segment", "segment", "segment", "join"]
    run_all(Here(), [whole], check(BatchOptions(lossless), []))
    times, pictures = read_video(split.output)
    expected_times, expected = read_video(whole.output)
    assert times == expected_times
    assert len(times) == 450
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(pictures, expected, strict=True)) < 1


def test_an_output_may_be_an_mcap_file(tmp_path: Path, fusing: BatchOptions) -> None:
    bags(tmp_path, "a")
    options = check(BatchOptions(FusionOptions(video=VideoFormat("jpeg"))), [])
    (recording,) = bag_recordings(f"{tmp_path}/a.mcap", tmp_path / "out", options.suffix)
    (entry,) = run_all(Here(), [recording], options)
    assert (entry.status, entry.error) == (Status.DONE, None)
    found = messages(tmp_path / "out/a.mcap")
    assert [at_ns for at_ns, _ in found["/fused/image/compressed"]] == [EPOCH_NS + k * PERIOD_NS for k in range(8)]
    assert len(found["/fused/run"]) == 1
    with pytest.raises(UsageError, match="cannot be joined"):
        check(BatchOptions(split_s=60), [recording])
