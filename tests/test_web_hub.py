"""The hub: the newest picture, encoded once for all viewers, and its JPEGs."""

from __future__ import annotations

import asyncio
import threading

import cv2
import numpy as np
import pytest
from web import GREYS, picture

from streamfuse.color import Chroma, Matrix, Plane
from streamfuse.color_conversion import to_bgr
from streamfuse.frames import Content, FusedFrame
from streamfuse.web.hub import MOST_QUEUED, Closed, Hub, View
from streamfuse.web.jpeg import JpegEncoder


def decoded(data: bytes) -> Plane:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(np.uint8, copy=False)


def test_a_picture_is_encoded_once_and_only_on_request() -> None:
    async def look() -> None:
        hub = Hub()
        hub.open()
        hub.publish(picture(0))
        hub.publish(picture(1))
        shown = await hub.after(0)
        data = await asyncio.gather(*(hub.jpeg(shown, View.FUSED) for _ in range(5)))
        assert shown.number == 2
        assert len(set(data)) == 1
        assert dict(hub.encoded) == {View.FUSED: 1}
        assert data[0] is not None
        assert decoded(data[0]).mean() == pytest.approx(GREYS["fused"] + 1, abs=2)
        hub.close()

    asyncio.run(look())


def test_a_cancelled_request_does_not_cancel_others() -> None:
    async def look() -> None:
        hub = Hub()
        hub.open()
        hub.publish(picture())
        shown = await hub.after(0)
        leaving = asyncio.create_task(hub.jpeg(shown, View.FUSED))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await hub.jpeg(shown, View.FUSED)
        assert hub.encoded.total() == 1
        hub.close()

    asyncio.run(look())


def test_cancelled_requests_do_not_fill_the_queue_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each queued encoding keeps its picture alive."""
    begun, going = threading.Event(), threading.Event()

    def encode(self: JpegEncoder, luma: Plane, chroma: Chroma | None) -> bytes:
        begun.set()
        assert going.wait(20)
        return b"JPEG"

    monkeypatch.setattr(JpegEncoder, "encode", encode)

    async def look() -> None:
        hub = Hub()
        hub.open()
        for index in range(20):
            hub.publish(picture(index))
            shown = await hub.after(0)
            requests = [asyncio.create_task(hub.jpeg(shown, view)) for view in View]
            await asyncio.sleep(0)
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        assert begun.wait(20)
        assert hub.encoded.total() <= MOST_QUEUED
        going.set()
        assert await asyncio.wait_for(hub.jpeg(shown, View.FUSED), 20) == b"JPEG"
        hub.close()

    asyncio.run(look())


def test_waiting_ends_with_a_picture_and_with_the_run() -> None:
    async def look() -> None:
        hub = Hub()
        hub.open()
        waiting = asyncio.create_task(hub.after(0))
        await asyncio.sleep(0)
        await asyncio.to_thread(hub.publish, picture(7))
        assert (await asyncio.wait_for(waiting, 10)).frame.index == 7
        waiting = asyncio.create_task(hub.after(1))
        await asyncio.sleep(0)
        hub.close()
        with pytest.raises(Closed):
            await asyncio.wait_for(waiting, 10)

    asyncio.run(look())


def test_a_stream_that_is_away_has_no_picture() -> None:
    async def look() -> None:
        hub = Hub()
        hub.open()
        hub.publish(picture(content=Content.INFRARED))
        shown = await hub.after(0)
        assert await hub.jpeg(shown, View.VISIBLE) is None
        assert await hub.jpeg(shown, View.INFRARED)
        assert dict(hub.encoded) == {View.INFRARED: 1}
        hub.close()

    asyncio.run(look())


def test_rate_and_latency_cover_the_last_seconds() -> None:
    now_ns = 0
    hub = Hub(lambda: now_ns)

    def publish(age_ms: int) -> None:
        frame = picture()
        hub.publish(FusedFrame(frame.luma, None, 0, 0, arrival_ns=now_ns - age_ms * 1_000_000))

    for _ in range(100):
        publish(900)
        now_ns += 100_000_000
    assert hub.fps() == pytest.approx(10)
    for _ in range(150):
        publish(30)
        now_ns += 40_000_000
    assert hub.fps() == pytest.approx(25, rel=0.01)
    assert hub.latency_ms() == 30
    now_ns += 2_500_000_000
    assert hub.fps() < 15  # no picture comes any more
    now_ns += 5_000_000_000
    assert hub.fps() == 0
    assert hub.latency_ms() is None


@pytest.mark.parametrize("matrix", list(Matrix))
@pytest.mark.parametrize("full", [True, False])
def test_jpegs_have_the_colours_of_the_frame(matrix: Matrix, full: bool) -> None:
    chroma = Chroma(np.full((17, 25), 90, np.uint8), np.full((17, 25), 180, np.uint8), full, matrix)
    luma = np.full((33, 49), 110, np.uint8)
    got = decoded(JpegEncoder().encode(luma, chroma))
    assert got.shape == (33, 49, 3)
    assert got.reshape(-1, 3).mean(0) == pytest.approx(to_bgr(luma, chroma).reshape(-1, 3).mean(0), abs=3)


def test_jpegs_follow_a_change_of_size() -> None:
    encoder = JpegEncoder()
    sizes = [(48, 64), (96, 128), (48, 64)]
    assert [decoded(encoder.encode(np.zeros(size, np.uint8), None)).shape[:2] for size in sizes] == sizes
