"""Receiving: `streamfuse.Subscriber`, `streamfuse subscribe`, and the program in docs/subscribing.md."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import zmq
from command_line import ROOT, SMALL, fails, process, streamfuse
from media import SIZE, PassThrough, every, number_of, read_video, write_video
from publishing import noise, published, publishing
from streams import free_port
from test_publish import sink, until
from thermal_files import warm_spot, write_infiray

from streamfuse import NothingReceived, Subscriber, UsageError
from streamfuse.color import Matrix
from streamfuse.frames import Clock, Content
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sources import open_pair
from streamfuse.temperature import NONE, Scale, TemperaturePlane
from streamfuse.zeromq.curve import new_keys, server_keys
from streamfuse.zeromq.link import Link
from streamfuse.zeromq.wire import Encoding, pack, topic_of


@pytest.mark.timed
def test_import_loads_no_network_no_engine_and_no_opencv() -> None:
    code = "import sys, streamfuse; streamfuse.Subscriber; print(*sys.modules)"
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds = time.monotonic() - begin
    assert {"zmq", "numpy"} < set(done.stdout.split())
    assert not {"torch", "openvino", "cv2", "av", "click"} & set(done.stdout.split())
    assert seconds < 5, seconds


def test_run_without_publishing_loads_no_zeromq(tmp_path: Path) -> None:
    pair = [str(write_video(tmp_path / f"{name}.mp4", every(40, 3))) for name in ("ir", "vis")]
    args = ["run", "--ir", pair[0], "--vis", pair[1], "-o", str(tmp_path / "o.mp4"), *SMALL]
    code = (
        f"import sys; from streamfuse.cli import cli; cli({args!r}, standalone_mode=False); print('zmq' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


# A second process

SECOND = """
import hashlib, json, sys
from dataclasses import asdict
from streamfuse import Subscriber
with Subscriber({url!r}, mode="every", timeout_s=20) as subscriber:
    print("ready", flush=True)
    for frame in subscriber:
        luma = hashlib.sha256(frame.luma.tobytes()).hexdigest()
        print(json.dumps([asdict(frame.header), luma, frame.to_bgr().shape, frame.age_ns]), flush=True)
        if frame.header.seq == {last}:
            break
    print(json.dumps(asdict(subscriber.statistics())))
