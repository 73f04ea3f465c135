"""The distance found automatically: from the drawn scene with depth, after cuts, and where nothing tells it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from media import PassThrough
from rig import VGA, calibration, infrared_look, structure

from streamfuse.alignment import MAX_DRIFT_PX, MAX_MOVE_PX, Aligner
from streamfuse.calibration.dominant import DominantDistance, Estimate
from streamfuse.calibration.drift import Drift
from streamfuse.calibration.evidence import Evidence
from streamfuse.calibration.geometry import project
from streamfuse.calibration.model import Calibration
from streamfuse.calibration.similarity import Similarity
from streamfuse.color import Plane
from streamfuse.errors import UsageError
from streamfuse.following import INTERVAL_NS, AlignmentWatch, Followed
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sources.scene.scene import Scene
from streamfuse.sources.synthetic import SyntheticSource

PERIOD_NS = 40_000_000


def rig(x: float = 40.0, y: float = 0.0, forward_m: float = 0.0) -> Calibration:
    return replace(calibration(np.eye(3)), parallax=np.array([x, y, forward_m]))


def pair(seed: int, made: Calibration, distance_m: float) -> tuple[Plane, Plane]:
    """A flat scene at a distance, as both cameras see it, with noise of its own in each."""
    scene = structure(seed)
    homography = made.at(distance_m).homography
    moved = cv2.warpPerspective(scene, homography, VGA[::-1], flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)
    vis = scene + np.random.default_rng(seed).normal(0, 3, VGA)
    return infrared_look(np.asarray(moved, np.uint8), seed), np.asarray(np.clip(vis, 0, 255), np.uint8)


def off_px(made: Calibration, found_m: float | None, truth_m: float) -> float:
    assert found_m is not None
    return float(np.hypot(*made.shift_px_m)) * abs(1 / found_m - 1 / truth_m)


@pytest.mark.parametrize("made", [rig(), rig(-30, 25), rig(3, 60), rig(50, 0, 0.03)])
@pytest.mark.parametrize("distance", [3.0, 7.0, 1e6])
def test_distance_of_a_plane_is_found(made: Calibration, distance: float) -> None:
    evidence = Evidence(made, VGA)
    found = DominantDistance(evidence).add(evidence.surfaces(*pair(2, made, distance)))
    assert found.sure
    assert off_px(made, 1 / max(found.inverse_m, 1e-9), distance) < 1


def test_wrong_and_flat_pictures_are_not_answered() -> None:
    made = rig()
    evidence = Evidence(made, VGA)
    random = np.random.default_rng(0)
    flat = np.asarray(random.normal(90, 2, VGA), np.uint8)
    ir, vis = pair(2, made, 5.0)
    for wrong in ((ir, pair(3, made, 5.0)[1]), (flat, vis), (ir, flat), (ir, np.zeros(VGA, np.uint8))):
        distance = DominantDistance(evidence)
        assert not any(distance.add(evidence.surfaces(*wrong)).sure for _ in range(4))


@pytest.mark.parametrize("front_m", [4.0, 10.0, 40.0])
def test_house_fronts_of_the_drawn_scene(front_m: float) -> None:
    """They are 85 design units below the horizon, 2.7 m below the camera, so the baseline sets their parallax."""
    made = rig()
    scene = Scene(*VGA, 0, 40 / front_m * 2.7 / 85)
    evidence = Evidence(made, VGA)
    distance = DominantDistance(evidence)
    for index in range(3):
        vis = cv2.cvtColor(scene.visible(index * 0.25, index), cv2.COLOR_BGR2GRAY)
        found = distance.add(evidence.surfaces(scene.infrared(index * 0.25, index), np.asarray(vis, np.uint8)))
    assert found.sure
    assert off_px(made, 1 / max(found.inverse_m, 1e-9), front_m) < 1


def is_automatic(fuser: Fuser) -> bool:
    return fuser.followed is not None and fuser.followed.automatic


def followed(made: Calibration, pictures: Iterator[tuple[Plane, Plane]]) -> tuple[list[float], AlignmentWatch]:
    """Offer one frame after the other; return the distance of every warp."""
    aligner = Aligner(made)
    distances = []
    with AlignmentWatch(aligner, automatic=True) as follower:
        for index, (ir, vis) in enumerate(pictures):
            follower.offer(ir, vis, index * PERIOD_NS)
            aligner.align(ir, vis)
            assert aligner.distance_m is not None
            distances.append(aligner.distance_m)
    return distances, follower


def scenes(made: Calibration, *parts: tuple[int, float, int]) -> Iterator[tuple[Plane, Plane]]:
    """Parts of (seed of the scene, distance, frames)."""
    for seed, distance, count in parts:
        yield from [pair(seed, made, distance)] * count


def test_first_picture_is_warped_right() -> None:
    made = rig()
    distances, follower = followed(made, scenes(made, (2, 4.0, 2)))
    assert off_px(made, distances[0], 4.0) < 1
    assert follower.state.answered == 1


def test_change_of_distance_is_followed_smoothly_and_a_cut_at_once() -> None:
    made = rig()
    distances, follower = followed(made, scenes(made, (2, 1e6, 8), (2, 4.0, 40), (3, 1e6, 25)))
    moves = [off_px(made, a, b) for a, b in pairwise(distances)]
    assert max(moves[:46]) < 1.05 * MAX_MOVE_PX
    assert off_px(made, distances[47], 4.0) < 1
    assert off_px(made, distances[48 + 14], 1e6) < 1, "within two intervals"
    assert max(moves[47:]) > 5, "at a cut the warp jumps: no picture is like the one before"
    assert follower.state.cuts == 1


def test_answer_that_comes_late_moves_the_warp_smoothly() -> None:
    """Nothing tells the distance for a second, then something does: a jump would be seen, as there is no cut."""
    made = rig()
    scene = pair(2, made, 4.0)
    flat = np.full(VGA, 90, np.uint8)
    distances, follower = followed(made, iter([(flat, scene[1])] * 25 + [scene] * 40))
    assert follower.state.cuts == 0
    assert follower.state.kept >= 3
    assert max(off_px(made, a, b) for a, b in pairwise(distances)) < 1.05 * MAX_MOVE_PX
    assert off_px(made, distances[-1], 4.0) < 1


def test_distance_and_correction_together_move_no_faster() -> None:
    made = rig()
    aligner = Aligner(made)
    picture = structure(2)
    aligner.align(picture, picture)
    aligner.set_distance(4.0)
    aligner.set_correction(Similarity(turn=0.02, scale=0.02))
    at = np.array([[0.0, 0], [639, 0], [639, 479], [0, 479]])
    before, moves = at, []
    for _ in range(60):
        aligner.align(picture, picture)
        assert aligner.distance_m is not None
        now = project(aligner.moved.matrix(VGA) @ made.at(aligner.distance_m).homography, at)
        moves.append(float(np.linalg.norm(now - before, axis=1).max()))
        before = now
    assert max(moves) < 1.05 * MAX_MOVE_PX
    assert aligner.distance_m == 4.0


def test_answer_of_less_confidence_needs_every_pair() -> None:
    """A broad peak, as of two planes: of one pair it is not used, of four that say the same it is."""
    assert not Estimate(0.1, 0.8).sure
    assert Estimate(0.1, 0.8, steady=True).sure
    assert not Estimate(0.1, 0.6, steady=True).sure
    made = rig()
    evidence = Evidence(made, VGA)
    near = evidence.surfaces(*pair(2, made, 4.0))
    unrelated = evidence.surfaces(pair(2, made, 4.0)[0], pair(3, made, 4.0)[1])
    distance = DominantDistance(evidence)
    assert [distance.add(near).steady for _ in range(4)] == [False, False, False, True]
    distance = DominantDistance(evidence)
    found = [distance.add(each) for each in (near, near, near, unrelated)][-1]
    assert off_px(made, 1 / found.inverse_m, 4.0) < 1
    assert not found.steady


def test_still_scene_moves_nothing() -> None:
    made = rig()
    distances, _ = followed(made, scenes(made, *[(2, 5.0, 1)] * 40))
    assert len(set(distances)) == 1


def test_last_distance_is_kept_and_counted_where_nothing_tells_it() -> None:
    made = rig()
    dark = np.zeros(VGA, np.uint8)

    def pictures() -> Iterator[tuple[Plane, Plane]]:
        yield from scenes(made, (2, 4.0, 8))
        yield from [(dark, dark)] * 60

    distances, follower = followed(made, pictures())
    assert off_px(made, distances[-1], 4.0) < 1
    assert follower.state.kept >= 3
    assert follower.state.confidence is not None
    assert follower.state.confidence < 0.9


def test_every_interval_one_pair_is_looked_at() -> None:
    made = rig()
    aligner = Aligner(made)
    with AlignmentWatch(aligner, automatic=True) as follower:
        for index in range(101):
            follower.offer(*pair(2, made, 4.0), index * INTERVAL_NS // 10)
    assert follower.state.answered == 10, "the last one is still looked at"


def test_given_distance_ends_the_search_and_auto_begins_it_again() -> None:
    made = rig()
    ir, vis = pair(2, made, 4.0)
    with Fuser(engine=PassThrough(), calibration=made, distance_m="auto") as fuser:
        for index in range(8):
            fuser.fuse_luma(ir, vis, index * INTERVAL_NS)
        assert off_px(made, fuser.distance_m, 4.0) < 1
        assert fuser.followed is not None
        assert fuser.followed.answered >= 7
        fuser.set_distance("far")
        for index in range(60):
            fuser.fuse_luma(ir, vis, index * INTERVAL_NS)
        assert fuser.distance_m == math.inf
        assert not is_automatic(fuser)
        fuser.set_distance("auto")
        for index in range(40):
            fuser.fuse_luma(ir, vis, index * INTERVAL_NS)
        assert off_px(made, fuser.distance_m, 4.0) < 1


def test_auto_without_parallax_says_what_to_do() -> None:
    with pytest.raises(UsageError, match="one distance only: calibrate with boards"):
        Fuser(engine=PassThrough(), calibration=calibration(), distance_m="auto")


def test_pipeline_shows_distance_and_counts() -> None:
    """The same recordings give the same pictures, and the summary tells the distance."""
    made = rig()
    front = 0.15 * 85 / 2.7  # px of parallax of the house fronts
    results = []
    for _ in range(2):
        with Fuser(engine=PassThrough(), calibration=made, distance_m="auto") as fuser:
            ir = SyntheticSource("ir", seconds=1, baseline_m=0.15)
            with Pipeline(ir, SyntheticSource("vis", seconds=1), fuser=fuser) as pipeline:
                results.append([frame.luma.copy() for frame in pipeline])
                state = pipeline.summary().alignment
        assert state is not None
        assert (state.automatic, state.kept) == (True, 0)
        assert state.distance_m is not None
        assert state.answered in (3, 4)
        assert 40 / state.distance_m == pytest.approx(front, abs=1)
    assert all((one == other).all() for one, other in zip(*results, strict=True))


# --- drift


def drifting(made: Calibration, *parts: tuple[Similarity, int], seed: int = 2) -> Iterator[tuple[Plane, Plane]]:
    """A scene at 20 m while infrared is displaced: parts of (displacement in the visible picture, frames)."""
    scene = structure(seed)
    for moved, count in parts:
        homography = moved.matrix(VGA) @ made.at(20.0).homography
        seen = cv2.warpPerspective(scene, homography, VGA[::-1], flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR)
        random = np.random.default_rng(seed)
        for _ in range(count):
            vis = np.asarray(np.clip(scene + random.normal(0, 3, VGA), 0, 255), np.uint8)
            yield infrared_look(np.asarray(seen, np.uint8), int(random.integers(1000))), vis


def watched(made: Calibration, align: str, pictures: Iterator[tuple[Plane, Plane]]) -> tuple[Aligner, list[Followed]]:
    """Show a frame every quarter of a second; return the aligner and the state after each."""
    aligner = Aligner(made)
    states = []
    with AlignmentWatch(aligner, automatic=made.parallax is not None, align=align) as watch:
        for index, (ir, vis) in enumerate(pictures):
            watch.offer(ir, vis, index * INTERVAL_NS)
            aligner.align(ir, vis)
            states.append(watch.state)
    return aligner, states


KNOCKED = Similarity(0.0, 5 / 640, math.radians(0.5), 0.01)


@pytest.mark.parametrize("made", [rig(), replace(calibration(np.eye(3)))])
def test_knock_is_noticed_and_reported(made: Calibration, caplog: pytest.LogCaptureFixture) -> None:
    still = Similarity()
    _, states = watched(made, "fixed", drifting(rig() if made.parallax is None else made, (still, 16), (KNOCKED, 48)))
    if made.parallax is None:  # a scene at 20 m is 2 px off for a calibration for far
        states = states[16:]
    else:
        assert max(state.error_px or 0 for state in states[:16]) < 1
        assert states[16 + 20].error_px == pytest.approx(KNOCKED.rms_px(VGA), abs=1.5), "after five seconds"
    assert states[-1].drifted
    assert caplog.text.count("the cameras have moved since the calibration") == 1


def test_correction_follows_slowly_and_ends_right() -> None:
    made = rig()
    aligner = Aligner(made)
    moves = []
    with AlignmentWatch(aligner, automatic=True, align="follow") as watch:
        before = aligner.moved
        for index, (ir, vis) in enumerate(drifting(made, (Similarity(), 8), (KNOCKED, 90))):
            watch.offer(ir, vis, index * INTERVAL_NS)
            aligner.align(ir, vis)
            moves.append(Similarity(*(b - a for a, b in zip(before, aligner.moved, strict=True))).rms_px(VGA))
            before = aligner.moved
    assert max(moves) < 1.05 * MAX_DRIFT_PX
    at = np.array([[0.0, 0], [639, 0], [639, 479], [0, 479]])
    assert aligner.distance_m is not None
    found = project(aligner.moved.matrix(VGA) @ made.at(aligner.distance_m).homography, at)
    truth = project(KNOCKED.matrix(VGA) @ made.at(20.0).homography, at)
    assert np.linalg.norm(found - truth, axis=1).mean() < 1.5
    shown = infrared_look(vis).astype(float)
    left = [
        float(np.abs(each.align(ir, vis)[0] - shown)[60:-60, 60:-60].mean())
        for each in (aligner, Aligner(made, distance_m=20.0))
    ]
    assert left[0] < 0.7 * left[1], "less is left than without the correction"


@pytest.mark.parametrize("right", [-8.0, 8.0])
def test_shift_along_the_parallax_is_drift_only_beyond_far(right: float) -> None:
    """Things 20 m away are 2 px from far: 8 px further they look near, and 8 px back they are where nothing can be."""
    made = rig()
    moved = Similarity(right / 640)
    aligner, states = watched(made, "follow", drifting(made, (moved, 70)))
    assert states[-1].error_px == pytest.approx(6 if right < 0 else 0, abs=1)
    assert right < 0 or aligner.moved.right == 0, "the distance alone tells it"
    assert aligner.distance_m is not None
    middle = np.array([[320.0, 240.0]])
    found = project(aligner.moved.matrix(VGA) @ made.at(aligner.distance_m).homography, middle)
    assert found == pytest.approx(project(moved.matrix(VGA) @ made.at(20.0).homography, middle), abs=1.5)


def test_nothing_is_reported_without_a_knock(caplog: pytest.LogCaptureFixture) -> None:
    _, states = watched(rig(), "fixed", drifting(rig(), *[(Similarity(), 8)] * 6))
    assert max(state.error_px or 0 for state in states) < 1
    assert "moved" not in caplog.text


def test_misfit_that_is_no_similarity_is_not_made_worse() -> None:
    """Infrared is stretched by 2 % downwards only: shifts across the parallax look like an enlargement by 2 %."""
    made, scene = rig(), structure(2)
    stretched = np.array([[1, 0, 0], [0, 1.02, -0.02 * 239.5], [0, 0, 1.0]])
    flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    seen = cv2.warpPerspective(scene, stretched @ made.at(20.0).homography, VGA[::-1], flags=flags)
    evidence = Evidence(made, VGA)
    drift = Drift(evidence)
    for seed in range(4):
        drift.add(evidence.surfaces(infrared_look(np.asarray(seen, np.uint8), seed), scene))
    found = drift.estimate()
    assert found is not None
    at = np.array([[x, y] for x in (80.0, 240, 400, 560) for y in (60.0, 180, 300, 420)])
    uncorrected = project(stretched, at) - at
    before, after = (
        float(np.sqrt(np.mean(np.square(off).sum(axis=1))))
        for off in (uncorrected, found.moved.displacements(at, VGA) - uncorrected)
    )
    assert before == pytest.approx(2.7, abs=0.1)
    assert after < 0.9 * before
    assert found.error_px == pytest.approx(before, abs=0.5), "it is told all the same"


def test_unrelated_pictures_report_no_drift() -> None:
    made = rig()
    _, states = watched(made, "follow", ((pair(k, made, 5.0)[0], pair(k + 1, made, 5.0)[1]) for k in range(40)))
    assert states[-1].error_px is None


def test_smallest_pictures_are_not_looked_at() -> None:
    made = replace(calibration(np.eye(3), (16, 16), (16, 16)), parallax=np.array([20.0, 0, 0]))
    tiny = np.zeros((16, 16), np.uint8)
    _, states = watched(made, "follow", iter([(tiny, tiny)] * 12))
    assert (states[-1].answered, states[-1].error_px) == (0, None)


def test_unknown_align_is_refused() -> None:
    with pytest.raises(UsageError, match="use auto, fixed or follow"):
        Fuser(engine=PassThrough(), calibration=rig(), align="often")
