"""The time offset between two streams without a common clock, from motion that both see."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from media import MS, ListSource

from streamfuse.calibration.time_offset import Motion, MotionMeter, TimeOffset, estimate, measure
from streamfuse.cli.calibrate_time import time_command
from streamfuse.color import Plane
from streamfuse.errors import InputError
from streamfuse.frames import Clock, Frame
from streamfuse.sources.base import Source
from streamfuse.sources.file import VideoFile
from streamfuse.sources.synthetic import SyntheticSource

SIZE = (96, 128)
Course = Callable[[float], tuple[float, float]]


def waving(seed: int = 0) -> Course:
    """Non-periodic motion of a hand: its position, 0..1 of width and height, at a time in seconds."""
    rng = np.random.default_rng(seed)
    rates, phases = rng.uniform(0.15, 1.3, (2, 5)), rng.uniform(0, 6.3, (2, 5))

    def position(time_s: float) -> tuple[float, float]:
        x, y = (0.5 + 0.45 * np.sin(2 * np.pi * rates[i] * time_s + phases[i]).sum() / 3 for i in range(2))
        return float(x), float(y)

    return position


def swinging(time_s: float) -> tuple[float, float]:
    """Motion of a pendulum with a period of one second."""
    return 0.5 + 0.3 * float(np.sin(2 * np.pi * time_s)), 0.5


def still(time_s: float) -> tuple[float, float]:
    return 0.5, 0.5


def picture(position: tuple[float, float], look: str, rng: np.random.Generator, gain: float = 1.0) -> Plane:
    """Draw the hand: `warm` on a cold wall, or `inverted`; or `visible`, dark in front of a bookshelf."""
    height, width = SIZE
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    shelf = 110 + 40 * np.sign(np.sin(columns / 5.0)) + 20 * np.sin(rows / 3.0)
    wall = 70 + 30 * columns / width + 20 * np.sin(rows / 11.0)
    inside = (((columns / width - position[0]) / 0.10) ** 2 + ((rows / height - position[1]) / 0.16) ** 2) < 1
    hand = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.5)
    levels = shelf + (45 - shelf) * hand if look == "visible" else wall + (215 - wall) * hand
    levels = (255 - levels if look == "inverted" else levels) * gain + rng.normal(0, 4, SIZE)
    return np.asarray(np.clip(levels, 0, 255), np.uint8)


def record(
    course: Course,
    look: str,
    *,
    fps: float,
    offset_ms: float = 0,
    seconds: float = 10,
    lost: float = 0,
    adjusting: bool = False,
    mirrored: bool = False,
    start_ms: float = 0,
) -> list[Frame]:
    """Frames of a camera whose clock is `offset_ms` slow; the share `lost` of the frames is missing."""
    rng = np.random.default_rng(7 if look == "visible" else 8)
    frames = []
    for index in range(round(seconds * fps)):
        stamp_ms = start_ms + index * 1000 / fps
        gain = 1 + 0.3 * np.sin(index / 17) + (0.2 if index % 40 > 20 else 0) if adjusting else 1.0
        luma = picture(course((stamp_ms + offset_ms) / 1000), look, rng, float(gain))
        if rng.random() >= lost:
            luma = np.ascontiguousarray(luma[:, ::-1]) if mirrored else luma
            frames.append(Frame(luma, None, round(stamp_ms * MS), Clock.MEDIA, index, look))
    return frames


def motion(frames: list[Frame] | Iterator[Frame]) -> Motion:
    meter = MotionMeter()
    for frame in frames:
        meter.add(frame.luma, frame.stamp_ns)
    return meter.motion()


VISIBLE = motion(record(waving(), "visible", fps=30, lost=0.03))


@pytest.mark.parametrize("offset_ms", [0.0, 133.0, -410.0, 1730.0])
@pytest.mark.parametrize("look", ["warm", "inverted"])
def test_known_offsets(look: str, offset_ms: float) -> None:
    """At 25 and 30 fps, with lost frames, noise and a gain that changes all the time."""
    ir = motion(record(waving(), look, fps=25, offset_ms=offset_ms, lost=0.05, adjusting=True))
    found = estimate(ir, VISIBLE)
    assert found.offset_ms == pytest.approx(offset_ms, abs=5)
    assert found.confidence > 0.7
    assert found.halves_ms < 20


def test_slow_thermal_camera_and_mirrored_view() -> None:
    for fps, mirrored in ((9, False), (25, True)):
        ir = motion(record(waving(), "warm", fps=fps, offset_ms=133, mirrored=mirrored))
        assert estimate(ir, VISIBLE).offset_ms == pytest.approx(133, abs=5), (fps, mirrored)


def test_time_lines_without_overlap_are_assumed_to_start_together() -> None:
    late = motion(record(lambda t: waving()(t - 1000), "visible", fps=30, start_ms=1_000_000))
    ir = motion(record(waving(), "warm", fps=25, offset_ms=133))
    assert estimate(ir, late).offset_ms == pytest.approx(1_000_133, abs=5)


def test_demo_scene() -> None:
    """Two cameras at different frame rates, with shifted stamps."""
    ir, vis = (
        motion(iter(SyntheticSource(channel, fps=fps, seconds=12, height=240, width=320)))
        for channel, fps in (("ir", 25), ("vis", 30))
    )
    for offset_s in (0.133, -0.410):
        moved = replace(ir, times_s=ir.times_s - offset_s)
        assert estimate(moved, vis).offset_ms == pytest.approx(1000 * offset_s, abs=5)


@pytest.mark.parametrize(
    ("ir", "seconds", "words"),
    [
        (still, 10, "nothing moves in the infrared picture: wave a hand"),
        (waving(5), 10, "no motion in common"),
        (lambda t: waving()(t if t < 5 else t + 0.3), 10, "halves of the recording give different offsets"),
        (waving(), 2, "1.9 s of the infrared stream are too short: 4 s"),
    ],
)
def test_uncertain_result_is_refused(ir: Course, seconds: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        estimate(motion(record(ir, "warm", fps=25, seconds=seconds)), VISIBLE)


def test_periodic_motion_is_refused() -> None:
    ir, vis = (motion(record(swinging, look, fps=fps)) for look, fps in (("warm", 25), ("visible", 30)))
    with pytest.raises(InputError, match="motion is periodic"):
        estimate(ir, vis)


def test_offset_beyond_the_largest_lag_is_refused() -> None:
    ir = motion(record(waving(), "warm", fps=25, offset_ms=1730))
    with pytest.raises(InputError, match="--max-lag-ms"):
        estimate(ir, VISIBLE, max_lag_s=1.0)


# Sources


def test_sources_are_read_for_the_given_time_and_closed() -> None:
    ir = ListSource(record(waving(), "warm", fps=25, offset_ms=133))
    vis = ListSource(record(waving(), "visible", fps=30))
    found = measure(ir, vis, seconds=7)
    assert found.offset_ms == pytest.approx(133, abs=5)
    assert ir.closed
    assert vis.closed
    with pytest.raises(InputError, match="too short"):
        measure(ir, vis, seconds=3)


def test_recording_and_camera_have_no_common_clock() -> None:
    recording = ListSource(record(waving(), "visible", fps=30, seconds=1))
    with pytest.raises(InputError, match="live source"):
        measure(SyntheticSource("ir", live=True), recording)
    assert recording.closed


class Silent(Source):
    """A camera that gives no frames and blocks until it is released."""

    name = "silent"
    live = True
    clock = Clock.ARRIVAL

    def __init__(self, wait: Callable[[], object]) -> None:
        super().__init__()
        self._wait = wait

    def __iter__(self) -> Iterator[Frame]:
        self._wait()
        yield from ()


def test_silent_camera_is_named_and_not_waited_for() -> None:
    release = threading.Event()
    sources = [Silent(lambda: release.wait(60)) for _ in range(2)]
    moments = iter(range(0, 1000, 10))
    with pytest.raises(InputError, match="silent gave no frames"):
        measure(*sources, clock=lambda: next(moments))
    release.set()


def test_errors_of_a_source_are_raised() -> None:
    class Broken(ListSource):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield self._frames[0]
            raise InputError("broken")

    frames = record(still, "visible", fps=30, seconds=1)
    with pytest.raises(InputError, match="broken"):
        measure(Broken(frames), ListSource(frames))


def test_command(tmp_path: Path) -> None:
    for look, fps, shift_ms in (("warm", 25, 133), ("visible", 30, 0)):
        for index, frame in enumerate(record(waving(), look, fps=fps, offset_ms=shift_ms, seconds=9)):
            # Names in microseconds since the epoch give the images their stamps.
            name = f"{1_700_000_000_000_000 + round(index * 1e6 / fps)}.png"
            (tmp_path / look).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / look / name), frame.luma)
    ir, vis = str(tmp_path / "warm"), str(tmp_path / "visible")
    done = CliRunner().invoke(time_command, ["--ir", ir, "--vis", vis])
    assert done.exit_code == 0, done.output
    offset_ms = float(done.stdout.split()[1])
    assert offset_ms == pytest.approx(133, abs=5)
    assert f"streamfuse run --ir {ir} --vis {vis} --ir-offset-ms {offset_ms:.1f}" in done.stdout
    assert "confidence" in done.stdout
    missing = CliRunner().invoke(time_command, ["--ir", ir])
    assert missing.exit_code == 2
    assert "--vis" in missing.output


# Real recordings


def test_real_recordings(data_dir: Path) -> None:
    """Shifting the stamps by a known time shifts the offset by that time; the true offset is near 0."""
    ir, vis = (
        motion(iter(VideoFile(data_dir / "data/eval/videos" / channel / "0111_1716.mp4"))) for channel in ("ir", "vis")
    )
    unmoved: TimeOffset = estimate(ir, vis)
    assert abs(unmoved.offset_ms) < 1000 / 30
    for moved_ms in (133.0, -410.0, 0.5):
        moved = estimate(replace(ir, times_s=ir.times_s - moved_ms / 1000), vis)
        assert moved.offset_ms - unmoved.offset_ms == pytest.approx(moved_ms, abs=5)
