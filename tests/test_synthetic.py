"""The demo scene and the source that serves it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import islice, pairwise

import cv2
import numpy as np
import pytest

from streamfuse.color import Plane
from streamfuse.errors import UsageError
from streamfuse.frames import Clock, Frame
from streamfuse.sources.scene.actors import Walker, draw
from streamfuse.sources.scene.paint import View, units_per_metre
from streamfuse.sources.scene.scene import WALKERS, Scene
from streamfuse.sources.scene.smoke import Smoke
from streamfuse.sources.scene.street import CAR, CAR_LENGTH, SIGN, SIGN_HEAT
from streamfuse.sources.synthetic import SyntheticSource

VIEW = View(480, 640)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(480, 640)


class FakeClock:
    """A clock that advances only in `sleep` and by assignment."""

    def __init__(self, start_ns: int) -> None:
        self.ns = start_ns

    def now(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.ns += round(seconds * 1e9)


def digest(frames: list[Frame]) -> str:
    total = hashlib.sha256()
    for frame in frames:
        total.update(frame.luma.tobytes())
        if frame.chroma is not None:
            total.update(frame.chroma.u.tobytes() + frame.chroma.v.tobytes())
    return total.hexdigest()


def luma(bgr: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Plane:
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).astype(np.uint8)


def inside_sign(picture: Plane) -> Plane:
    """The sign's panel without its border."""
    x0, y0, x1, y1 = (round(edge) for edge in SIGN)
    return picture[y0 + 8 : y1 - 8, x0 + 10 : x1 - 10]


def of_body(walker: Walker, time_s: float, picture: Plane) -> Plane:
    """The pixels that a person covers."""
    figure = draw(walker, VIEW, time_s)
    assert figure is not None
    cutout, rows, columns = figure
    return picture[rows, columns][cutout[..., 1] > 250]


# --- an infrared camera beside the visible one


def test_camera_beside_sees_everything_displaced_by_its_distance() -> None:
    """Moved back by what its distance says, every pixel is that of a camera at the visible one's place."""
    beside = SyntheticSource("ir", baseline_m=0.15, fov_deg=70, seconds=1)
    moved, at_place = (next(iter(source)).luma for source in (beside, SyntheticSource("ir", seconds=1)))
    shift = beside.parallax_px_m / beside.distances_m(0.0)
    assert (shift.max(), shift.min()) == (pytest.approx(0.15 * 266 / 2.7, abs=2), 0), "the ground below, the sky"
    rows, columns = np.mgrid[:480, :640].astype(np.float32)
    back = cv2.remap(moved, columns - shift.astype(np.float32), rows, cv2.INTER_LINEAR)
    # What is hidden from one of the two cameras agrees with nothing.
    plain = cv2.erode((cv2.dilate(shift, np.ones((1, 41))) - shift < 2).astype(np.uint8), np.ones((5, 5))) > 0
    plain[:, :20] = False
    difference = cv2.absdiff(back, at_place)[plain]
    assert plain.mean() > 0.5
    assert np.percentile(difference, 98) < 12
    assert np.percentile(cv2.absdiff(moved, at_place)[plain], 98) > 30


def test_distances_are_those_of_the_angle_of_view() -> None:
    """A wide lens is nearer to what it sees as large: the house fronts are at the distance where 2.7 m is 85 units."""
    for fov, front in ((50.0, 21.8), (90.0, 10.2)):
        distances = SyntheticSource("ir", baseline_m=0.1, fov_deg=fov).distances_m(0.0)
        assert distances[200, 60] == pytest.approx(front, abs=0.1)
        assert np.isinf(distances[20, 20])
        assert distances.min() == pytest.approx(front * 85 / 265, rel=0.02)


def test_camera_at_the_same_place_draws_the_same_picture(scene: Scene) -> None:
    assert (next(iter(SyntheticSource("ir", fov_deg=90, seconds=1))).luma == scene.infrared(0.0, 0)).all()


# --- what the two cameras see