"""


@contextmanager
def second_process(url: str, last: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SECOND.format(url=url, last=last)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("encoding", [Encoding.MONO8, Encoding.YUV420P, Encoding.BGR8])
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_second_process_gets_every_field_and_exact_luma(transport: str, encoding: Encoding, tmp_path: Path) -> None:
    import hashlib

    url = "tcp://127.0.0.1:*" if transport == "tcp" else f"ipc://{tmp_path}/s"
    with (
        sink(url, stream="front", encoding=encoding, calibration="0123456789ab", model="cd" * 32) as out,
        second_process(out.address, last=9) as process,
    ):
        until(lambda: bool(out._publisher._subscriptions))
        frames = [published(k, size=(47, 65)) for k in range(10)]
        for frame in frames:
            out.write(frame)
            time.sleep(0.02)
        assert process.stdout is not None
        *lines, statistics = (json.loads(line) for line in process.stdout)
    assert [header["seq"] for header, *_ in lines] == list(range(10))
    for frame, (header, luma, shape, age_ns) in zip(frames, lines, strict=True):
        assert 0 < time.time_ns() - header.pop("published_ns") < 60e9
        assert 20e6 < header.pop("age_ns") < 10e9
        assert 20e6 < age_ns < 10e9
        step = {Encoding.MONO8: 65, Encoding.YUV420P: 65, Encoding.BGR8: 195}[encoding]
        assert header == {
            "schema": 1, "run": out._run, "seq": frame.index, "stream": "front", "content": "fused",
            "ir_stamp_ns": frame.ir_stamp_ns, "vis_stamp_ns": frame.vis_stamp_ns, "ir_clock": "sender",
            "vis_clock": "arrival", "skew_ns": -8_000_333, "time_ns": frame.time_ns, "width": 65, "height": 47,
            "step": step, "encoding": encoding, "matrix": "bt709" if encoding is Encoding.YUV420P else None,
            "calibration": "0123456789ab", "model": "cd" * 32, "resent": header["resent"], "temperature": None,
            "alarms": [],
        }  # fmt: skip
        assert shape == [47, 65, 3]
        if encoding is not Encoding.BGR8:
            assert luma == hashlib.sha256(frame.luma.tobytes()).hexdigest()
    assert (statistics["received"], statistics["gaps"], statistics["malformed"]) == (10, 0, 0)


def test_received_frames_equal_the_published_ones() -> None:
    with sink(encoding=Encoding.YUV420P) as out, Subscriber(out.address) as subscriber:
        sent = published(0)
        out.write(sent)
        frame = subscriber.latest()
        assert (frame.header.content, frame.header.ir_clock) == (Content.FUSED, Clock.SENDER)
        fused = frame.to_fused()
        assert np.array_equal(fused.luma, sent.luma)
        assert fused.chroma is not None
        assert (fused.chroma.matrix, fused.chroma.full_range) == (Matrix.BT709, True)
        assert np.array_equal(fused.to_bgr(), sent.to_bgr())
        assert (fused.time_ns, fused.live, fused.ir_stamp_ns) == (sent.time_ns, True, sent.ir_stamp_ns)
        assert repr(frame) == "Received(main #0, 64x48 yuv420p, fused)"


# Modes


def test_latest_skips_old_frames_and_every_does_not() -> None:
    with (
        sink(encoding=Encoding.MONO8) as out,
        Subscriber(out.address) as newest,
        Subscriber(out.address, mode="every") as every_one,
    ):
        out.write(published(0))
        frames = every_one.every()
        assert next(frames).header.seq == newest.latest().header.seq == 0
        for k in range(1, 5):
            out.write(published(k))
            until(lambda k=k: newest.statistics().received == k + 1)  # type: ignore[misc]
        assert newest.latest().header.seq == 4
        assert newest.statistics().skipped == 3
        assert [next(frames).header.seq for _ in range(4)] == [1, 2, 3, 4]
        with pytest.raises(UsageError, match='mode="every"'):
            newest.every()
        with pytest.raises(UsageError, match="use latest or every"):
            Subscriber(out.address, mode="some")


def test_slow_reader_in_mode_latest_gets_recent_frames(tmp_path: Path) -> None:
    with publishing(f"ipc://{tmp_path}/s"), Subscriber(f"ipc://{tmp_path}/s") as subscriber:
        subscriber.latest()
        for _ in range(6):
            asleep_ns = time.time_ns()
            time.sleep(0.3)  # stands for the reader's work
            assert subscriber.latest().header.published_ns > asleep_ns  # a queue would return an older frame
        statistics = subscriber.statistics()
        assert statistics.skipped > 40
        assert statistics.gaps == 0


def test_streams_are_received_separately(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    with (
        sink(url, stream="a") as a,
        sink(url, stream="b") as b,
        Subscriber(url, stream="b", mode="every") as only,
        Subscriber(url, mode="every") as both,
    ):
        until(lambda: len(a._publisher._subscriptions) == 2)
        a.write(published(0))
        b.write(published(0))
        b.write(published(1))
        assert [frame.header.seq for frame in islice(only, 2)] == [0, 1]
        assert sorted((frame.header.stream, frame.header.seq) for frame in islice(both, 3)) == [
            ("a", 0),
            ("b", 0),
            ("b", 1),
        ]
        assert both.statistics().gaps == both.statistics().restarts == 0


# Timeouts and errors


@pytest.mark.timed
def test_timeout_is_an_error_that_gives_the_reason(tmp_path: Path) -> None:
    new_keys(tmp_path / "keys")
    with (
        sink(keys=server_keys(tmp_path / "keys" / "server.key_secret")) as secret,
        sink() as quiet,
    ):
        for url, words, link in (
            (f"tcp://127.0.0.1:{free_port()}", "no publisher found", Link.SEARCHING),
            (f"ipc://{tmp_path}/none", "no publisher found", Link.SEARCHING),
            (secret.address, "refused this subscriber: give keys", Link.REFUSED),
            (quiet.address, "sends no stream 'x'", Link.CONNECTED),
        ):
            with Subscriber(url, stream="x", timeout_s=0.5) as subscriber:
                for _ in range(2):  # the call may be repeated
                    begin = time.monotonic()
                    with pytest.raises(NothingReceived, match=f"within 0.5 s: .*{words}"):
                        next(iter(subscriber))
                    assert 0.4 < time.monotonic() - begin < 3
                assert subscriber.statistics().link is link


def test_close_ends_a_waiting_thread() -> None:
    subscriber = Subscriber(f"tcp://127.0.0.1:{free_port()}", timeout_s=None)
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.extend(subscriber))
    thread.start()
    time.sleep(0.1)
    subscriber.close()
    subscriber.close()
    thread.join(5)
    assert not thread.is_alive()
    assert seen == []
    with pytest.raises(NothingReceived, match="is closed"):
        subscriber.latest()


def test_invalid_arguments_are_refused(tmp_path: Path) -> None:
    for words, url, options in (
        ("give tcp://", "http://127.0.0.1:80", {}),
        ("invalid stream name 'a/b'", "tcp://127.0.0.1:80", {"stream": "a/b"}),
        ("give both the publisher's public key", "tcp://127.0.0.1:80", {"server_key": "a"}),
        ("there is no key file", "tcp://127.0.0.1:80", {"server_key": tmp_path / "a", "client_key": tmp_path / "b"}),
    ):
        with pytest.raises(UsageError, match=words):
            Subscriber(url, **options)


def test_with_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    new_keys(keys)
    with (
        sink(keys=server_keys(keys / "server.key_secret"), encoding=Encoding.MONO8) as out,
        Subscriber(out.address, server_key=keys / "server.key", client_key=keys / "client.key_secret") as subscriber,
    ):
        out.write(published(0))
        assert np.array_equal(subscriber.latest().luma, noise(0))


# Restarts and hostile publishers


@pytest.mark.timed
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_killed_and_restarted_publisher_is_one_restart(transport: str, tmp_path: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}" if transport == "tcp" else f"ipc://{tmp_path}/s"
    with Subscriber(url, mode="every", timeout_s=20) as subscriber:
        frames = iter(subscriber)
        with publishing(url) as process:
            first = [next(frames) for _ in range(10)][-1].header
            process.send_signal(signal.SIGKILL)
            process.wait()
        with publishing(url):
            began = time.monotonic()
            again = next(frame for frame in frames if frame.header.run != first.run).header
            seconds = time.monotonic() - began
            [next(frames) for _ in range(10)]
        statistics = subscriber.statistics()
    assert seconds < 3
    assert again.seq < 200
    assert (statistics.restarts, statistics.malformed, statistics.oversized) == (1, 0, 0)


def test_suspended_publisher_is_no_restart(tmp_path: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    with publishing(url) as process, Subscriber(url, mode="every", timeout_s=1) as subscriber:
        frames = subscriber.every(20)
        next(frames)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(NothingReceived):
            for _ in subscriber:
                pass
        process.send_signal(signal.SIGCONT)
        subscriber.latest(20)
        assert subscriber.statistics().restarts == 0


NOT_READING = """
import sys, time
from streamfuse import Subscriber
with Subscriber({url!r}, mode="every", timeout_s=30) as subscriber:
    frames = iter(subscriber)
    run = next(frames).header.run
    print("full", flush=True)
    sys.stdin.readline()
    for frame in frames:
        if frame.header.run != run:
            print(subscriber.statistics().restarts, flush=True)
            break
