"""The skew of two live frames, by the best clock they share."""

from __future__ import annotations

from streamfuse.frames import Frame
from streamfuse.sources.clocks import SECOND

APART_NS = 2 * SECOND
"""More than the ways of two streams differ by: what is beyond it is a clock that is wrong."""


def skew(ir: Frame, vis: Frame) -> tuple[int, bool]:
    """Infrared minus visible time of two live frames, ns, and whether it is by their stamps; else by their arrival.

    Stamps of a sender are compared with a sender's, those of this machine with its own.  Senders whose clocks
    disagree by more than `APART_NS`, where arrival says that the frames are of one time, are not synchronised.
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