def test_sign_is_readable_in_visible_and_plain_in_infrared(scene: Scene) -> None:
    visible, infrared = inside_sign(luma(scene.visible(0.0, 0))), inside_sign(scene.infrared(0.0, 0))
    assert np.percentile(visible, 95) - np.percentile(visible, 20) > 80
    assert abs(float(infrared.mean()) - SIGN_HEAT) < 5
    assert infrared.std() < 4, "only noise"


def test_people_are_bright_in_infrared_and_dark_in_visible(scene: Scene) -> None:
    for walker, time_s in ((WALKERS[3], 0.0), (WALKERS[4], 4.0)):
        warm = of_body(walker, time_s, scene.infrared(time_s, 0))
        assert warm.mean() > 130
        assert np.percentile(warm, 97) > warm.mean() + 20, "the face is the warmest"
    late = 20.0  # no person nearby is in the smoke
    dark = of_body(WALKERS[4], late, luma(scene.visible(late, 0)))
    assert dark.mean() < 16


def test_car_is_warm_in_infrared_and_lost_in_visible(scene: Scene) -> None:
    x, ground = CAR
    engine = (slice(round(ground - 44), round(ground - 36)), slice(round(x + 20), round(x + 45)))
    body = (slice(round(ground - 50), round(ground - 25)), slice(round(x), round(x + CAR_LENGTH)))
    infrared, visible = scene.infrared(4.0, 0), luma(scene.visible(4.0, 0))
    assert infrared[engine].mean() > 140
    assert infrared[body].mean() > 90
    assert visible[body].mean() < 20


def test_smoke_hides_the_visible_picture_only() -> None:
    smoke = Smoke(VIEW, np.random.default_rng(0))
    thick = [(smoke.opacity(t) > 0.7).sum() for t in (0.0, 10.0, 20.0, 30.0)]
    assert min(thick) > 2000, "pixels that are nearly invisible"
    scene = Scene(480, 640)
    early, late = scene.infrared(0.0, 0).astype(int), scene.infrared(3.0, 0).astype(int)
    quiet = (slice(150, 230), slice(300, 400))  # smoke passes here, people do not
    assert np.abs(early[quiet] - late[quiet]).mean() < 3
    early, late = luma(scene.visible(0.0, 0)).astype(int), luma(scene.visible(3.0, 0)).astype(int)
    assert np.abs(early[quiet] - late[quiet]).mean() > 4


# --- motion


@pytest.mark.parametrize("walker", WALKERS)
def test_a_foot_on_the_ground_does_not_slide(walker: Walker) -> None:
    """The lowest strip of a person is the standing foot, which does not move while the body moves on."""
    view, step_s, feet = View(1920, 2560), 0.02, []
    walker = replace(walker, start=0.45)  # in view all the time
    for k in range(60):
        figure = draw(walker, view, k * step_s)
        assert figure is not None
        cutout, rows, columns = figure
        ground = view.pixels(0, walker.ground_y)[1] - rows.start
        sole = cutout[round(ground - 0.035 * walker.body_pixels(view)) : round(ground) + 1, :, 1]
        feet.append(columns.start + float(np.median(np.flatnonzero(sole.max(axis=0) > 128))))
    body_step = abs(walker.speed) * step_s * units_per_metre(walker.ground_y) * view.scale
    still = np.abs(np.diff(feet)) < 0.2 * body_step
    assert still.mean() > 0.3, "in the other frames a heel lands or a toe lifts"


def test_slow_motion_is_smooth_below_a_pixel() -> None:
    """A head follows the walk with an accuracy of a twentieth of a pixel; whole pixels would be visible as jitter."""
    walker, errors = WALKERS[0], []
    for k in range(60):
        time_s = 5 + k * 0.002
        figure = draw(walker, VIEW, time_s)
        assert figure is not None
        cutout, _, columns = figure
        head = cutout[: round(0.14 * walker.body_pixels(VIEW)), :, 1].sum(axis=0)
        centre = columns.start + 0.5 + float((head * np.arange(len(head))).sum() / head.sum())
        errors.append(centre - VIEW.pixels(walker.distance_m(VIEW, time_s)[1], 0)[0])
    trend = np.polynomial.Polynomial.fit(np.arange(60), errors, 3)(np.arange(60))
    assert np.abs(errors - trend).max() < 0.05


