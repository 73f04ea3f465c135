"""Skew of two live frames by the best clock that they share."""

from __future__ import annotations

from streamfuse.frames import Frame
from streamfuse.sources.clocks import SECOND

APART_NS = 2 * SECOND
"""Largest plausible difference between the delays of two streams; above it a clock must be wrong."""


def skew(ir: Frame, vis: Frame) -> tuple[int, bool]:
    """Return infrared minus visible time of two live frames, ns, and True if it is by stamp, False if by arrival.

    Stamps of a sender are compared only with those of a sender, stamps of this machine only with its own.  If the
    stamps of two senders disagree with the arrival by more than `APART_NS`, the senders are not synchronised.
    """
    ir_arrival = ir.arrival_ns if ir.tracked_ns is None else ir.tracked_ns
    vis_arrival = vis.arrival_ns if vis.tracked_ns is None else vis.tracked_ns
    by_arrival = ir_arrival - vis_arrival
    if ir.clock.of_sender is not vis.clock.of_sender:
        return by_arrival, False
    by_stamp = ir.stamp_ns - vis.stamp_ns
    if ir.clock.of_sender and abs(by_stamp - by_arrival) > APART_NS:
        return by_arrival, False
    return by_stamp, True
