"""Life cycle of a live source, with simulated connections, clock and waiting."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from media import MS, luma_of, number_of

from streamfuse.errors import InputError, UsageError
from streamfuse.frames import Clock
from streamfuse.sources.address import Address, parse_address
from streamfuse.sources.base import State
from streamfuse.sources.connection import REFUSED_BACKOFF_S, Decoded, Lost
from streamfuse.sources.file import BACKWARDS
from streamfuse.sources.live import STALE, LiveSource
from streamfuse.sources.options import SourceOptions

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

SECOND = 1000 * MS


class Machine:
    """A simulated monotonic clock that advances only in `wait`."""

    def __init__(self) -> None:
        self.now_ns = 100 * SECOND
        self.waits: list[float] = []

    def clock(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_ns += round(seconds * SECOND)


def picture(index: int, size: tuple[int, int] = (48, 64)) -> VideoFrame:
    return av.VideoFrame.from_ndarray(luma_of(index, size), format="gray")


class Script:
    """A simulated connection: frames every 40 ms, and the given steps.

    Steps: an int: number of frames; None: a read without result that takes half a second; Lost: raised; a tuple: size
    of the following frames.
    """

    period_ns: int | None = 40 * MS
    description = "64x48 script"
    start_since_1970_ns: int | None = None

    def __init__(self, machine: Machine, *steps: int | Lost | tuple[int, int] | None) -> None:
        self._machine = machine
        self._steps = steps
        self.closed = False

    def read(self) -> Iterator[Decoded | None]:
        media = 0
        for step in self._steps:
            if isinstance(step, Lost):
                raise step
            if step is None:
                self._machine.now_ns += SECOND // 2
                media += SECOND // 2
                yield None
                continue
            count, size = (1, step) if isinstance(step, tuple) else (step, (48, 64))
            for k in range(count):
                self._machine.now_ns += 40 * MS
                media += 40 * MS
                yield Decoded(picture(k, size), media, self._machine.now_ns)
        raise Lost("the script is at its end", hopeless=True)

    def close(self) -> None:
        self.closed = True


Outcome = Callable[[Machine], Script] | Lost


def source(*outcomes: Outcome, stall_s: float = 1.0) -> tuple[LiveSource, Machine, list[Script]]:
    machine, made, left = Machine(), [], list(outcomes)

    def connect(address: Address, options: SourceOptions) -> Script:
        outcome = left.pop(0) if left else Lost("nothing more")
        if isinstance(outcome, Lost):
            raise outcome
        made.append(outcome(machine))
        return made[-1]

    address = Address("rtsp://u:s3cret@host/ir", "rtsp://***@host/ir", stall_s=stall_s)
    live = LiveSource(address, connect=connect, clock=machine.clock, wait=machine.wait, rng=random.Random(0))
    return live, machine, made


def script(*steps: int | Lost | tuple[int, int] | None) -> Callable[[Machine], Script]:
    return lambda machine: Script(machine, *steps)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().removeprefix("rtsp://***@host/ir: ") for record in caplog.records]


@pytest.fixture(autouse=True)
def _listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "streamfuse")


def test_reconnects_and_logs_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    live, _, made = source(
        Lost("nobody there"), Lost("nobody there"), script(3, Lost("closed")), Lost("gone"), Lost("gone"), script(2)
    )
    frames = list(islice(live, 5))
    assert [number_of(frame.luma) for frame in frames] == [0, 1, 2, 0, 1]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].clock is Clock.ARRIVAL
    stamps = [frame.stamp_ns for frame in frames]
    assert stamps == sorted(stamps)
    assert said(caplog) == [
        "nobody there; trying again until it is there",
        "connected, 64x48 script",
        "closed; trying again until it is there",
        "gone; trying again until it is there",
        f"back after {(frames[3].arrival_ns - frames[2].arrival_ns) / SECOND:.1f} s",
    ]
    assert live.reconnects == 1
    assert made[0].closed
    assert live.state is State.LIVE


def test_delays_grow_and_have_jitter() -> None:
    live, machine, _ = source(*[Lost("no")] * 8, script(1), Lost("no"), Lost("no"), script(1))
    list(islice(live, 2))
    expected = [0.25, 0.5, 1, 1.5, 1.5, 1.5, 1.5, 1.5, 0.25, 0.5, 1]  # the end of the script is a loss too
    assert len(machine.waits) == len(expected)
    assert all(0.75 * e <= w <= 1.25 * e for e, w in zip(expected, machine.waits, strict=True))
    assert len({w / e for e, w in zip(expected, machine.waits, strict=True)}) > 8


def test_silence_is_logged_and_leads_to_a_reconnect(caplog: pytest.LogCaptureFixture) -> None:
    live, machine, made = source(script(2, None, None, None, 2, *[None] * 20), script(1))
    frames = iter(live)
    for _ in range(5):
        next(frames)
        assert live.state is State.LIVE
    assert said(caplog) == [
        "connected, 64x48 script",
        "stalled, no frame for 1.5 s",
        "back after 1.5 s",
        "stalled, no frame for 1.5 s",
        "no frame for 3.5 s; trying again until it is there",
        said(caplog)[-1],
    ]
    assert live.reconnects == 1  # no stall after recovery
    machine.now_ns += 2 * SECOND
    assert live.state is State.STALLED  # other threads see it before the reader does
    assert made[0].closed


def test_slow_camera_is_not_stalled(caplog: pytest.LogCaptureFixture) -> None:
    """A camera with one frame in two seconds."""

    class Slow(Script):
        period_ns: int | None = 2 * SECOND

    live, _, _ = source(lambda machine: Slow(machine, 1, *[None] * 4, 1, *[None] * 4, 1))
    assert len(list(islice(live, 3))) == 3
    assert said(caplog) == ["connected, 64x48 script"]


def test_refusal_at_the_start_is_an_error_and_later_an_outage() -> None:
    wrong = Lost("it asks for another password", hopeless=True, most_backoff_s=REFUSED_BACKOFF_S)
    live, _, _ = source(wrong)
    with pytest.raises(InputError, match=r"rtsp://\*\*\*@host/ir: it asks for another password"):
        next(iter(live))
    live, machine, _ = source(script(1, Lost("closed")), *[wrong] * 9, script(1))
    assert len(list(islice(live, 2))) == 2
    assert max(machine.waits) > 10


def test_backlog_is_dropped_and_counted() -> None:
    """The sender was suspended for ten seconds; the frames sent before arrive together."""

    class Slept(Script):
        def read(self) -> Iterator[Decoded | None]:
            for k in range(100):
                yield Decoded(picture(k), 40 * MS * k, 100 * SECOND + 40 * MS * k)
            for k in range(100, 150):
                yield Decoded(picture(k), 40 * MS * k, 114 * SECOND + MS * (k - 100))
            for k in range(350, 360):
                yield Decoded(picture(k), 40 * MS * k, 100 * SECOND + 40 * MS * k)

    live, _, _ = source(Slept)
    frames = list(islice(live, 110))
    assert [frame.index for frame in frames] == [*range(100), *range(150, 160)]
    assert live.drops == {STALE: 50}


def test_frame_interval_is_measured_and_not_taken_from_the_header() -> None:
    class Wrong(Script):
        period_ns: int | None = SECOND // 90

        def read(self) -> Iterator[Decoded | None]:
            for k in range(60):
                if k % 7:  # some are lost
                    yield Decoded(picture(k), 111 * MS * k, 100 * SECOND + 111 * MS * k)

    live, _, _ = source(Wrong)
    frames = iter(live)
    next(frames)
    assert live.period_ns == SECOND // 90
    list(islice(frames, 45))
    assert live.period_ns == 111 * MS


def test_size_may_change(caplog: pytest.LogCaptureFixture) -> None:
    live, _, _ = source(script(1, Lost("closed")), script((96, 128)))
    sizes = [frame.luma.shape for frame in islice(live, 2)]
    assert sizes == [(48, 64), (96, 128)]
    assert live.size == (96, 128)
    assert "pictures are 128x96 now, and were 64x48" in said(caplog)


def test_stamps_rise_unless_the_sender_was_set_back() -> None:
    """Within a connection, frames with earlier stamps are dropped, but not after a reboot that reset the clock."""

    def connection(since_1970_s: int) -> Callable[[Machine], Script]:
        class Clocked(Script):
            def read(self) -> Iterator[Decoded | None]:
                for k, media in enumerate((0, 40, 80, 80, 120)):
                    self._machine.now_ns += 40 * MS
                    reference = (media * MS, since_1970_s * SECOND + media * MS)
                    yield Decoded(picture(k), media * MS, self._machine.now_ns, reference)
                raise Lost("closed")

        return Clocked

    live, _, _ = source(connection(1_700_000_000), connection(1000))
    frames = [frame for frame in islice(live, 8) if frame.clock is Clock.SENDER]
    assert [frame.stamp_ns // MS for frame in frames[:3]] == [1_700_000_000_040, 1_700_000_000_080, 1_700_000_000_120]
    assert [frame.stamp_ns // MS for frame in frames[3:]] == [1_000_040, 1_000_080, 1_000_120]
    assert live.drops == {BACKWARDS: 2}


def test_only_damaged_frames_lead_to_a_reconnect() -> None:
    """The decoder may be waiting for a key frame, but only for a limited time."""

    class Damaged(Script):
        def read(self) -> Iterator[Decoded | None]:
            yield Decoded(picture(0), 0, self._machine.now_ns)
            while True:
                self._machine.now_ns += 40 * MS
                yield Decoded(None, None, self._machine.now_ns)

    live, machine, _ = source(Damaged, script(1))
    frames = iter(live)
    next(frames)
    began = machine.now_ns
    next(frames)
    assert 15 < (machine.now_ns - began) / SECOND < 16
    assert live.drops["corrupt frame"] == 376


def test_sender_may_be_set_back_within_a_connection() -> None:
    class Reset(Script):
        def read(self) -> Iterator[Decoded | None]:
            for k in range(6):
                base = (1_700_000_000 if k < 3 else 1_699_990_000) * SECOND
                self._machine.now_ns += 40 * MS
                yield Decoded(picture(k), 40 * MS * k, self._machine.now_ns, (40 * MS * k, base + 40 * MS * k))

    live, _, _ = source(Reset)
    assert [number_of(frame.luma) for frame in islice(live, 6)] == list(range(6))


def test_undecodable_frames_are_counted() -> None:
    class Broken(Script):
        def read(self) -> Iterator[Decoded | None]:
            yield Decoded(None, None, self._machine.now_ns)
            yield Decoded(picture(1), 0, self._machine.now_ns)

    live, _, _ = source(Broken)
    assert next(iter(live)).index == 1
    assert live.drops == {"corrupt frame": 1}


def test_interrupt_ends_every_kind_of_wait() -> None:
    live, machine, made = source(script(5), script(5))
    frames = iter(live)
    next(frames)
    live.interrupt()
    assert next(frames, None) is None
    assert made[0].closed
    live, machine, _ = source(*[Lost("no")] * 100)

    def wait(seconds: float) -> None:
        machine.wait(seconds)
        live.interrupt()

    live._wait = wait
    assert list(live) == []
    assert len(machine.waits) == 1


# Addresses and options


@pytest.mark.parametrize(
    ("text", "system", "url", "form", "options"),
    [
        ("cam0", "Linux", "/dev/video0", "v4l2", {}),
        ("/dev/video3", "Linux", "/dev/video3", "v4l2", {}),
        (
            "cam1?size=640x512&fps=30&format=Y16",
            "Linux",
            "/dev/video1",
            "v4l2",
            {"video_size": "640x512", "framerate": "30", "input_format": "gray16le"},
        ),
        ("cam1?format=GREY", "Linux", "/dev/video1", "v4l2", {"input_format": "gray"}),
        ("cam0?fps=9", "Darwin", "0:none", "avfoundation", {"framerate": "9"}),
        ("cam:FaceTime HD", "Darwin", "FaceTime HD:none", "avfoundation", {}),
        ("cam:USB Thermal", "Windows", "video=USB Thermal", "dshow", {}),
    ],
)
def test_cameras(text: str, system: str, url: str, form: str, options: dict[str, str]) -> None:
    address = parse_address(text, system)
    assert address is not None
    assert (address.url, address.format, address.options) == (url, form, options)
    assert address.kernel is (form == "v4l2")
    assert address.local


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cam0?zoom=3", "no option 'zoom'"),
        ("cam0?size=big", "size=big is not possible"),
        ("rtsp://h/x#transport=pigeon", "transport is tcp or udp"),
        ("rtsp://h/x#speed=3", "unknown option 'speed'"),
        ("http://h/x#transport=udp", "transport is for rtsp"),
        ("rtsp://u:s3cret@h/x#clock=sun", "clock is auto or arrival"),
    ],
)
def test_invalid_options(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        parse_address(text, "Linux")
    assert "s3cret" not in str(raised.value)


def test_camera_numbers_are_refused_on_windows() -> None:
    with pytest.raises(UsageError, match="give cam:NAME"):
        parse_address("cam0", "Windows")


@pytest.mark.parametrize("password", ["plain", "a/b@c:d", "q?x", "h#sh", "p%40"])
def test_secrets_are_not_shown(password: str) -> None:
    address = parse_address(f"rtsp://user:{password}@host:554/path?token=abc#transport=udp")
    assert address is not None
    # An @ after a ? may belong to the query, and the text after it may be secret.
    assert address.name == ("rtsp://***" if "?" in password else "rtsp://***@host:554/path")
    assert password not in repr(address)
    assert address.url == f"rtsp://user:{password}@host:554/path?token=abc"
    assert address.options["rtsp_transport"] == "udp"


@pytest.mark.parametrize("text", ["video.mp4", "camera0", "cam0.mp4", "synthetic:ir", "ftp://host/x", "dir/cam0"])
def test_addresses_that_are_not_live_streams(text: str) -> None:
    assert parse_address(text, "Linux") is None


def test_luma_is_unchanged() -> None:
    live, _, _ = source(script(1))
    assert np.array_equal(next(iter(live)).luma, luma_of(0))


@pytest.mark.parametrize(("text", "most_s"), [("udp://127.0.0.1:5000", 0.32), ("rtsp://h/x", 1.9)])
def test_returning_camera_is_used_within_two_seconds(text: str, most_s: float) -> None:
    """For any duration of the outage."""
    machine = Machine()
    address = parse_address(text)
    assert address is not None

    def connect(address: Address, options: SourceOptions) -> Script:
        if len(machine.waits) > 50:
            live.interrupt()
        raise Lost("nobody there")

    live = LiveSource(address, connect=connect, clock=machine.clock, wait=machine.wait, rng=random.Random(0))
    assert list(live) == []
    assert most_s / 2 < max(machine.waits) < most_s