"""


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_publisher_may_die_while_nobody_reads(transport: str, tmp_path: Path) -> None:
    """With heartbeats, ZeroMQ aborts the process of a subscriber whose queue is full when the publisher dies."""
    url = f"tcp://127.0.0.1:{free_port()}" if transport == "tcp" else f"ipc://{tmp_path}/s"
    command = [sys.executable, "-c", NOT_READING.format(url=url)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process,
        publishing(url, period_s=0.005, size=(480, 640)) as publisher,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        time.sleep(0.5)  # lets the queues fill; there is no signal for it
        publisher.kill()
        time.sleep(2.5)  # longer than a heartbeat
        assert process.poll() is None
        with publishing(url):
            out, _ = process.communicate("\n", timeout=30)
    assert (process.returncode, out) == (0, "1\n")


class HostilePublisher:
    """A publisher that sends arbitrary messages."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.url = f"tcp://127.0.0.1:{self.port}"

    def __enter__(self) -> HostilePublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.context.term()


def test_malformed_and_oversized_messages_are_counted_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    from test_wire import header, message

    head = header(size=(48, 64))
    good = message(head)
    topic, text, pixels = good
    bad = [
        [topic],
        [topic, b"\x80\x04pickle", pixels],
        [topic, text, pixels[:-1]],
        [topic, text, pixels, b"more"],
        [topic] * 2000,
        [topic_of("other"), text, pixels],
        [topic, pack(header(size=(480, 640))), pixels],
    ]
    with (
        HostilePublisher() as hostile,
        Subscriber(hostile.url, mode="every", max_bytes=100_000, timeout_s=20) as subscriber,
    ):
        frames = iter(subscriber)
        assert hostile.socket.recv() == b"\x01fused/"
        for parts in bad:
            hostile.socket.send_multipart(parts)
        hostile.socket.send_multipart(good)
        assert next(frames).header == head
        assert subscriber.statistics().malformed == len(bad)
        for times in (1, 2):
            hostile.socket.send_multipart([topic, text, bytes(100_001)])
            with pytest.raises(NothingReceived):
                subscriber.latest(1)
            while hostile.socket.recv() != b"\x01fused/":  # it reconnects
                pass
            assert subscriber.statistics().oversized == times
            hostile.socket.send_multipart(message(header(seq=7 + times)))
            assert next(frames).header.seq == 7 + times
        statistics = subscriber.statistics()
    assert (statistics.received, statistics.gaps, statistics.restarts) == (3, 0, 0)
    notes = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(notes) == 1
    assert "1 parts instead of 3, or 4 with temperatures; later ones are only counted" in notes[0]