def test_motion_stays_smooth_after_months_of_uptime() -> None:
    smoke, month = Smoke(VIEW, np.random.default_rng(0)), 2_600_000.0
    opacities = [smoke.opacity(month + k * 0.04) for k in range(5)]
    moved = [float(np.abs(b - a).mean()) for a, b in pairwise(opacities)]
    assert all(0.0005 < step < 0.02 for step in moved)
    assert max(moved) < 2 * min(moved)


def test_somebody_is_always_in_the_picture() -> None:
    for time_s in range(0, 180, 3):
        assert sum(draw(walker, VIEW, time_s) is not None for walker in WALKERS) >= 2


# --- the source


@pytest.mark.parametrize("uri", ["synthetic:ir?seconds=0.2&size=160x120", "synthetic:vis?seconds=0.2&size=160x120"])
def test_same_uri_gives_the_same_bytes_and_another_seed_does_not(uri: str) -> None:
    first, again = (digest(list(SyntheticSource.from_uri(uri))) for _ in range(2))
    other = digest(list(SyntheticSource.from_uri(uri + "&seed=1")))
    assert first == again
    assert first != other


def test_sensor_noise_differs_from_frame_to_frame() -> None:
    scene = Scene(120, 160)
    for picture in (scene.infrared, scene.visible):
        assert 0.5 < np.abs(picture(0.0, 0).astype(int) - picture(0.0, 1)).mean() < 5


