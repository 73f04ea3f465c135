"""Temperatures for browsers: what they may ask for, and the answers of the server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, WSMsgType
from web import picture, serving, viewer

from streamfuse.sinks.preview import PreviewSink
from streamfuse.temperature import NONE, Scale, TemperaturePlane
from streamfuse.web.thermometer import Wanted, measure, parse_wanted


def plane() -> TemperaturePlane:
    """Row r, column c has 10 r + c degC; the first pixel has no value."""
    celsius = np.add.outer(np.arange(4) * 10, np.arange(8))
    made = TemperaturePlane((celsius * 64).astype(np.uint16) + 1, Scale(1 / 64, 273.15 - 1 / 64))
    made.values[0, 0] = NONE
    return made


def test_point_and_area_are_fractions_of_the_picture() -> None:
    found = plane()
    answer = measure(found, found.extremes(), Wanted((0.999, 0.5), (0.25, 0.25, 0.5, 0.74)))
    assert (answer["min"], answer["max"]) == (1, 37)
    assert (answer["min_at"], answer["max_at"]) == ([1.5 / 8, 0.125], [7.5 / 8, 0.875])
    assert answer["point"] == 27
    assert answer["area"] == {"min": 12, "mean": 18, "max": 24}
    assert measure(found, found.extremes(), Wanted((0, 0)))["point"] is None
    corner = measure(found, found.extremes(), Wanted((1, 1), (0.99, 0.99, 1, 1)))
    assert (corner["point"], corner["area"]["max"]) == (37, 37)
    empty = TemperaturePlane(np.zeros((2, 2), np.uint16), Scale(1))
    assert set(measure(empty, empty.extremes(), Wanted((0, 0), (0, 0, 1, 1))).values()) == {None}


@pytest.mark.parametrize(
    "message",
    [
        None,
        [1],
        {},
        {"point": 1, "area": "x"},
        {"point": [1], "area": [0, 0, 1]},
        {"point": [-0.1, 0], "area": [0, 0, 1, 2]},
        {"point": [True, 0], "area": [0.5, 0, 0.5, 1]},
        {"point": [float("nan"), 0], "area": [0.6, 0, 0.5, 1]},
    ],
)
def test_malformed_wishes_count_as_none(message: object) -> None:
    assert parse_wanted(message) == Wanted()


def test_server_answers_at_once_and_with_every_picture() -> None:
    async def ask(sink: PreviewSink) -> None:
        async with ClientSession() as session:
            sink.write(picture(0, temperature=plane()))
            looking = await viewer(session, sink, "fused")
            header, _ = await looking.next()
            assert (header["temperature"]["max"], header["temperature"]["point"]) == (37, None)
            await looking.socket.send_json({"measure": {"point": [0.5, 0.5]}})
            assert (await answer(looking.socket))["point"] == 24
            sink.write(picture(1, temperature=plane()))
            header, _ = await looking.next()
            assert header["temperature"]["point"] == 24
            sink.write(picture(2))
            header, _ = await looking.next()
            assert header["temperature"] is None
            async with session.get(f"http://127.0.0.1:{sink.port}/status") as status:
                assert (await status.json())["temperature"] is None

    async def answer(socket: Any) -> dict[str, Any]:
        while True:
            message = await socket.receive(timeout=20)
            if message.type is WSMsgType.TEXT and "measured" in (said := json.loads(message.data)):
                return dict(said["measured"])

    with serving() as sink:
        asyncio.run(ask(sink))
