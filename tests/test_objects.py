"""Warm things with distances of their own: found, followed, warped and laid over their background."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from media import PassThrough
from rig import VGA, calibration, lens, structure

from streamfuse.alignment import MAX_MOVE_PX, Aligner
from streamfuse.calibration.dominant import DominantDistance, Estimate
from streamfuse.calibration.evidence import Evidence
from streamfuse.calibration.grid import CoordinateGrid
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.objects import SURE, ObjectDistances, Seen
from streamfuse.calibration.overlap import Box
from streamfuse.calibration.tracks import Tracker
from streamfuse.calibration.warm import WarmRegions, find_warm
from streamfuse.color import Plane
from streamfuse.following import AlignmentWatch
from streamfuse.fuser import Fuser
from streamfuse.layers import Thing, Things
from streamfuse.objects import APART_PX, RELEASED, WarmThings
from streamfuse.pipeline import Pipeline
from streamfuse.sources.scene.scene import Scene
from streamfuse.sources.synthetic import SyntheticSource
from streamfuse.temperature import NONE, OVER, Scale, TemperaturePlane

PARALLAX = 40.0
PERIOD_NS = 40_000_000
BASELINE_M = 0.15
FRONTS_PX, NEAR_PX = (BASELINE_M * (y - 215) / 2.7 for y in (300, 450))
"""Shifts of the house fronts and of the nearest walkers of the drawn street, px."""


def rig(x: float = PARALLAX, y: float = 0.0) -> Calibration:
    return replace(calibration(np.eye(3)), parallax=np.array([x, y, 0.0]))


def scene(x: int = 300, y: int = 240, warm: int = 200) -> Plane:
    """Infrared of ground that gets warmer towards the camera, with a warm upright thing at (x, y)."""
    rows = np.linspace(40, 90, VGA[0])[:, None]
    picture = (rows + 3 * np.sin(np.arange(VGA[1]) / 7)[None]).astype(np.uint8)
    cv2.ellipse(picture, (x, y), (18, 50), 0, 0, 360, warm, -1, cv2.LINE_AA)
    cv2.circle(picture, (x, y - 60), 14, warm + 30.0, -1, cv2.LINE_AA)
    return np.asarray(picture, np.uint8)


# --- found and followed


def test_warm_thing_is_found_and_warm_ground_is_not() -> None:
    found = find_warm(scene())
    (region,) = found.regions
    assert (region.x, region.y) == pytest.approx((150, 115), abs=5)
    assert region.height == pytest.approx(62, abs=6)
    assert (found.labels[100:135, 148:152] == 1).all()
    assert find_warm(scene(1000)).regions == []
    bar = np.full(VGA, 60, np.uint8)
    bar[200:260, 50:600] = 200
    assert all(region.width < 10 for region in find_warm(bar).regions), "wider than a third of the picture"


@pytest.mark.parametrize("size", [(16, 16), (17, 300), (480, 640), (1024, 1280)])
@pytest.mark.parametrize("fill", [0, 128, 255])
def test_flat_pictures_of_any_size_have_no_things(size: tuple[int, int], fill: int) -> None:
    noise = np.random.default_rng(0).normal(0, 2, size)
    blotches = cv2.GaussianBlur(noise, (0, 0), 9)
    noise += 1.5 * blotches / blotches.std()
    assert find_warm(np.asarray(np.clip(fill + noise, 0, 255), np.uint8)).regions == []


def test_things_keep_their_numbers() -> None:
    tracker = Tracker()
    numbers = []
    for step in range(12):
        picture = scene(200 + 6 * step)
        if step != 5:  # not found in one picture
            cv2.ellipse(picture, (500 - 6 * step, 200), (15, 40), 0, 0, 360, 180, -1, cv2.LINE_AA)
        tracker.update(find_warm(picture))
        numbers.append(sorted((track.region.x, track.number) for track in tracker.tracks if track.label))
    left = {found[0][1] for found in numbers[:10]}
    right = {found[1][1] for found in numbers[:10] if len(found) == 2}
    assert (len(left), len(right)) == (1, 1)
    assert left != right
    for _ in range(5):
        tracker.update(WarmRegions(np.zeros((240, 320), np.uint8), []))
    assert tracker.tracks == []


def test_things_that_touch_become_a_new_one_that_stays_where_they_were() -> None:
    things = WarmThings(unit_inverse_m=1 / PARALLAX)
    places = []
    for step in range(24):
        picture = scene(200 + 4 * step)
        cv2.ellipse(picture, (330, 220), (30, 40), 0, 0, 360, 180, -1, cv2.LINE_AA)
        things.look(picture)
        numbers = {one.number for one in things.shown()[1]}
        things.take({1: Estimate(0.3, 0.99)}, 0.1)
        places.append((numbers, [thing.inverse_m for thing in things.step(0.1, None).things]))
    assert places[0] == ({1, 2}, [0.3])
    assert places[-1][0] == {3}, "what was known of either is not known of both"
    assert places[-1][1] == [0.3], "but nothing jumps"


# --- their distances


@cache
def street(count: int = 48) -> list[tuple[Plane, Plane, Plane]]:
    """Infrared from beside, visible, and infrared as seen from the visible camera's place, when two walk in front."""
    beside, here = Scene(*VGA, 0, BASELINE_M), Scene(*VGA)
    found = []
    for index in range(count):
        seconds = 6 + index * PERIOD_NS / 1e9
        vis = cv2.cvtColor(here.visible(seconds, index), cv2.COLOR_BGR2GRAY)
        found.append((beside.infrared(seconds, index), np.asarray(vis, np.uint8), here.infrared(seconds, index)))
    return found


