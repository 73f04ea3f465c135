"""Other fusion methods for comparison: two blends, which are the lower limit, and a classical method."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction
from itertools import count

import av
import av.filter
import cv2
import numpy as np
import openvino  # type: ignore[import-untyped]
import torch

from streamfuse.color import Plane, Raw

LEVELS = 5

Fuse = Callable[[Plane, Plane], Raw]
"""A method: infrared and visible luma, (H, W) uint8 each, to (H, W) float32 in 0..1."""


def opencv_blend(ir: Plane, vis: Plane) -> Raw:
    """Return the mean of both, computed by `cv2.addWeighted`."""
    return np.multiply(cv2.addWeighted(ir, 0.5, vis, 0.5, 0), np.float32(1 / 255))


def ffmpeg_blend(height: int, width: int) -> Fuse:
    """Return a function that computes the mean of both with FFmpeg's filter `blend`."""
    graph = av.filter.Graph()
    gray = av.VideoFormat("gray", width, height)
    inputs = [graph.add_buffer(width=width, height=height, format=gray, time_base=Fraction(1, 25)) for _ in range(2)]
    blend, sink = graph.add("blend", "all_mode=average"), graph.add("buffersink")
    for index, source in enumerate(inputs):
        source.link_to(blend, 0, index)
    blend.link_to(sink)
    graph.configure()

    ticks = count()

    def fuse(ir: Plane, vis: Plane) -> Raw:
        tick = next(ticks)
        for index, plane in enumerate((ir, vis)):
            frame = av.VideoFrame.from_ndarray(plane, format="gray")
            frame.pts, frame.time_base = tick, Fraction(1, 25)
            inputs[index].push(frame)
        out = sink.pull()
        assert graph.configured  # the filters do not keep it alive
        assert isinstance(out, av.VideoFrame)
        return np.multiply(out.to_ndarray(), np.float32(1 / 255))

    return fuse


def two_convs(height: int, width: int) -> Fuse:
    """Return a network of the size of MMDRFuse's student (2024), with random weights, in OpenVINO.

    Two 3x3 convs from 2 to 4 channels and from 4 to 1, 113 parameters, the least that a learned method has had.
    """
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 3, padding=1), torch.nn.Sigmoid()
    )
    pair = torch.zeros((1, 2, height, width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both libraries warn about their own code
        model = openvino.convert_model(torch.export.export(network.eval(), (pair,)))
    request = openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"}).create_infer_request()

    def fuse(ir: Plane, vis: Plane) -> Raw:
        request.infer([np.stack((ir, vis))[None] * np.float32(1 / 255)], share_inputs=True)
        return np.array(request.get_output_tensor().data[0, 0])

    return fuse


def laplacian_pyramid(ir: Plane, vis: Plane) -> Raw:
    """Fuse by Laplacian pyramids (P. Burt, E. Adelson, 1983): the stronger of each detail, the mean of the bases."""
    levels = [_pyramid(np.multiply(plane, np.float32(1 / 255))) for plane in (ir, vis)]
    *details, (base_ir, base_vis) = zip(*levels, strict=True)
    fused = (base_ir + base_vis) / 2
    for a, b in reversed(details):
        fused = cv2.pyrUp(fused, dstsize=(a.shape[1], a.shape[0])) + np.where(np.abs(a) >= np.abs(b), a, b)
    return np.asarray(fused, np.float32)


def _pyramid(picture: Raw) -> list[Raw]:
    """Return the details from fine to coarse, and the base."""
    details = []
    for _ in range(LEVELS):
        smaller = cv2.pyrDown(picture)
        details.append(picture - cv2.pyrUp(smaller, dstsize=(picture.shape[1], picture.shape[0])))
        picture = np.asarray(smaller, np.float32)
    return [*details, picture]
