"""Infrared warped to the visible picture: position, border, crop and colour."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from media import PassThrough, frame_at
from rig import TILTED, VGA, calibration, infrared_look, lens, seen, structure

from streamfuse.alignment import Aligner
from streamfuse.calibration.geometry import Matrix3, inverse
from streamfuse.calibration.overlap import FEATHER_PX, FILL_PX, Box, feather, infrared_coordinates, largest_box
from streamfuse.color import Chroma, Plane
from streamfuse.errors import InputError, UsageError
from streamfuse.frames import FusedFrame
from streamfuse.fuser import Fuser

IDENTITY = np.eye(3)


class White(PassThrough):
    """An engine whose result is white, so that any other pixel comes from elsewhere."""

    def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
        return np.ones(vis.shape, np.float32)


def shifted(x: float, y: float) -> Matrix3:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def test_identity_changes_nothing() -> None:
    ir, vis = structure(1), structure(2)
    aligner = Aligner(calibration(IDENTITY))
    aligned, same = aligner.align(ir, vis)
    assert (aligned == ir).all()
    assert (same == vis).all()
    assert (aligner.finish(aligned, vis) == ir).all()


def test_shift_by_whole_pixels_is_exact() -> None:
    ir, vis = structure(1), structure(2)
    aligned, _ = Aligner(calibration(shifted(40, 25))).align(ir, vis)
    start = FILL_PX + 1
    assert (aligned[25 + start :, 40 + start :] == ir[start:-25, start:-40]).all()


def test_warp_is_inverted() -> None:
    scene = structure(3)
    ir = seen(scene, inverse(TILTED))
    aligner = Aligner(calibration())
    aligned, _ = aligner.align(ir, scene)
    mask = infrared_coordinates(calibration())[1]
    inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
    assert inside.mean() > 0.8
    assert np.abs(aligned[inside].astype(float) - scene[inside]).mean() < 3


def test_distortion_of_both_lenses_is_removed() -> None:
    """The pictures of a scene through two lenses must agree with the lens models, and not without them."""
    scene = structure(4)
    bent = (lens(520, k1=-0.25), lens(640, k1=0.12))
    ir = _through(scene, bent[0], inverse(TILTED))
    vis = _through(scene, bent[1], IDENTITY)
    made = calibration(lenses=bent)
    aligned, _ = Aligner(made).align(ir, vis)
    inside = cv2.erode(infrared_coordinates(made)[1].astype(np.uint8), np.ones((45, 45))) > 0
    error = np.abs(aligned[inside].astype(float) - vis[inside]).mean()
    straight, _ = Aligner(calibration()).align(ir, vis)
    assert error < 6
    assert np.abs(straight[inside].astype(float) - vis[inside]).mean() > 3 * error


def _through(scene: Plane, camera: object, homography: Matrix3) -> Plane:
    """Draw a flat scene through a lens: each pixel is sampled at its undistorted position."""
    from streamfuse.calibration.geometry import Lens, project

    assert isinstance(camera, Lens)
    x, y = np.meshgrid(np.arange(VGA[1], dtype=float), np.arange(VGA[0], dtype=float))
    flat = project(inverse(homography), camera.undistort(np.stack((x.ravel(), y.ravel()), axis=1)))
    maps = flat.T.reshape(2, *VGA).astype(np.float32)
    return np.asarray(cv2.remap(scene, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def test_nothing_is_covered_beyond_the_turning_point_of_a_lens() -> None:
    """Beyond its turning point, a barrel polynomial folds the picture over itself."""
    made = calibration(np.array([[0.4, 0, 190], [0, 0.4, 140], [0, 0, 1.0]]), lenses=(lens(300, k1=-0.35), None))
    coordinates, mask = infrared_coordinates(made)
    x = coordinates[:, 0].reshape(VGA)[240]
    rising = x[mask[240]]
    assert len(rising) > 200
    assert (np.diff(rising) > 0).all()
    assert mask[240].sum() < 640


@pytest.mark.parametrize("shift", [(200.0, 90.0), (-150.3, -77.7)])
def test_result_is_the_visible_picture_outside_the_overlap(shift: tuple[float, float]) -> None:
    """Outside: exactly the visible luma, no black and no smeared border.  Inside: a soft transition."""
    vis = structure(5)
    made = calibration(shifted(*shift))
    with Fuser(engine=White(), calibration=made) as fuser:
        fused = fuser.fuse_luma(np.full(VGA, 90, np.uint8), vis, 0).luma
    mask = infrared_coordinates(made)[1]
    assert 0.3 < mask.mean() < 0.8
    assert (fused[~mask] == vis[~mask]).all()
    assert fused[~mask].mean() == vis[~mask].mean()
    deep = cv2.erode(mask.astype(np.uint8), np.ones((2 * FEATHER_PX + 5,) * 2), borderValue=1) > 0
    assert (fused[deep] == 255).all()


def test_transition_is_soft() -> None:
    mask = np.zeros((60, 200), bool)
    mask[:, 80:] = True
    share = feather(mask, FILL_PX, FEATHER_PX)[30]
    assert (share[: 80 + FILL_PX] == 0).all()
    assert (share[80 + FEATHER_PX + 1 :] == 1).all()
    assert np.diff(share).max() < 0.06
    assert (np.diff(share) >= 0).all()


def test_network_sees_no_border() -> None:
    """Outside the covered area, both inputs of the engine are the visible luma, so it draws no edge."""
    given = []

    class Keep(PassThrough):
        def fuse(self, ir: Plane, vis: Plane) -> npt.NDArray[np.float32]:
            given.append(ir.copy())
            return super().fuse(ir, vis)

    vis = structure(6)
    with Fuser(engine=Keep(), calibration=calibration(shifted(200, 0))) as fuser:
        fuser.fuse_luma(np.zeros(VGA, np.uint8), vis, 0)
    assert (given[0][:, :200] == vis[:, :200]).all()


def test_crop_is_inside_the_overlap_and_even() -> None:
    vis, ir = structure(7), structure(8)
    made = calibration(shifted(33.4, -21.7))
    aligner = Aligner(made, crop=True)
    aligned, cut = aligner.align(ir, vis)
    assert cut.shape == aligned.shape == aligner.output_shape(*VGA) == (458, 606)
    assert (cut == vis[0:458, 34:640]).all()
    assert (aligner.finish(aligned, cut) == aligned).all()


def test_largest_box_matches_an_exhaustive_search() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        mask = np.ones((48, 64), bool)
        for _ in range(4):
            y, x = random.integers(0, 48), random.integers(0, 64)
            mask[y : y + random.integers(1, 6), x : x + random.integers(1, 6)] = False
        cells = mask.reshape(24, 2, 32, 2).all(axis=(1, 3))
        sums = np.pad(cells.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        most = 0
        for top in range(24):
            for bottom in range(top + 1, 25):
                for left in range(32):
                    for right in range(left + 1, 33):
                        area = (bottom - top) * (right - left)
                        inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
                        most = max(most, area) if inside == area else most
        try:
            box = largest_box(mask)
        except InputError:
            continue
        assert mask[box.top : box.top + box.height, box.left : box.left + box.width].all()
        assert not any(side % 2 for side in (box.top, box.left, box.height, box.width))
        assert box.height * box.width == 4 * most


@pytest.mark.parametrize(("sy", "sx"), [(2, 2), (1, 2), (2, 1), (1, 1)])
def test_chroma_is_cropped_with_the_luma(sy: int, sx: int) -> None:
    """Including a picture with odd sides, whose chroma is rounded up."""
    u = (np.arange(-(-51 // sy) * -(-67 // sx)) % 251).astype(np.uint8).reshape(-(-51 // sy), -(-67 // sx))
    cut = Box(4, 6, 32, 48).cut_chroma(Chroma(u, u), (51, 67))
    assert (cut.u == u[4 // sy : 36 // sy, 6 // sx : 54 // sx]).all()
    assert cut.u.shape == (32 // sy, 48 // sx)


def test_cropped_frame_keeps_its_colours() -> None:
    made = calibration(shifted(20, 10), (480, 640), (480, 640))
    with Fuser(engine=PassThrough(), calibration=made, crop=True) as fuser:
        vis = np.dstack([structure(9)] * 3)
        vis[:, 320:] = (0, 0, 255)
        fused = fuser.fuse(structure(10), vis)
        frame = frame_at(0, colour=True)
        luma = fuser.fuse_luma(np.zeros((48, 64), np.uint8), frame.luma, 0).luma
        chroma = fuser.cut_chroma(frame.chroma, *frame.luma.shape)
    assert fused.shape == (470, 620, 3)
    assert (fused[:, 310:, 2] > fused[:, 310:, 0]).all()
    FusedFrame(luma, chroma, 0, 0).to_bgr()
    assert chroma is not None
    assert chroma.u.shape == (luma.shape[0] // 2, luma.shape[1] // 2)


def test_frame_sizes_other_than_the_calibrated_ones() -> None:
    """Half the infrared and twice the visible resolution give the same picture."""
    scene = structure(11, (960, 1280))
    large = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1.0]])
    ir = seen(scene, inverse(large @ TILTED))
    aligner = Aligner(calibration())
    small = np.asarray(cv2.resize(ir, (320, 240), interpolation=cv2.INTER_AREA), np.uint8)
    aligned, _ = aligner.align(small, scene)
    mask = infrared_coordinates(calibration().for_sizes(VGA, (960, 1280)))[1]
    inside = cv2.erode(mask.astype(np.uint8), np.ones((2 * FEATHER_PX + 9,) * 2)) > 0
    smooth = cv2.GaussianBlur(scene, (0, 0), 2.0)
    assert np.abs(aligned[inside].astype(float) - smooth[inside]).mean() < 8
    with pytest.raises(InputError, match="720x576"):
        aligner.align(np.zeros((576, 720), np.uint8), scene)


def test_larger_infrared_is_averaged() -> None:
    """A fine checker pattern in a larger infrared picture becomes grey, without moire."""
    ir = (np.indices((960, 1280)).sum(axis=0) % 2 * 255).astype(np.uint8)
    made = calibration(np.array([[0.25, 0, 0], [0, 0.25, 0], [0, 0, 1.0]]), (960, 1280), (240, 320))
    aligned, _ = Aligner(made).align(ir, np.full((240, 320), 128, np.uint8))
    assert np.abs(aligned[20:-20, 20:-20].astype(int) - 128).max() < 8


def test_no_overlap_is_refused() -> None:
    for crop in (False, True):
        with pytest.raises(InputError, match="infrared covers 0x0 pixels"):
            Aligner(calibration(shifted(700, 0)), crop).align(structure(1), structure(2))
    with pytest.raises(InputError, match="infrared covers 12x480 pixels"):
        Aligner(calibration(shifted(628, 0)), crop=True).output_shape(*VGA)
    diagonal = np.abs(np.subtract.outer(np.arange(480), np.arange(640))) < 6
    with pytest.raises(InputError, match="and 16 a side are needed"):
        largest_box(diagonal)
    with pytest.raises(UsageError, match="needs a calibration"):
        Aligner(crop=True)


def test_fuser_accepts_a_file(tmp_path: Path) -> None:
    calibration(shifted(20, 10)).save(tmp_path / "c.toml")
    with Fuser(engine=PassThrough(), calibration=tmp_path / "c.toml", crop=True) as fuser:
        fuser.prepare(*VGA)
        assert fuser.fuse(infrared_look(structure(1)), structure(1)).shape == (470, 620)
    with pytest.raises(InputError, match="cannot read"):
        Fuser(engine=PassThrough(), calibration=tmp_path / "none.toml")