def near(found: WarmRegions) -> list[int]:
    """Labels of the nearest walkers, unless the edge of the picture cuts them off."""
    return [
        index + 1
        for index, region in enumerate(found.regions)
        if region.height > max(55, 1.2 * region.width) and region.top > 100 and 2 < region.left < 318 - region.width
    ]


def distances(pairs: list[tuple[Plane, Plane]]) -> tuple[list[Estimate], list[Estimate]]:
    """Answers for the near walkers and for the other things."""
    evidence = Evidence(rig(), VGA)
    objects, scene_distance, tracker = ObjectDistances(evidence), DominantDistance(evidence), Tracker()
    walkers, others = [], []
    for ir, vis in pairs:
        found = find_warm(ir)
        tracker.update(found)
        seen = [Seen(track.number, track.label, False) for track in tracker.tracks if track.label]
        structures = evidence.structures(ir, vis)
        distance = scene_distance.add(evidence.correlate(*structures))
        answers = objects.add(structures, found.labels, seen, distance)
        labels = near(found)
        walkers += [answers[one.number] for one in seen if one.label in labels]
        others += [answers[one.number] for one in seen if one.label not in labels]
    return walkers, others


def test_walkers_before_houses_have_their_own_distance() -> None:
    walkers, others = distances([(ir, vis) for ir, vis, _ in street()[::7]])
    sure = [[answer.inverse_m * PARALLAX for answer in each if answer.confidence >= SURE] for each in (walkers, others)]
    assert len(sure[0]) >= 3
    assert sure[0] == pytest.approx([NEAR_PX] * len(sure[0]), abs=1.5)
    assert np.median(sure[1]) == pytest.approx(FRONTS_PX, abs=1)


def test_wrong_pairs_and_darkness_are_not_answered() -> None:
    pairs = street()[::7]
    flat = np.random.default_rng(0).normal(3, 2, VGA).clip(0, 255).astype(np.uint8)
    for wrong in (
        [(ir, structure(index)) for index, (ir, _, _) in enumerate(pairs)],
        [(ir, flat) for ir, _, _ in pairs],
    ):
        walkers, others = distances(wrong)
        assert not any(answer.confidence >= SURE for answer in walkers + others)


# --- warped apart


def things_of(found: WarmRegions, labels: list[int], shift_px: float) -> Things:
    return Things(
        found.labels, [Thing(label, label, found.regions[label - 1], shift_px / PARALLAX) for label in labels]
    )


def two_layers(shift: int) -> tuple[Plane, Plane]:
    """Infrared with its thing `shift` px to the left of where it belongs, and where it belongs."""
    ground, whole = scene(1000), scene()
    there = whole != ground
    moved = ground.copy()
    rows, columns = np.nonzero(there)
    moved[rows, columns - shift] = whole[rows, columns]
    return moved, whole


@pytest.mark.parametrize("made", [rig(), replace(rig(), ir_lens=lens(520, k1=-0.2), vis_lens=lens(520, k1=-0.2))])
def test_thing_comes_to_its_place_and_leaves_no_second_edge(made: Calibration) -> None:
    ir, truth = two_layers(10)
    found = find_warm(ir)
    aligner = Aligner(made)
    plain = aligner.align(ir, ir)[0]
    laid = aligner.align(ir, ir, things_of(found, [1], 10.0))[0]
    inside = np.s_[150:310, 250:350]
    assert np.abs(plain.astype(int) - truth)[inside].mean() > 10
    assert np.abs(laid.astype(int) - truth)[inside].mean() < 2
    assert np.abs(laid.astype(int) - truth)[inside].max() < 60, "neither a ghost nor a hole"
    assert (laid[:, :200] == plain[:, :200]).all(), "nothing else is touched"