def test_gaps_and_repeats_are_counted() -> None:
    from test_wire import header, message

    with HostilePublisher() as hostile, Subscriber(hostile.url, mode="every", timeout_s=20) as subscriber:
        frames = iter(subscriber)
        hostile.socket.recv()
        got = []
        for seq, resent in ((5, True), (5, False), (6, False), (9, False), (9, True), (8, False), (10, False)):
            hostile.socket.send_multipart(message(header(seq=seq, resent=resent, age_ns=seq * 1_000_000)))
        got = [next(frames).header.seq for _ in range(4)]
        statistics = subscriber.statistics()
    assert got == [5, 6, 9, 10]
    assert (statistics.received, statistics.gaps, statistics.repeats) == (4, 2, 3)


def test_server_that_is_not_a_publisher_is_a_timeout() -> None:
    from streams import babbling_server

    with babbling_server() as port, Subscriber(f"tcp://127.0.0.1:{port}", timeout_s=1.5) as subscriber:
        with pytest.raises(NothingReceived):
            subscriber.latest()
        assert subscriber.statistics().received == 0


# The command


def test_command_shows_statistics_and_records(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    with publishing(url, encoding="yuv420p"):
        done = streamfuse("subscribe", url, "--frames", 80, "-o", tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    times, pictures = read_video(tmp_path / "out.mp4")
    assert len(times) == 80
    assert number_of(pictures[1]) == pytest.approx(number_of(pictures[0]) + 1, abs=1)  # after the codec
    assert times == pytest.approx([times[0] + 40 * k for k in range(80)], abs=0.1)  # on the publisher's time line
    lines = done.stdout.splitlines()
    assert len(lines) >= 2
    assert re.search(
        r"connected  received 80 \([\d.]+/s\)  gaps 0  restarts 0  malformed 0 .* p50 \d+\.\d p95", lines[-1]
    )


def test_command_ends_with_3_on_timeout_and_with_0_on_sigterm(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    assert "no publisher found" in fails(
        3, "within 0.3 s", "subscribe", url, "--timeout-s", "0.3", "-o", tmp_path / "o.mp4"
    )
    assert not (tmp_path / "o.mp4").exists()
    fails(2, "give tcp://", "subscribe", "nonsense")
    with publishing(url):
        command = [sys.executable, "-m", "streamfuse", "subscribe", url, "-o", str(tmp_path / "o.mp4")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            while "received" not in (line := process.stdout.readline()) or "received 0" in line:
                assert line
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
        assert process.returncode == 0
    assert len(read_video(tmp_path / "o.mp4")[0]) > 10


def test_recording_continues_after_a_restart_of_the_publisher(tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/s"
    command = [sys.executable, "-m", "streamfuse", "subscribe", url, "-o", str(tmp_path / "o.mp4"), "--frames", "150"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        with publishing(url):
            assert process.stdout is not None
            while not (found := re.search(r"received (\d+)", process.stdout.readline())) or int(found[1]) < 30:
                pass
        with publishing(url):
            rest, _ = process.communicate(timeout=30)
    assert "restarts 1" in rest
    times, _ = read_video(tmp_path / "o.mp4")
    assert len(times) == 150
    assert min(np.diff(times)) > 30


def test_run_publishes(tmp_path: Path) -> None:
    """End to end: two recordings, the network, a socket, and a subscriber in another process."""
    ir = write_video(tmp_path / "ir.mp4", every(40, 500))
    vis = write_video(tmp_path / "vis.mp4", every(40, 500), u=100, v=160)
    url = f"ipc://{tmp_path}/s"
    with Subscriber(url, stream="street", mode="every", timeout_s=60) as subscriber:
        done = process(
            "run", "--ir", ir, "--vis", vis, "--publish", url, "--stream", "street", "--publish-encoding", "yuv420p",
            "-o", tmp_path / "out.mkv", "--codec", "ffv1", *SMALL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        frame = subscriber.latest()
    # Where the machine is busy, the socket may miss some frames, which are counted
    counts = [re.search(rf"(\d+) +{words}", done.stderr) for words in ("to ipc:", r"ipc:\S+ \S+ the output was busy")]
    written, missed = (int(count[1]) if count else 0 for count in counts)
    assert written + missed == 500
    assert written > 400
    _, pictures = read_video(tmp_path / "out.mkv")
    assert np.array_equal(frame.luma, pictures[frame.header.seq])
    header = frame.header
    assert header.vis_stamp_ns == header.time_ns == 40_000_000 * header.seq
    assert (header.vis_clock, header.calibration) == (Clock.MEDIA, None)
    assert header.model is not None
    info = streamfuse("weights", "info").stdout
    assert header.model in info


def test_temperatures_reach_the_subscriber_when_asked_for() -> None:
    """The plane is that of the frame; the extremes come without it, too."""
    celsius = np.linspace(20, 40, SIZE[0] * SIZE[1]).reshape(SIZE)
    celsius[7, 9] = 80.0
    plane = TemperaturePlane(np.rint((celsius + 273.15) * 64).astype(np.uint16), Scale(1 / 64))
    plane.values[0, 0] = NONE
    for wanted in (True, False):
        with (
            sink("tcp://127.0.0.1:*", temperature=wanted) as publisher,
            Subscriber(publisher.address) as subscriber,
        ):
            publisher.write(published(0, temperature=plane))
            first = subscriber.latest()
            publisher.write(published(1))
            second = subscriber.latest()
        assert first.header.temperature is not None
        assert first.header.temperature.max == pytest.approx(80, abs=0.02)
        assert first.header.temperature.max_at == (9, 7)
        assert first.header.temperature.part is wanted
        assert second.header.temperature is None
        assert second.temperature is None
        if not wanted:
            assert first.temperature is None
            continue
        assert first.temperature is not None
        assert first.temperature.dtype == np.float32
        assert np.isnan(first.temperature[0, 0])
        assert np.nanmax(np.abs(first.temperature - celsius)) < 0.02
        again = first.to_fused().temperature
        assert again is not None
        assert np.array_equal(again.values, plane.values)


def test_degrees_of_a_thermal_camera_reach_the_subscriber(tmp_path: Path) -> None:
    """A stand-in for an InfiRay P2 Pro: a file of its frames."""
    ir = write_infiray(tmp_path / "p2.nut", [warm_spot((192, 256), 40, 100, 60.0)] * 3)
    vis = write_video(tmp_path / "vis.mp4", every(40, 3), size=(192, 256))
    fuser = Fuser(engine=PassThrough(), tone="fixed:0,1")
    with sink("tcp://127.0.0.1:*", temperature=True) as out, Subscriber(out.address, timeout_s=60) as subscriber:
        with Pipeline(*open_pair(f"{ir}?temperature=kelvin/64", str(vis)), fuser=fuser) as pipeline:
            for frame in pipeline:
                out.write(frame)
        received = subscriber.latest()
    assert received.temperature is not None
    assert received.temperature.shape == received.luma.shape == (192, 256)
    assert received.temperature[40, 100] == pytest.approx(60, abs=0.02)
    assert received.temperature[0, 0] == pytest.approx(20, abs=0.02)


def test_run_refuses_invalid_publishing_options(tmp_path: Path) -> None:
    pair = [write_video(tmp_path / f"{name}.mp4", every(40, 3)) for name in ("ir", "vis")]
    args = ("run", "--ir", pair[0], "--vis", pair[1], *SMALL)
    fails(2, "give --publish-keys (`streamfuse keys new DIR` makes them)", *args, "--publish", "tcp://0.0.0.0:5556")
    fails(2, "needs --publish-keys", *args, "--publish", f"ipc://{tmp_path}/s", "--publish-clients", tmp_path)
    fails(5, "cannot publish on", *args, "--publish", f"ipc://{tmp_path}/gone/s")
    fails(5, "there is no directory", *args, "--publish", f"ipc://{tmp_path}/s", "-o", tmp_path / "gone" / "o.mp4")


def test_keys_command(tmp_path: Path) -> None:
    done = streamfuse("keys", "new", tmp_path / "keys")
    assert done.returncode == 0, done.stderr
    secrets = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("secret")]
    assert len(secrets) == 2
    for file in secrets:
        key = re.search(r'secret-key = "(.*)"', Path(file).read_text())
        assert key
        assert key[1] not in done.stdout + done.stderr
    fails(5, "keys are never replaced", "keys", "new", tmp_path / "keys")


def documented_program() -> str:
    text = (ROOT / "docs/subscribing.md").read_text()
    found = re.search(r"```python\n(import json.*?)```", text, re.S)
    assert found
    return found[1]


def test_documented_program_needs_only_zeromq_and_numpy() -> None:
    program = documented_program()
    assert len(program.strip().splitlines()) <= 10
    imports: Callable[[str], list[str]] = lambda text: re.findall(r"^import (.*)$", text, re.M)  # noqa: E731
    assert [name.strip() for line in imports(program) for name in line.split(",")] == ["json", "numpy as np", "zmq"]
    address = f"tcp://127.0.0.1:{free_port()}"
    assert "tcp://127.0.0.1:5556" in program
    command = [sys.executable, "-c", program.replace("tcp://127.0.0.1:5556", address)]
    with (
        publishing(address, encoding="bgr8"),
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.kill()
    assert all(re.fullmatch(r"main \d+ \(48, 64, 3\) \d+\n", line) for line in lines), lines
