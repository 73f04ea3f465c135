"""The calibration that a bag holds: `camera_info` of both cameras, and /tf_static between their frames."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from streamfuse.calibration.geometry import Matrix3
from streamfuse.calibration.imported import Camera, Request, Vector, from_cameras, make_lens
from streamfuse.calibration.interchange import matrix, size
from streamfuse.calibration.outcome import Outcome
from streamfuse.errors import InputError
from streamfuse.sources.bags.bag import Bag
from streamfuse.sources.bags.choose import ImageTopic, find_pair, survey
from streamfuse.sources.bags.messages import deserialize
from streamfuse.sources.bags.records import Damaged
from streamfuse.sources.bags.source import BEGIN_NS, BagSource
from streamfuse.sources.base import Source

log = logging.getLogger("streamfuse")

STATIC = "/tf_static"
INFO = "sensor_msgs/msg/CameraInfo"

Move = tuple[Matrix3, Vector]
"""Rotation (3, 3) and shift (3,), m: X' = rotation X + shift."""


def calibrate_bag(path: Path, request: Request) -> Outcome:
    """Convert the calibration of a bag; `request` may name the two topics of pictures as cameras.

    Raises InputError, which says what is missing, and UsageError where the topics have to be named.
    """
    with Bag(path) as bag:
        if request.ir_camera is None or request.vis_camera is None:
            ir, vis = find_pair(bag)
        else:
            by_name = {one.topic.name: one for one in survey(bag)}
            ir, vis = (_named(path, by_name, name) for name in (request.ir_camera, request.vis_camera))
        return _calibrate(bag, ir, vis, request)


def _named(path: Path, topics: dict[str, ImageTopic], name: str) -> ImageTopic:
    if name not in topics:
        raise InputError(f"{path} has no topic {name} of pictures; it has {', '.join(topics) or 'none'}")
    return topics[name]


def calibration_of(ir: Source, vis: Source) -> Outcome | None:
    """Return the calibration that the bag of two sources holds; None for other sources, or if it holds none.

    A bag that holds some of it, but not enough, is announced.
    """
    if not (isinstance(ir, BagSource) and isinstance(vis, BagSource)) or ir.files != vis.files:
        return None
    path = ir.path
    try:
        return calibrate_bag(path, Request(ir.topic.name, vis.topic.name))
    except NothingFound:
        return None
    except InputError as error:
        log.warning("the calibration in the bag is not used: %s", error)
        return None


class NothingFound(InputError):
    """A bag without any calibration."""


def _calibrate(bag: Bag, ir: ImageTopic, vis: ImageTopic, request: Request) -> Outcome:
    infos, transforms = _read(bag, ir, vis)
    if not infos and not transforms:
        raise NothingFound(f"{bag.path} has neither camera_info of these topics nor {STATIC}: calibrate another way")
    cameras = []
    for one in (ir, vis):
        if (name := _info_topic(one)) not in infos:
            raise InputError(f"{bag.path} has no {name}, the calibration of {one.topic.name}")
        cameras.append(_camera(bag.path, name, infos[name], one))
    rotation, shift = _between(bag.path, transforms, *(_frame(infos[_info_topic(one)], one) for one in (ir, vis)))
    cameras[1] = Camera(cameras[1].name, cameras[1].size, cameras[1].lens, rotation, shift)
    return from_cameras(f"{bag.path.name}: camera_info and {STATIC}", cameras, Request(distance_m=request.distance_m))


def _info_topic(one: ImageTopic) -> str:
    """Return the name of the topic beside a topic of pictures that has the camera's calibration."""
    return f"{one.camera}/camera_info"


def _frame(info: Any, one: ImageTopic) -> str:
    return str(info.header.frame_id or one.frame).lstrip("/")


