"""`streamfuse probe`: what a recording holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from streamfuse.cli import logs, options
from streamfuse.errors import StreamfuseError

if TYPE_CHECKING:
    from streamfuse.sources.bags.address import BagAddress


@click.command()
@click.argument("recording", type=options.SOURCE)
@options.max_pixels
@options.common
def command(recording: str, max_pixels: int) -> None:
    """Show what RECORDING holds: of a bag its topics, of anything else size, frame rate and length.

    \b
    streamfuse probe walk.mcap
    streamfuse probe ir.mp4
    """
    from streamfuse.sources.bags.address import parse_bag
    from streamfuse.support.urls import expand

    bag = parse_bag(expand(recording))
    if bag is not None and bag.topic is None:
        _show_bag(bag)
    else:
        _show_source(recording, options.SourceOptions(max_pixels=max_pixels))


def _show_source(recording: str, choice: options.SourceOptions) -> None:
    from streamfuse.sources import open_source

    with open_source(recording, choice) as source:
        facts = [source.name]
        if source.size is not None:
            facts.append(f"{source.size[1]}x{source.size[0]}")
        if source.period_ns is not None:
            facts.append(f"{1e9 / source.period_ns:.6g} fps")
        if source.frame_count is not None:
            facts.append(f"{source.frame_count} frames")
            if source.period_ns is not None:
                facts.append(f"{source.frame_count * source.period_ns / 1e9:.2f} s")
        logs.say(", ".join(facts), err=False)
        if about := source.describe():
            logs.say(f"camera  {about}", err=False)


def _show_bag(address: BagAddress) -> None:
    from streamfuse.sources.bags.bag import Bag
    from streamfuse.sources.bags.choose import find_pair, survey

    with Bag(address.path) as bag:
        images = {one.topic.name: one for one in survey(bag)}
        topics = bag.topics() if bag.indexed else bag.count()
        span = bag.span_ns()
        seconds = None if span is None else (span[1] - span[0]) / 1e9
        length = "" if seconds is None else f", {seconds:.2f} s"
        logs.say(f"{address.path}: {len(topics)} topics{length}{'' if bag.indexed else ', no index'}", err=False)
        rows: list[tuple[str, ...]] = []
        for topic in topics:
            one = images.get(topic.name)
            rate = f"{(topic.count - 1) / seconds:.3g} Hz" if topic.count and seconds else ""
            picture = f"{one.encoding.strip()} {one.size[1]}x{one.size[0]}" if one is not None else ""
            rows.append((topic.name, topic.type or topic.coding, str(topic.count or 0), rate, picture))
        logs.say(*_table(rows), err=False)
        if bag.damage is not None:
            logs.say(f"damaged: {bag.damage}", err=False)
        try:
            ir, vis = find_pair(bag)
        except StreamfuseError as error:
            logs.say(str(error), err=False)
        else:
            logs.say(f"infrared {ir}", f"visible  {vis}", _calibration(address.path), err=False)
            logs.say(f"next     streamfuse run --bag {address.path} -o fused.mp4", err=False)


def _calibration(path: Path) -> str:
    from streamfuse.calibration.bag import calibrate_bag
    from streamfuse.calibration.imported import Request

    try:
        found = calibrate_bag(path, Request())
    except StreamfuseError as error:
        return f"no calibration: {error}"
    return f"calibration {found.calibration.method}; {'; '.join(found.details)}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    return [
        "  ".join(
            text.rjust(width) if column in (2, 3) else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, (*widths, 0), strict=True))
        ).rstrip()
        for row in rows
    ]