@pytest.mark.parametrize("size", ["32x32", "64x48", "321x241", "1280x720", "200x600", "1000x40"])
def test_any_size(size: str) -> None:
    width, height = (int(side) for side in size.split("x"))
    (infrared,) = SyntheticSource.from_uri(f"synthetic:ir?size={size}&seconds=0.04")
    (visible,) = SyntheticSource.from_uri(f"synthetic:vis?size={size}&seconds=0.04")
    assert infrared.luma.shape == visible.luma.shape == (height, width)
    assert infrared.chroma is None
    assert visible.chroma is not None
    assert visible.chroma.full_range
    assert visible.chroma.u.shape == visible.chroma.v.shape == ((height + 1) // 2, (width + 1) // 2)
    assert infrared.luma.std() > 5
    assert visible.luma.std() > 5


def test_chroma_puts_the_blue_sign_on_the_right_side_of_grey() -> None:
    (visible,) = SyntheticSource.from_uri("synthetic:vis?seconds=0.04")
    assert visible.chroma is not None
    x0, y0, x1, y1 = (round(edge) // 2 for edge in SIGN)
    assert visible.chroma.u[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].mean() > 150
    assert visible.chroma.v[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].mean() < 110


def test_recording_has_exact_stamps_and_an_end() -> None:
    with SyntheticSource.from_uri("synthetic:ir?fps=30000/1001&seconds=1&size=64x48") as source:
        frames = list(source)
    assert source.frame_count == len(frames) == 30
    assert source.size == (48, 64)
    assert source.name == "synthetic:ir"
    assert not source.live
    assert source.first_stamp_ns == 0
    assert [frame.stamp_ns for frame in frames[:3]] == [0, 33366667, 66733333]
    assert [frame.index for frame in frames] == list(range(30))
    assert all(frame.clock is Clock.MEDIA for frame in frames)


def test_endless_without_seconds() -> None:
    source = SyntheticSource.from_uri("synthetic:ir?size=32x32&fps=2")
    assert source.frame_count is None
    assert [frame.index for frame in islice(source, 100)] == list(range(100))


def test_live_sources_share_stamps_and_moments_though_started_apart() -> None:
    early, late = FakeClock(1_000_000_007), FakeClock(1_000_000_007 + 93_000_000)
    query = "?live=1&size=64x48&fps=25"
    first = SyntheticSource.from_uri("synthetic:vis" + query, clock=early.now, sleep=early.sleep)
    second = SyntheticSource.from_uri("synthetic:vis" + query, clock=late.now, sleep=late.sleep)
    assert first.live
    assert first.first_stamp_ns is None
    ours = {frame.stamp_ns: frame for frame in islice(first, 8)}
    theirs = {frame.stamp_ns: frame for frame in islice(second, 8)}
    common = sorted(ours.keys() & theirs.keys())
    assert len(common) == 6
    for stamp in common:
        assert stamp % 40_000_000 == 0
        assert ours[stamp].clock is Clock.ARRIVAL
        assert digest([ours[stamp]]) == digest([theirs[stamp]])


def test_live_source_waits_for_each_moment() -> None:
    clock = FakeClock(5_000_000_123)
    source = SyntheticSource("ir", height=48, width=64, fps=50, live=True, clock=clock.now, sleep=clock.sleep)
    for k, frame in enumerate(islice(source, 5)):
        assert frame.index == k
        assert frame.stamp_ns == 5_020_000_000 + k * 20_000_000
        assert 0 <= frame.arrival_ns - frame.stamp_ns < 1000
    assert source.drops["late"] == 0


def test_live_source_drops_frames_that_a_slow_reader_missed() -> None:
    clock = FakeClock(10_000_000)
    source = SyntheticSource("ir", height=48, width=64, fps=100, live=True, clock=clock.now, sleep=clock.sleep)
    frames = iter(source)
    assert next(frames).stamp_ns == 20_000_000
    clock.ns += 47_000_000
    frame = next(frames)
    assert frame.stamp_ns == 60_000_000, "the latest moment that has passed"
    assert frame.index == 4, "missed frames are counted"
    assert source.drops["late"] == 3
    assert next(frames).stamp_ns == 70_000_000


def test_live_source_with_seconds_ends() -> None:
    clock = FakeClock(0)
    uri = "synthetic:ir?live=1&seconds=0.5&fps=10&size=32x32"
    assert len(list(SyntheticSource.from_uri(uri, clock=clock.now, sleep=clock.sleep))) == 5


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("synthetic:", "synthetic:ir or synthetic:vis"),
        ("synthetic:thermal", "synthetic:ir or synthetic:vis"),
        ("synthetic:IR", "synthetic:ir or synthetic:vis"),
        ("synthetic:ir?frames=5", "seconds, fps, size, live, seed"),
        ("synthetic:ir?fps=25&fps=30", "twice"),
        ("synthetic:ir?fps=0", "fps is a number from 1 to 240"),
        ("synthetic:ir?fps=25/0", "fps is a number"),
        ("synthetic:ir?fps=nan", "fps is a number"),
        ("synthetic:ir?fps=1e999999999", "fps is a number"),
        ("synthetic:ir?fps=", "fps is a number"),
        ("synthetic:ir?seconds=0", "seconds is a number above 0"),
        ("synthetic:ir?seconds=-1", "seconds is a number above 0"),
        ("synthetic:ir?seconds=", "seconds is a number above 0"),
        ("synthetic:vis?size=640", "WIDTHxHEIGHT"),
        ("synthetic:vis?size=31x480", "32 to 4096"),
        ("synthetic:vis?size=99999x480", "32 to 4096"),
        ("synthetic:vis?live=yes", "0 or 1"),
        ("synthetic:vis?seed=-1", "whole number"),
        ("synthetic:vis?seed=4294967296", "whole number"),
        ("synthetic:vis?seed=\u0663", "whole number"),
    ],
)
def test_bad_uri_is_refused_in_one_line_that_says_what_is_allowed(uri: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        SyntheticSource.from_uri(uri)
    assert "\n" not in str(caught.value)
