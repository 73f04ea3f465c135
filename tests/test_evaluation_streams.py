"""Flicker, motion, and which frames of which streams are compared."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
from media import SIZE, PassThrough, every, luma_of, number_of, write_images, write_video

from streamfuse.color import Plane
from streamfuse.errors import DamagedInput, InputError
from streamfuse.evaluation.run import Evaluator
from streamfuse.evaluation.score import Triple
from streamfuse.evaluation.streams import expected_frames, fuse_stream, read_images, read_streams
from streamfuse.evaluation.video import Temporal, TemporalScorer, every_nth, own_flicker
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sources import open_pair
from streamfuse.sources.image_pairs import pair_images


def flat(level: int) -> Plane:
    return np.full((32, 40), level, np.uint8)


def scored(*triples: Triple) -> Temporal:
    scorer = TemporalScorer()
    for triple in triples:
        scorer.add(*triple)
    return scorer.result()


def test_flicker_and_largest_step_of_the_mean_level() -> None:
    temporal = scored(*((flat(50), flat(60 + k), flat(level)) for k, level in enumerate((100, 103, 99, 99))))
    assert temporal.frames == 4
    assert temporal.flicker.fused == pytest.approx(math.sqrt((9 + 16 + 0) / 3))
    assert temporal.largest_step.fused == 4  # downwards
    assert temporal.flicker.ir == 0
    assert temporal.flicker.vis == temporal.largest_step.vis == 1
    assert temporal.levels["fused"] == [100, 103, 99, 99]


def test_own_flicker_does_not_blame_the_fusion_for_the_scene() -> None:
    rng = np.random.default_rng(0)
    ir, vis = rng.normal(size=40), rng.normal(size=40)
    assert own_flicker(0.3 * ir + 0.8 * vis, ir, vis) == pytest.approx(0, abs=1e-12)
    own = rng.normal(size=40)
    got = own_flicker(0.3 * ir + 0.8 * vis + own, ir, vis)
    assert 0.85 * np.sqrt(np.mean(own**2)) < got <= np.sqrt(np.mean(own**2))


def test_own_flicker_counts_a_drift_that_no_source_has() -> None:
    still = np.zeros(10)
    assert own_flicker(np.full(10, 0.5), still, still) == pytest.approx(0.5)


def test_few_frames_have_no_figures() -> None:
    one = scored((flat(1), flat(2), flat(3)))
    assert math.isnan(one.flicker.fused)
    assert math.isnan(one.temporal_error.fused)
    three = scored(*((flat(1), flat(k), flat(k)) for k in range(3)))
    assert three.flicker.fused == 1
    assert math.isnan(three.own_flicker)


def moving(seed: int, shift: int) -> Plane:
    """Blobs that move two pixels to the right a frame."""
    rough = np.random.default_rng(seed).integers(0, 256, (64, 160)).astype(np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(rough, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    return cast(Plane, smooth[:, 40 - shift : 136 - shift])


def test_temporal_error_is_small_for_what_moves_with_the_scene() -> None:
    visible = [moving(1, 2 * k) for k in range(4)]
    temporal = scored(*((moving(2, 0), v, v) for v in visible))
    assert temporal.temporal_error.vis == temporal.temporal_error.fused < 3
    assert temporal.temporal_error.ir > 2 * temporal.temporal_error.vis  # it stands still in a scene that moves


def test_temporal_error_sees_noise_that_the_mean_level_does_not() -> None:
    rng = np.random.default_rng(0)
    still = moving(1, 0)
    grain = [np.clip(still + rng.normal(0, 9, still.shape), 0, 255).astype(np.uint8) for _ in range(4)]
    temporal = scored(*((still, still, fused) for fused in grain))
    assert temporal.temporal_error.vis < 0.5
    assert temporal.temporal_error.fused > 5


def test_a_change_of_size_is_no_motion() -> None:
    temporal = scored(*((p, p, p) for p in (flat(1), flat(1)[:20], flat(1)[:20])))
    assert temporal.temporal_error.fused == 0


def test_every_nth_scores_about_as_many_as_wanted() -> None:
    assert every_nth(20, 25) == 1
    assert every_nth(60, 25) == 3
    assert every_nth(None, 25) == 10


# Streams from files.


def test_fused_frames_are_joined_with_their_own_sources(tmp_path: Path) -> None:
    """The infrared recording has twice the rate, the fused one starts two frames late and misses one."""
    ir = write_video(tmp_path / "ir.mp4", every(20, 20), rate=50)
    vis = write_video(tmp_path / "vis.mp4", every(40, 10))
    fused = write_video(tmp_path / "fused.mp4", [*every(40, 3, 80), *every(40, 4, 240)])
    triples = list(
        read_streams(lambda: open_pair(str(ir), str(vis)), lambda: open_pair(str(vis), str(fused)), frames=6)
    )
    numbers = [tuple(number_of(plane) for plane in triple) for triple in triples]
    assert numbers == [(4, 2, 0), (6, 3, 1), (8, 4, 2), (12, 6, 3), (14, 7, 4), (16, 8, 5)]


def test_fused_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    vis = write_video(tmp_path / "vis.mp4", every(40, 3))
    fused = write_video(tmp_path / "fused.mp4", every(40, 3), size=(32, 64))
    streams = read_streams(lambda: open_pair(str(vis), str(vis)), lambda: open_pair(str(vis), str(fused)))
    with pytest.raises(InputError, match=r"fused.mp4 is 64x32, but .*vis.mp4 is 64x48"):
        next(streams)


def test_streams_without_a_common_time_are_an_error(tmp_path: Path) -> None:
    vis = write_video(tmp_path / "vis.mp4", every(40, 3))
    late = write_video(tmp_path / "late.mp4", every(40, 3, 9000))
    streams = read_streams(lambda: open_pair(str(vis), str(vis)), lambda: open_pair(str(vis), str(late)))
    with pytest.raises(InputError, match="no frames of these belong together in time"):
        list(streams)


def test_frames_fused_on_the_way_keep_their_sources(tmp_path: Path) -> None:
    ir = write_video(tmp_path / "ir.mp4", every(40, 12, 40), size=(24, 32))
    vis = write_video(tmp_path / "vis.mp4", every(40, 12))
    fuser = Fuser(engine=PassThrough(), tone="per-frame")
    with Pipeline(str(ir), str(vis), fuser=fuser, frames=8) as pipeline:
        triples = list(fuse_stream(pipeline))
    assert len(triples) == 8
    for place, (a, b, fused) in enumerate(triples):
        assert a.shape == b.shape == fused.shape == SIZE
        assert number_of(b) == place + 1
        assert np.abs(a.astype(int) - fused).max() <= 1  # the stand-in gives the infrared picture back


def test_a_stream_is_scored_now_and_then_and_watched_throughout() -> None:
    rng = np.random.default_rng(0)
    frames = [tuple(rng.integers(0, 255, (3, 24, 24)).astype(np.uint8)) for _ in range(7)]
    evaluation = Evaluator().stream("m", "i", iter(frames), every=3)
    assert [case.name for case in evaluation.cases] == ["frame 0", "frame 3", "frame 6"]
    assert evaluation.temporal is not None
    assert evaluation.temporal.frames == 7


def test_a_recording_that_was_cut_off_is_scored_to_its_end() -> None:
    def frames() -> Iterator[Triple]:
        yield luma_of(0), luma_of(1), luma_of(2)
        raise DamagedInput("ends early")

    evaluator = Evaluator()
    evaluation = evaluator.stream("m", "i", frames(), every=1)
    assert len(evaluation.cases) == 1
    assert evaluation.notes == ["ends early"]
    assert isinstance(evaluator.damage, DamagedInput)


def test_expected_frames_are_those_of_the_shorter_stream(tmp_path: Path) -> None:
    sources = open_pair(
        str(write_images(tmp_path / "a", (f"{k}.png" for k in range(5)))),
        str(write_images(tmp_path / "b", (f"{k}.png" for k in range(9)))),
    )
    assert expected_frames(sources, None) == 5
    assert expected_frames(sources, 3) == 3


# Directories of images.


def test_images_belong_together_by_number_or_name(tmp_path: Path) -> None:
    ir = write_images(tmp_path / "ir", ["IR1.png", "IR2.png", "IR10.png"])
    vis = write_images(tmp_path / "vis", ["VIS10.bmp", "VIS2.bmp", "VIS3.bmp"])
    fused = write_images(tmp_path / "fused", ["f10.png", "f2.png", "f7.png"])
    scenes, notes = pair_images(str(ir), str(vis), str(fused))
    assert [(s.ir.name, s.vis.name, s.fused and s.fused.name) for s in scenes] == [
        ("IR2.png", "VIS2.bmp", "f2.png"),
        ("IR10.png", "VIS10.bmp", "f10.png"),
    ]
    assert [scene.name for scene in scenes] == ["VIS2", "VIS10"]
    assert len(notes) == 3
    assert "1 of 3 images have no partner" in notes[0]
    assert "1 of 3 images belong to no pair" in notes[2]


def test_a_missing_fused_image_is_an_error(tmp_path: Path) -> None:
    names = ["house.png", "tree.png"]
    ir, vis = write_images(tmp_path / "ir", names), write_images(tmp_path / "vis", names)
    fused = write_images(tmp_path / "fused", ["house.jpg"])
    with pytest.raises(InputError, match=r"no fused image for 1 of 2 pairs: tree.png"):
        pair_images(str(ir), str(vis), str(fused))


def test_two_images_of_one_name_are_an_error(tmp_path: Path) -> None:
    ir = write_images(tmp_path / "ir", ["a.png", "b.png"])
    vis = write_images(tmp_path / "vis", ["a.png", "a.bmp"])
    with pytest.raises(InputError, match="several images named a"):
        pair_images(str(ir), str(vis), None)


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    ir, vis = write_images(tmp_path / "ir", ["a.png", "b.png"]), write_images(tmp_path / "vis", ["c.png", "d.png"])
    with pytest.raises(InputError, match=r"no image of .* has the name or the number"):
        pair_images(str(ir), str(vis), None)


def test_infrared_of_another_size_is_resized_as_for_fusing(tmp_path: Path) -> None:
    ir = write_images(tmp_path / "ir", ["a.png"], size=(24, 32))
    vis = write_images(tmp_path / "vis", ["a.png"], colour=True)
    scenes, _ = pair_images(str(ir), str(vis), str(vis))
    (triple,) = read_images(scenes, None)
    assert [plane.shape for plane in triple] == [SIZE] * 3
    assert np.array_equal(triple[1], triple[2])