def test_thing_at_the_distance_of_the_scene_is_not_touched() -> None:
    ir = scene()
    found = find_warm(ir)
    aligner = Aligner(rig(), distance_m=8.0)
    plain = aligner.align(ir, ir)[0]
    assert (aligner.align(ir, ir, things_of(found, [1], PARALLAX / 8))[0] == plain).all()
    little = aligner.align(ir, ir, things_of(found, [1], PARALLAX / 8 + 0.5))[0]
    moved = aligner.align(ir, ir, things_of(found, [1], PARALLAX / 8 + 1.0))[0]
    steps = [float(np.abs(a.astype(int) - b).mean()) for a, b in ((plain, little), (little, moved))]
    assert steps[0] < 1.5 * steps[1], "it begins to move as it goes on"


def test_near_things_are_laid_over_far_ones() -> None:
    ground = np.full(VGA, 40, np.uint8)
    cv2.ellipse(ground, (200, 240), (15, 50), 0, 0, 360, 140, -1)
    cv2.ellipse(ground, (260, 240), (15, 50), 0, 0, 360, 240, -1)
    found = find_warm(ground)
    far, close = (found.labels[120, x] for x in (100, 130))
    things = [
        Thing(int(label), int(label), found.regions[label - 1], shift / PARALLAX)
        for label, shift in ((close, 5.0), (far, 60.0))
    ]
    result = Aligner(rig()).align(ground, ground, Things(found.labels, things))[0]
    assert result[240, 262] == pytest.approx(140, abs=3), "the one that came 60 px is before the one that came 5"


def test_boxes_at_the_edge_and_beyond_are_cut() -> None:
    for x, y in ((10, 430), (620, 40)):
        ir = scene(x, y)
        found = find_warm(ir)
        for shift in (-30.0, 5.0, 2000.0):
            for crop in (False, True):
                aligner = Aligner(rig(5, 30), crop=crop)
                laid = aligner.align(ir, ir, Things(found.labels, [Thing(1, 1, found.regions[0], -shift / 30)]))[0]
                assert laid.shape == aligner.output_shape(*VGA)


def test_patch_of_the_maps_is_cut_from_the_whole() -> None:
    made = replace(rig(30, 12), ir_lens=lens(500, k1=-0.2), vis_lens=lens(640, k1=0.1))
    grid = CoordinateGrid(made)
    for box in (Box(0, 0, 480, 640), Box(13, 27, 60, 31), Box(470, 600, 10, 40), Box(0, 639, 1, 1)):
        patch = grid.patch(box, 0.2)
        for axis, whole in zip(patch, grid.coordinates(0.2), strict=True):
            assert np.abs(axis - box.cut(whole)).max() < 1e-3
    at = np.array([[100.0, 200.0], [400.0, 300.0]])
    x, y = grid.coordinates(0.2)
    for point, place in zip(at, grid.place(at, 0.2), strict=True):
        there = np.rint(place).astype(int)
        assert (x[there[1], there[0]], y[there[1], there[0]]) == pytest.approx(point, abs=1.5)


def test_temperatures_stay_on_their_things() -> None:
    ir, _ = two_layers(10)
    found = find_warm(ir)
    counts = ir.astype(np.uint16) * np.uint16(100) + np.uint16(1000)
    counts[235:245, 285:295] = OVER
    counts[180:182, 288:292] = NONE
    things = things_of(found, [1], 10.4)
    aligner = Aligner(rig())
    aligner.align(ir, ir)
    warped = aligner.align_temperature(TemperaturePlane(counts, Scale(0.01)), VGA, things).values
    assert (warped[236:244, 296:304] == OVER).all(), "the hot spot is where the thing is now"
    assert np.count_nonzero(warped == OVER) == 100
    assert np.count_nonzero(warped == NONE) == 8
    known = warped[(warped != OVER) & (warped != NONE)]
    assert known.max() <= counts[counts != OVER].max(), "an end of the scale is mixed with nothing"
    assert known.min() >= counts[counts != NONE].min()
    ground = warped[150:310, 266:274]
    assert ground.max() < 11_000, "what it left is ground"


# --- while it runs


def followed(by_object: bool, frames: list[tuple[Plane, Plane, Plane]]) -> tuple[list[Plane], list[Things | None]]:
    aligner = Aligner(rig())
    pictures, things = [], []
    with AlignmentWatch(aligner, automatic=True, by_object=by_object) as watch:
        for index, (ir, vis, _) in enumerate(frames):
            things.append(watch.offer(ir, vis, index * PERIOD_NS))
            pictures.append(aligner.align(ir, vis, things[-1])[0])
        assert watch.state.by_object == by_object
        assert (watch.state.apart > 0) == by_object
        assert watch.state.apart <= watch.state.warm
        assert watch.state.apart_total >= watch.state.apart
    return pictures, things


