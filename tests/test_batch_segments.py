"""Long recordings in segments: as if they had never been cut."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from batches import options
from media import PassThrough, every, read_video, write_images, write_video

from streamfuse.batch import receipts, warm, worker
from streamfuse.batch.options import BatchOptions, check, made_of
from streamfuse.batch.recordings import Recording
from streamfuse.batch.segments import WHOLE, SegmentSink, SegmentSource, Window, cut, join
from streamfuse.batch.worker import Outcome
from streamfuse.errors import InputError, OutputError
from streamfuse.frames import Role
from streamfuse.fuser import Fuser
from streamfuse.options import EngineChoice, FusionOptions
from streamfuse.pipeline import Pipeline
from streamfuse.sinks.video import VideoSink
from streamfuse.sinks.video_format import VideoFormat
from streamfuse.sources import open_pair
from streamfuse.sources.options import SourceOptions


@pytest.fixture
def weights(full_weights: Path) -> Path:
    """A network slow enough to be interrupted at work."""
    return full_weights


GOP = {"g": "10", "keyint_min": "10", "sc_threshold": "0"}
SLOW = {"g": "3", "keyint_min": "3", "sc_threshold": "0"}
"""Key frames 1.2 s apart in recordings of 2.5 frames a second: these are fused by a real network."""


def fuse(ir: Path, vis: Path, out: Path, video: VideoFormat, window: Window, offset_ms: float = 0.0) -> SegmentSink:
    """A segment fused as by a worker, with an engine that returns infrared."""
    a, b = open_pair(str(ir), str(vis))
    segment = SegmentSink(VideoSink(out, video, period_ns=b.period_ns), window, round(offset_ms * 1e6))
    sources = SegmentSource(a, window.less(round(offset_ms * 1e6))), SegmentSource(b, window)
    fuser = Fuser(engine=PassThrough(), tone="smooth")
    Pipeline(*sources, sinks=[segment], fuser=fuser, ir_offset_ms=offset_ms).run()
    return segment


def in_parts(
    root: Path, ir: Path, vis: Path, video: VideoFormat, suffix: str, split_s: float, offset_ms: float = 0.0
) -> tuple[Path, Path, list[Window]]:
    """Fused at once, and in segments that are joined; and the segments."""
    whole, joined = root / f"whole{suffix}", root / f"joined{suffix}"
    fuse(ir, vis, whole, video, WHOLE, offset_ms)
    windows = cut(*open_pair(str(ir), str(vis)), split_s)
    files = [root / f"segment{place}{suffix}" for place in range(len(windows))]
    for window, file in zip(windows, files, strict=True):
        fuse(ir, vis, file, video, window, offset_ms)
    join(files, joined)
    return whole, joined, windows


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("h264", ".mp4"), ("h264", ".mkv"), ("hevc", ".mp4"), ("hevc", ".mov"), ("hevc", ".m4v"), ("ffv1", ".mkv")],
)
def test_a_joined_file_is_the_unsplit_one(tmp_path: Path, codec: str, suffix: str) -> None:
    # Uneven stamps, a gap, and infrared that is late and has another rate.
    stamps = [1000 + 40 * k + (7 if k % 3 else 0) + (500 if k > 180 else 0) for k in range(300)]
    vis = write_video(tmp_path / "vis.mp4", stamps, options=GOP)
    ir = write_video(tmp_path / "ir.mp4", every(33.3, 420, 7200), options=GOP)
    whole, joined, windows = in_parts(tmp_path, ir, vis, VideoFormat(codec), suffix, 4, offset_ms=-6150)
    assert len(windows) == 3
    (times, pictures), (joined_times, joined_pictures) = read_video(whole), read_video(joined)
    assert joined_times == times
    differences = [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(pictures, joined_pictures, strict=True)]
    assert max(float(each.mean()) for each in differences) < (0.01 if codec == "ffv1" else 1.0)
    with av.open(str(whole)) as a, av.open(str(joined)) as b:
        for one, other in zip(a.streams.video, b.streams.video, strict=True):
            assert other.time_base == one.time_base
            for key in ("codec_tag", "pix_fmt", "color_range", "colorspace", "color_primaries", "color_trc", "width"):
                assert getattr(other.codec_context, key) == getattr(one.codec_context, key), key


def test_a_frame_at_a_joint_is_used_once(tmp_path: Path) -> None:
    """Infrared of 10 frames a second, one of them 5 ms before the cut: the frame after the cut is nearest to it."""
    vis = write_video(tmp_path / "vis.mp4", every(40, 200), options=GOP)
    ir = write_video(tmp_path / "ir.mp4", every(100, 80, 95), options=GOP)
    whole, joined, windows = in_parts(tmp_path, ir, vis, VideoFormat("ffv1"), ".mkv", 4)
    assert windows[0].stop_ns == 4_000_000_000
    assert read_video(joined)[0] == read_video(whole)[0]


def test_parts_begin_at_key_frames(tmp_path: Path) -> None:
    vis = write_video(tmp_path / "vis.mp4", every(40, 500), options=GOP)
    ir = write_video(tmp_path / "ir.mkv", every(40, 500), options=GOP)
    windows = cut(*open_pair(str(ir), str(vis)), 5.1)
    assert windows[0].start_ns is None
    assert windows[-1].stop_ns is None
    starts = [window.start_ns for window in windows[1:]]
    assert starts == [window.stop_ns for window in windows[:-1]]
    with av.open(str(vis)) as container:
        keys = {packet.pts for packet in container.demux(video=0) if packet.is_keyframe and packet.pts}
    assert {start * 90_000 // 1_000_000_000 for start in starts if start is not None} <= keys
    assert starts == [4_800_000_000, 10_000_000_000, 15_200_000_000]
    short = write_video(tmp_path / "short.mp4", every(40, 200), options=GOP)
    assert len(cut(*open_pair(str(short), str(vis)), 5.1)) == 2  # there is nothing to fuse after it has ended
    assert len(cut(*open_pair(str(short), str(vis)), 5.1, 10_000_000_000)) == 4


def test_what_is_short_or_cannot_be_jumped_in_stays_whole(tmp_path: Path) -> None:
    vis = write_video(tmp_path / "vis.mp4", every(40, 200), options=GOP)
    stream = write_video(tmp_path / "ir.ts", every(40, 200), options=GOP)
    far = write_video(tmp_path / "far.mp4", every(40, 200), options={"g": "500", "sc_threshold": "0"})
    assert cut(*open_pair(str(vis), str(vis)), 6) == [WHOLE]
    assert cut(*open_pair(str(stream), str(vis)), 2) == [WHOLE]
    assert cut(*open_pair(str(vis), str(stream)), 2) == [WHOLE]
    assert cut(*open_pair(str(vis), str(far)), 2) == [WHOLE]  # one key frame


def test_images_are_cut_at_any_of_them(tmp_path: Path) -> None:
    names = [f"{k:03d}.png" for k in range(250)]
    ir, vis = write_images(tmp_path / "ir", names), write_images(tmp_path / "vis", names)
    whole, joined, windows = in_parts(tmp_path, ir, vis, VideoFormat("ffv1"), ".mkv", 3)
    assert [window.start_ns for window in windows] == [None, 3_000_000_000, 6_000_000_000]
    (times, pictures), (joined_times, joined_pictures) = read_video(whole), read_video(joined)
    assert joined_times == times
    assert all(np.array_equal(a, b) for a, b in zip(pictures, joined_pictures, strict=True))


def test_parts_that_were_coded_otherwise_are_not_joined(tmp_path: Path) -> None:
    vis = write_video(tmp_path / "vis.mp4", every(40, 20))
    fuse(vis, vis, tmp_path / "a.mp4", VideoFormat(), WHOLE)
    fuse(vis, vis, tmp_path / "b.mp4", VideoFormat(crf=40), WHOLE)
    with pytest.raises(OutputError, match="coded otherwise than the segment before"):
        join([tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path / "c.mp4")


@pytest.fixture
def fusing(weights: Path, monkeypatch: pytest.MonkeyPatch) -> BatchOptions:
    options(weights)
    monkeypatch.setattr(warm, "_idle", {})
    plain = BatchOptions(FusionOptions(EngineChoice("openvino", "fp32", weights=weights)), split_s=5.0)
    return check(plain, [])


def run_parts(recording: Recording, fusing: BatchOptions) -> tuple[list[Outcome], Outcome]:
    """All units of a recording, in this process; the segments' outcomes and the whole's."""
    made = made_of(recording, fusing)
    windows = worker.look(recording, fusing).windows
    outcomes = [worker.fuse(recording, fusing, made, False, window, place) for place, window in enumerate(windows)]
    assert all(outcome.error is None for outcome in outcomes)
    return outcomes, worker.join(recording, fusing, made, False, [outcome.figures or {} for outcome in outcomes])


def test_what_is_too_large_is_refused_in_the_worker(tmp_path: Path, fusing: BatchOptions) -> None:
    vis = write_video(tmp_path / "vis.mp4", every(40, 5))
    recording = Recording(tmp_path / "fused.mp4", str(vis), str(vis))
    small = replace(fusing, fusion=replace(fusing.fusion, sources=SourceOptions(max_pixels=100)))
    outcome = worker.fuse(recording, small, made_of(recording, small), False)
    assert outcome.error is not None
    assert "more than 100 are refused" in outcome.error
    assert made_of(recording, small) == made_of(recording, fusing)  # which changes nothing in what is made


@pytest.mark.parametrize(
    ("ir_stamps", "vis_stamps", "offset_ms"),
    [
        (every(100, 150, 30), every(200, 75), 0.0),
        (every(200, 75), every(100, 150, 30), 0.0),
        (every(130, 115), every(200, 75), -740.0),
        ([stamp for stamp in every(200, 75) if not 4500 < stamp < 5700], every(200, 75), 0.0),
        (every(200, 75), [stamp for stamp in every(200, 75) if not 4100 < stamp < 5300], 0.0),
        ([stamp for stamp in every(200, 75) if not 4500 < stamp < 11_000], every(200, 75), 0.0),
        (every(200, 60, 130), every(200, 120), 0.0),
        (every(200, 120), every(200, 60), 440.0),
    ],
    ids=["ir twice", "visible twice", "offset", "ir gap", "visible gap", "ir away", "visible longer", "ir longer"],
)
def test_in_parts_every_frame_is_counted_as_without(
    tmp_path: Path,
    fusing: BatchOptions,
    monkeypatch: pytest.MonkeyPatch,
    ir_stamps: list[float],
    vis_stamps: list[float],
    offset_ms: float,
) -> None:
    monkeypatch.setattr(warm, "_make_engine", lambda fusing: PassThrough())
    ir = write_video(tmp_path / "ir.mp4", ir_stamps, options=SLOW)
    vis = write_video(tmp_path / "vis.mp4", vis_stamps, options=SLOW)
    names = (tmp_path / name for name in ("segments.mp4", "whole.mp4"))
    recording, unsplit = (Recording(name, str(ir), str(vis), ir_offset_ms=offset_ms) for name in names)
    outcomes, joined = run_parts(recording, fusing)
    assert len(outcomes) >= 2
    whole = worker.fuse(unsplit, fusing, made_of(unsplit, fusing), False)
    assert joined.figures is not None
    assert whole.figures is not None
    assert joined.figures["drops"] == whole.figures["drops"]
    lost = {role.label: sum(joined.figures["drops"].get(role.label, {}).values()) for role in Role}
    assert lost["infrared"] + joined.figures["frames"] == len(ir_stamps)
    assert lost["visible"] + joined.figures["frames"] == len(vis_stamps)


def test_missing_images_are_counted_in_the_part_where_they_are_missing(
    tmp_path: Path, fusing: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "_make_engine", lambda fusing: PassThrough())
    names = [f"{k:03d}.png" for k in range(250)]
    vis = write_images(tmp_path / "vis", names)
    ir = write_images(tmp_path / "ir", [name for name in names if name not in ("040.png", "124.png", "125.png")])
    pattern = "%03d.png"
    recording, unsplit = (
        Recording(tmp_path / name, str(ir / pattern), str(vis / pattern)) for name in ("a.mp4", "b.mp4")
    )
    _, joined = run_parts(recording, fusing)
    whole = worker.fuse(unsplit, fusing, made_of(unsplit, fusing), False)
    assert joined.figures is not None
    assert whole.figures is not None
    assert joined.figures["drops"] == whole.figures["drops"]
    assert whole.figures["drops"] == {"visible": {"no partner in time": 3}}


def write_slow(path: Path, count: int, **more: Any) -> Path:
    return write_video(path, every(400, count), options=SLOW, **more)


def test_units_leave_the_output_alone(tmp_path: Path, fusing: BatchOptions) -> None:
    for role in ("ir", "vis"):
        write_slow(tmp_path / f"{role}.mp4", 27)
    recording = Recording(tmp_path / "out/fused.mp4", str(tmp_path / "ir.mp4"), str(tmp_path / "vis.mp4"))
    outcomes, whole = run_parts(recording, fusing)
    assert len(outcomes) == 2
    assert whole.error is None
    assert whole.figures is not None
    assert (whole.figures["frames"], whole.figures["segments"], whole.figures["drops"]) == (27, 2, {})
    assert {path.name for path in recording.output.parent.iterdir()} == {"fused.mp4", ".fused.mp4.batch.json"}
    assert read_video(recording.output)[0] == pytest.approx(every(400, 27), abs=0.02)
    assert [len(engines) for engines in warm._idle.values()] == [1]  # all units had one engine
    # A unit that is sent again, because its worker died before it could answer, does nothing.
    changed = recording.output.stat().st_mtime_ns
    again = worker.join(recording, fusing, made_of(recording, fusing), False, [])
    assert again.figures == whole.figures
    assert recording.output.stat().st_mtime_ns == changed


def test_a_worker_with_two_threads_has_two_engines(tmp_path: Path, fusing: BatchOptions) -> None:
    for role in ("ir", "vis"):
        write_slow(tmp_path / f"{role}.mp4", 12)
    recordings = [
        Recording(tmp_path / f"{k}.mp4", str(tmp_path / "ir.mp4"), str(tmp_path / "vis.mp4")) for k in range(3)
    ]
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda recording: worker.fuse(recording, fusing, made_of(recording, fusing), False), recordings[:2]
            )
        )
    assert [len(engines) for engines in warm._idle.values()] == [2]
    assert worker.fuse(recordings[2], fusing, made_of(recordings[2], fusing), False).error is None
    times, pictures = read_video(recordings[2].output)
    for recording in recordings[:2]:
        assert read_video(recording.output)[0] == times
        assert all(np.array_equal(a, b) for a, b in zip(read_video(recording.output)[1], pictures, strict=True))


def test_another_version_or_other_weights_are_refused(tmp_path: Path, fusing: BatchOptions) -> None:
    for role in ("ir", "vis"):
        write_slow(tmp_path / f"{role}.mp4", 3)
    recording = Recording(tmp_path / "out.mp4", str(tmp_path / "ir.mp4"), str(tmp_path / "vis.mp4"))
    for other, code, words in (
        (replace(fusing, version="0.0"), 1, "not 0.0: install the same"),
        (replace(fusing, weights_digest="0"), 4, "has other weights"),
    ):
        outcome = worker.fuse(recording, other, made_of(recording, fusing), False)
        assert outcome.code == code
        assert words in str(outcome.error)
    with pytest.raises(InputError, match=r"gone\.toml cannot be read"):
        made_of(replace(recording, calib=str(tmp_path / "gone.toml")), fusing)
    assert not list(tmp_path.glob("out*"))


def test_a_full_disk_is_told_of_the_output(tmp_path: Path, fusing: BatchOptions) -> None:
    """The file that is written aside, and removed, is not spoken of."""
    aside, output = tmp_path / ".out.mp4.work/host.1.0.mp4", tmp_path / "out.mp4"
    with pytest.raises(OutputError) as raised, worker._renamed(aside, output):
        raise OutputError(f"cannot write {aside}: the disk is full; {aside} holds what was written, about 3 frames")
    assert str(raised.value) == f"cannot write {output}: the disk is full"


def test_finished_parts_are_kept(tmp_path: Path, fusing: BatchOptions) -> None:
    for role in ("ir", "vis"):
        write_slow(tmp_path / f"{role}.mp4", 27)
    recording = Recording(tmp_path / "fused.mp4", str(tmp_path / "ir.mp4"), str(tmp_path / "vis.mp4"))
    made = made_of(recording, fusing)
    windows = worker.look(recording, fusing).windows
    worker.fuse(recording, fusing, made, False, windows[0], 0)
    segment = receipts.segment_file(recording.output, made, 0)
    before = segment.stat().st_mtime_ns
    receipts.sweep(recording.output)
    assert worker.fuse(recording, fusing, made, False, windows[0], 0).error is None
    assert segment.stat().st_mtime_ns == before


def test_a_damaged_recording_in_parts(tmp_path: Path, fusing: BatchOptions) -> None:
    write_slow(tmp_path / "ir.mp4", 50)
    whole = write_slow(tmp_path / "w.mp4", 50, container={"movflags": "faststart"}, grain=True)
    vis = tmp_path / "vis.mp4"
    vis.write_bytes(whole.read_bytes()[: whole.stat().st_size * 65 // 100])
    recording = Recording(tmp_path / "fused.mp4", str(tmp_path / "ir.mp4"), str(vis))
    _, joined = run_parts(recording, fusing)
    assert joined.figures is not None
    assert "cut off at" in joined.figures["damage"]
    unsplit = Recording(tmp_path / "unsplit.mp4", recording.ir, recording.vis)
    alone = worker.fuse(unsplit, fusing, made_of(unsplit, fusing), False)
    assert alone.figures is not None
    assert read_video(recording.output)[0] == read_video(unsplit.output)[0]
    assert joined.figures["drops"] == alone.figures["drops"]  # what was cut off is damage, and not lost twice
    assert not list(tmp_path.glob(".*.work"))


def test_a_stretch_without_pairs_is_no_damage(tmp_path: Path, fusing: BatchOptions) -> None:
    """Infrared was away for longer than a segment."""
    write_slow(tmp_path / "vis.mp4", 50)
    there = [stamp for stamp in every(400, 50) if not 5500 < stamp < 16000]
    write_video(tmp_path / "ir.mp4", there, options=SLOW)
    recording = Recording(tmp_path / "fused.mp4", str(tmp_path / "ir.mp4"), str(tmp_path / "vis.mp4"))
    outcomes, joined = run_parts(recording, fusing)
    assert 0 in [(outcome.figures or {})["frames"] for outcome in outcomes]
    assert joined.figures is not None
    assert joined.figures["damage"] is None
    assert read_video(recording.output)[0] == pytest.approx(there, abs=0.02)
    never = Recording(tmp_path / "never.mp4", recording.ir, recording.vis, ir_offset_ms=-500_000)
    made = made_of(never, fusing)
    outcomes = [
        worker.fuse(never, fusing, made, False, window, k) for k, window in enumerate(parts_of(recording, fusing))
    ]
    joined = worker.join(never, fusing, made, False, [outcome.figures or {} for outcome in outcomes])
    assert joined.code == 3
    assert "no infrared frame" in str(joined.error) or "gave no frames" in str(joined.error)


def parts_of(recording: Recording, fusing: BatchOptions) -> tuple[Window, ...]:
    return worker.look(recording, fusing).windows
