"""The message of a published frame: round trips, and rejection of invalid messages."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from publishing import noise, published

from streamfuse.color import Matrix
from streamfuse.errors import InputError
from streamfuse.frames import Clock, Content
from streamfuse.zeromq.payload import bgr_of, encode, luma_of, picture_of
from streamfuse.zeromq.wire import (
    Encoding,
    Header,
    Malformed,
    NewerSchema,
    TemperatureHeader,
    pack,
    payload_bytes,
    step_of,
    topic_of,
    unpack,
)


def header(encoding: Encoding = Encoding.MONO8, size: tuple[int, int] = (48, 64), **changes: Any) -> Header:
    known: dict[str, Any] = {
        "run": "0123456789abcdef",
        "seq": 7,
        "stream": "front",
        "content": Content.FUSED,
        "ir_stamp_ns": 1_700_000_000_000_000_123,
        "vis_stamp_ns": None,
        "ir_clock": Clock.SENDER_DELAY,
        "vis_clock": None,
        "skew_ns": -5,
        "time_ns": 40_000_000,
        "published_ns": 1_700_000_000_100_000_000,
        "age_ns": 100,
        "width": size[1],
        "height": size[0],
        "step": step_of(encoding, size[1]),
        "encoding": encoding,
        "matrix": Matrix.BT709 if encoding is Encoding.YUV420P else None,
        "calibration": "a1b2c3d4e5f6",
        "model": "ab" * 32,
    }
    return Header(**known | changes)


def message(head: Header, payload: memoryview | bytes | None = None, **changes: Any) -> list[bytes]:
    """The parts of a message; `changes` are made to its JSON object only."""
    values = json.loads(pack(head)) | changes
    if payload is None:
        payload = bytes(payload_bytes(head.encoding, head.height, head.width))
    return [topic_of(head.stream), json.dumps(values).encode(), bytes(payload)]


def test_every_field_round_trips() -> None:
    for sent in (header(), header(Encoding.YUV420P, (47, 63), resent=True)):
        received = unpack(message(sent))
        assert received == sent
        assert isinstance(received.content, Content)
        assert isinstance(received.ir_clock, Clock)
        assert isinstance(received.encoding, Encoding)
    empty = replace(header(), ir_stamp_ns=None, ir_clock=None, age_ns=None, calibration=None, model=None)
    assert unpack(message(empty)) == empty


WARM = TemperatureHeader(
    scale=1 / 64, offset=-273.15, min=-3.5, mean=20.25, max=61.0, min_at=(0, 1), max_at=(63, 47), part=True
)


def test_temperatures_round_trip() -> None:
    sent = header(temperature=WARM)
    values = bytes(2 * 48 * 64)
    assert unpack([*message(sent), values]) == sent
    without = header(temperature=replace(WARM, part=False))
    assert unpack(message(without)) == without
    nowhere = header(temperature=replace(WARM, part=False, min=None, mean=None, max=None, min_at=None, max_at=None))
    assert unpack(message(nowhere)) == nowhere
    raised = header(alarms=("max > 60C for 2s",))
    assert unpack(message(raised)) == raised
    for alarms in (None, "x", [1], ["a\n"], ["a" * 101], ["a"] * 33):
        with pytest.raises(Malformed, match="alarms"):
            unpack(message(header(), alarms=alarms))
    old = json.loads(pack(header()))
    del old["temperature"], old["alarms"]  # as an older publisher
    assert unpack([message(header())[0], json.dumps(old).encode(), message(header())[2]]) == header()


def test_temperatures_that_do_not_fit_are_refused() -> None:
    sent, values = header(temperature=WARM), bytes(2 * 48 * 64)
    wrong = [*message(header()), values], [*message(sent), values[:-1]], [*message(sent), values, b""]
    for parts in (message(sent), *wrong):
        with pytest.raises(Malformed):
            unpack(parts)
    good = json.loads(pack(sent))["temperature"]
    for change in (
        {"unit": "kelvin"},
        {"scale": 0},
        {"scale": 1e400},
        {"max": "hot"},
        {"max_at": [1]},
        {"min_at": [-1, 0]},
        {"min_at": 1},
        {"part": 1},
        {"more": 1},
    ):
        with pytest.raises(Malformed, match="temperature"):
            unpack([*message(sent, temperature=good | change), values])


def test_additional_keys_are_ignored() -> None:
    assert unpack(message(header(), camera={"name": "a"})) == header()


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
@pytest.mark.parametrize("colour", [True, False])
def test_pixels_round_trip(encoding: Encoding, size: tuple[int, int], colour: bool) -> None:
    smooth = np.linspace(0, 255, size[0] * size[1]).astype(np.uint8).reshape(size)
    frame = published(3, size=size, colour=colour, luma=smooth if encoding is Encoding.JPEG else noise(3, size))
    payload = encode(frame, encoding, 95)
    head = header(encoding, size, matrix=frame.chroma.matrix if encoding is Encoding.YUV420P and frame.chroma else None)
    assert unpack(message(head, payload)) == head
    luma, bgr = luma_of(head, payload), bgr_of(head, payload)
    assert luma.shape == size
    assert bgr.shape == (*size, 3)
    if encoding in (Encoding.MONO8, Encoding.YUV420P):
        assert np.array_equal(luma, frame.luma)
        assert np.array_equal(picture_of(head, payload)[0], frame.luma)
    expected = np.dstack([frame.luma] * 3) if encoding is Encoding.MONO8 else frame.to_bgr()
    error = np.abs(bgr.astype(int) - expected)
    assert error.mean() < (4 if encoding is Encoding.JPEG else 0.01)
    if encoding is not Encoding.MONO8 and size != (1, 1):
        assert (picture_of(head, payload)[1] is not None) == colour or encoding in (Encoding.BGR8, Encoding.JPEG)


def test_views_share_the_memory_of_the_message() -> None:
    frame = published(0)
    for encoding, view in ((Encoding.MONO8, luma_of), (Encoding.YUV420P, luma_of), (Encoding.BGR8, bgr_of)):
        payload = encode(frame, encoding)
        assert np.shares_memory(view(header(encoding), payload), np.frombuffer(payload, np.uint8))
    assert np.shares_memory(frame.luma, np.frombuffer(encode(frame, Encoding.MONO8), np.uint8))


def test_strided_luma_is_sent_correctly() -> None:
    wide = noise(0, (48, 128))
    frame = published(0, luma=wide[:, :64])
    assert np.array_equal(luma_of(header(), encode(frame, Encoding.MONO8)), wide[:, :64])


INVALID: list[dict[str, Any]] = [
    {"schema": 0}, {"schema": True}, {"run": "0123"}, {"run": 5}, {"seq": -1}, {"seq": 1.0}, {"seq": True},
    {"stream": "a/b"}, {"stream": ""}, {"stream": "front\n"}, {"stream": "x" * 65}, {"content": "cat"}, {"content": []},
    {"ir_stamp_ns": 2**63}, {"ir_stamp_ns": "5"}, {"vis_clock": "sundial"}, {"skew_ns": None},
    {"time_ns": float("nan")},
    {"published_ns": None}, {"age_ns": 0.5}, {"width": 0}, {"width": 65}, {"width": 10**6}, {"height": -48},
    {"height": None}, {"step": 65}, {"step": None}, {"encoding": "rgb8"}, {"encoding": None}, {"encoding": "bgr8"},
    {"matrix": "green"}, {"calibration": "../../etc"}, {"model": 7}, {"model": "x" * 10_000}, {"resent": None},
]  # fmt: skip


@pytest.mark.parametrize("change", INVALID, ids=str)
def test_header_with_an_invalid_value_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        unpack(message(header(), **change))


@pytest.mark.parametrize("name", sorted(asdict(header()).keys() - {"temperature", "alarms"}))
def test_header_without_a_key_is_refused(name: str) -> None:
    parts = message(header())
    values = json.loads(parts[1])
    del values[name]
    with pytest.raises(Malformed):
        unpack([parts[0], json.dumps(values).encode(), parts[2]])


def test_inconsistent_parts_are_refused() -> None:
    topic, text, payload = message(header())
    for parts in (
        [],
        [topic],
        [topic, text],
        [topic, text, payload, b""],
        [b"fused/other/", text, payload],
        [b"\xff\xfe", text, payload],
        [topic, text, payload[:-1]],
        [topic, text, payload + b"\0"],
        [topic, text, b""],
        [topic, b"", payload],
        [topic, b"{" + text, payload],
        [topic, b"[1]", payload],
        [topic, b"null", payload],
        [topic, b"\xff\xfe{}", payload],
        [topic, b"[" * 10_000, payload],
        [topic, b"9" * 10_000, payload],
        [topic, text + b" " * 20_000, payload],
    ):
        with pytest.raises(Malformed) as raised:
            unpack(parts)
        assert len(str(raised.value)) < 80
        assert "\n" not in str(raised.value)


def test_newer_schema_is_reported_as_such() -> None:
    with pytest.raises(NewerSchema, match="update streamfuse"):
        unpack(message(header(), schema=2))


def test_jpeg_must_be_complete_and_of_the_size_in_the_header() -> None:
    payload = bytes(encode(published(0), Encoding.JPEG))
    head = header(Encoding.JPEG)
    assert unpack(message(head, payload)) == head
    for bad in (
        payload[:-100],
        payload[2:],
        b"",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8" + b"\xff\xe0\0\0" * 50 + b"\xff\xd9",
    ):
        with pytest.raises(Malformed):
            unpack(message(head, bad))
    with pytest.raises(Malformed):  # a small file can ask a decoder for gigabytes
        unpack(message(replace(head, width=16_000, height=16_000), payload))


def test_undecodable_jpeg_is_one_clear_error() -> None:
    payload = bytes(encode(published(0), Encoding.JPEG))
    start = payload.index(b"\xff\xc0") + 19  # after the frame header: tables and picture data
    head, broken = header(Encoding.JPEG), payload[:start] + bytes(len(payload) - start - 2) + payload[-2:]
    assert unpack(message(head, broken)) == head
    for view in (luma_of, bgr_of, picture_of):
        with pytest.raises(InputError, match="frame 7 of front is not a valid JPEG"):
            view(head, memoryview(broken))


def test_exif_orientation_of_a_jpeg_is_ignored() -> None:
    payload = bytes(encode(published(0), Encoding.JPEG))
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = payload[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2) + exif + payload[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (64, 48, 3)  # type: ignore[union-attr]
    assert bgr_of(header(Encoding.JPEG), memoryview(turned)).shape == (48, 64, 3)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes_are_malformed(parts: list[bytes]) -> None:
    with pytest.raises(Malformed):
        unpack(parts)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(asdict(header()))), _JSON, min_size=1), st.sampled_from(list(Encoding)))
def test_random_header_values_are_refused_or_consistent(changes: dict[str, Any], encoding: Encoding) -> None:
    head = header(encoding)
    parts = message(head, bytes(3 * 48 * 64), **changes)
    try:
        found = unpack(parts)
    except Malformed:
        return
    assert luma_of(found, memoryview(parts[2])).shape == (found.height, found.width)