def test_walkers_lose_their_second_edge() -> None:
    frames = street()
    planes, nothing = followed(False, frames)
    objects, things = followed(True, frames)
    assert set(nothing) == {None}
    errors = [[], []]  # type: list[list[float]]
    for index in range(38, 48):
        truth = frames[index][2]
        found = find_warm(truth)
        mask = np.isin(found.labels, near(found)).astype(np.uint8)
        assert mask.any()
        wide = cv2.dilate(cv2.resize(mask, VGA[::-1]), np.ones((25, 25), np.uint8)) > 0
        for kept, pictures in zip(errors, (planes, objects), strict=True):
            kept.append(float(np.abs(pictures[index].astype(int) - truth)[wide].mean()))
    assert np.mean(errors[1]) < 0.45 * np.mean(errors[0])
    assert (planes[47][:150] == objects[47][:150]).mean() > 0.9, "the houses are not touched"
    assert things[-1] is not None
    assert len(things[-1].things) >= 1


def test_things_move_smoothly() -> None:
    followed_things = followed(True, street())[1]
    most, moved = MAX_MOVE_PX / PARALLAX, 0
    for one, other in pairwise(followed_things[1:]):
        assert one is not None
        assert other is not None
        before = {thing.number: thing.inverse_m for thing in one.things}
        for thing in other.things:
            step = abs(thing.inverse_m - before.get(thing.number, thing.inverse_m))
            assert step < 1.01 * most
            moved += step > 0
    assert moved > 5


def test_thing_goes_to_its_distance_and_back() -> None:
    things = WarmThings(unit_inverse_m=1 / PARALLAX)
    ir, most = scene(), 0.5 / PARALLAX

    def after(answer: Estimate | None, pictures: int) -> list[float]:
        places = []
        for _ in range(pictures):
            things.look(ir)
            if answer is not None:
                things.take({1: answer}, 0.1)
            places += [thing.inverse_m for thing in things.step(0.1, most).things]
        return places

    assert after(Estimate(0.3, 0.5), 6) == [], "not sure"
    assert after(Estimate(0.1 + (APART_PX - 0.1) / PARALLAX, 0.99), 6) == [], "as good as with the scene"
    assert things.own == 0
    there = after(Estimate(0.3, 0.99), 30)
    assert there[0] == pytest.approx(0.1 + most)
    assert there[-1] == 0.3
    assert (things.own, things.seen, things.total) == (1, 1, 1)
    assert after(Estimate(0.2, 0.5), RELEASED - 1)[-1] == 0.3, "the last sure one is kept for a while"
    back = after(Estimate(0.2, 0.5), 40)
    assert back[-1] == pytest.approx(0.1, abs=1.01 * most)
    assert len(back) < 20, "then it belongs to the scene again"
    assert not things.busy
    after(Estimate(0.3, 0.99), 30)
    things.release()
    assert after(None, 40)
    assert not things.busy
    assert things.total == 1


def test_modes_of_the_fuser() -> None:
    frames = street()
    with Fuser(engine=PassThrough(), calibration=rig(), distance_m="auto-plane") as fuser:
        for index, (ir, vis, _) in enumerate(frames[:10]):
            fuser.fuse_luma(ir, vis, index * PERIOD_NS)
        assert fuser.followed is not None
        assert (fuser.followed.automatic, fuser.followed.by_object, fuser.followed.warm) == (True, False, 0)
        fuser.set_distance("auto")
        for index, (ir, vis, _) in enumerate(frames[10:40]):
            fuser.fuse_luma(ir, vis, (10 + index) * PERIOD_NS)
        assert fuser.followed.apart > 0
        fuser.set_distance(30)
        for index, (ir, vis, _) in enumerate(frames[10:46]):
            fuser.fuse_luma(ir, vis, (40 + index) * PERIOD_NS)
        assert (fuser.followed.automatic, fuser.followed.by_object, fuser.followed.apart) == (False, False, 0)


def test_summary_counts_things() -> None:
    with (
        Fuser(engine=PassThrough(), calibration=rig(), distance_m="auto") as fuser,
        Pipeline(
            SyntheticSource("ir", seconds=1, baseline_m=BASELINE_M), SyntheticSource("vis", seconds=1), fuser=fuser
        ) as pipeline,
    ):
        assert sum(1 for _ in pipeline) == 25
        found = pipeline.summary().alignment
    assert found is not None
    assert found.by_object
    assert found.apart_total >= found.apart > 0
    assert found.warm >= found.apart


def test_cut_forgets_things() -> None:
    """The other scene has a thing at the same place, which is not displaced."""
    things = WarmThings(unit_inverse_m=1 / PARALLAX)
    things.look(scene())
    things.take({1: Estimate(0.3, 0.99)}, 0.0)
    assert things.step(0.0, None).things
    things.forget()
    things.look(scene())
    assert things.step(0.0, None).things == []