def _read(bag: Bag, ir: ImageTopic, vis: ImageTopic) -> tuple[dict[str, Any], dict[tuple[str, str], Move]]:
    """Return the first camera_info of each topic, and the transforms by parent and child, from the bag's beginning."""
    infos: dict[str, Any] = {}
    transforms: dict[tuple[str, str], Move] = {}
    wanted = {_info_topic(ir), _info_topic(vis), STATIC}
    start_ns: int | None = None
    if bag.indexed and wanted.isdisjoint(topic.name for topic in bag.topics() if topic.count):
        return infos, transforms
    for message in bag.messages(None):
        start_ns = message.log_ns if start_ns is None else start_ns
        if message.log_ns - start_ns > BEGIN_NS:
            break
        if message.topic.name not in wanted or message.topic.name in infos:
            continue
        try:
            found = deserialize(message)
        except Damaged:
            continue
        if message.topic.type == INFO:
            infos[message.topic.name] = found
        elif message.topic.type == "tf2_msgs/msg/TFMessage":
            for one in found.transforms:
                if (move := _move(one)) is not None:
                    transforms[one.header.frame_id.lstrip("/"), one.child_frame_id.lstrip("/")] = move
    return infos, transforms


def _camera(path: Path, name: str, info: Any, one: ImageTopic) -> Camera:
    """Read the lens of a camera; of topics that the driver has rectified, that of the rectified pictures."""
    k, d, p = (getattr(info, key) if hasattr(info, key) else getattr(info, key.upper()) for key in "kdp")
    lens_matrix = matrix(path, f"{name}: K", k, (3, 3))
    if not lens_matrix[0, 0]:
        raise InputError(f"{path}: {name} is of a camera that was never calibrated: K is zero")
    distortion = np.asarray(d, np.float64)
    if info.distortion_model not in ("plumb_bob", "rational_polynomial", "") and np.any(distortion):
        raise InputError(
            f"{path}: {name} has the distortion model {info.distortion_model[:40]!r}, and plumb_bob and "
            "rational_polynomial are supported"
        )
    if "rect" in one.image.rpartition("/")[2]:
        lens_matrix, distortion = matrix(path, f"{name}: P", p, (3, 4))[:, :3], np.zeros(0)
    if distortion.size:
        distortion = matrix(path, f"{name}: D", distortion, (0, 0))
    found = size(path, name, info.width, info.height) if info.width and info.height else one.size
    return Camera(one.topic.name, found, make_lens(path, name, lens_matrix, distortion), np.eye(3), np.zeros(3))


def _move(one: Any) -> Move | None:
    """Return a transform from the child's frame to the parent's; None for one that is not a rotation and a shift."""
    q, t = one.transform.rotation, one.transform.translation
    x, y, z, w = q.x, q.y, q.z, q.w
    norm = x * x + y * y + z * z + w * w
    if not (1e-6 < norm < 1e6 and all(abs(value) < 1e6 for value in (t.x, t.y, t.z))):
        return None
    s = 2 / norm
    rotation = np.array(
        [
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ]
    )
    return rotation, np.array([t.x, t.y, t.z])


def _between(path: Path, transforms: dict[tuple[str, str], Move], ir: str, vis: str) -> Move:
    """Return the move from the infrared camera's frame to the visible one's, along the tree of frames."""
    if ir == vis:
        raise InputError(f"{path}: both cameras have the frame {ir!r}, so their positions are not known")
    moves: dict[str, list[tuple[str, Move]]] = {}
    for (parent, child), (rotation, shift) in transforms.items():
        moves.setdefault(child, []).append((parent, (rotation, shift)))
        moves.setdefault(parent, []).append((child, (rotation.T, -rotation.T @ shift)))
    reached: dict[str, Move] = {ir: (np.eye(3), np.zeros(3))}
    waiting = deque([ir])
    while waiting:
        frame = waiting.popleft()
        for following, (rotation, shift) in moves.get(frame, ()):
            if following not in reached:
                before = reached[frame]
                reached[following] = rotation @ before[0], rotation @ before[1] + shift
                waiting.append(following)
    if vis not in reached:
        raise InputError(f"{path}: {STATIC} does not lead from the frame {ir!r} to {vis!r}")
    return reached[vis]
