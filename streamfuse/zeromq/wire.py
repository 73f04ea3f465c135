"""The message of a published frame: its format, packing and validation, without sockets.

A message has three parts: the topic `fused/<stream>/`, a JSON object that describes the frame, and its pixels; where
asked for, a fourth has the temperatures.  Received messages are untrusted: everything is validated before it is used.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

from streamfuse.color import Matrix
from streamfuse.frames import Clock, Content
from streamfuse.sources.image_header import jpeg_shape
from streamfuse.sources.limits import MAX_PIXELS

CELSIUS = "celsius"
SCHEMA = 1
"""Version of the format, raised by incompatible changes; additional keys do not change it."""
PREFIX = b"fused/"
PARTS = 3
"""Parts of a message; one more with temperatures."""
MAX_HEADER_BYTES = 16_384
"""Size limit of a header; real ones have under 1,000 bytes."""
MAX_SIDE = 16_384
MAX_ALARMS, MAX_ALARM = 32, 100
"""Most alarms in a header, and most characters of each."""
STREAM = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
"""Valid name of a stream."""
STREAM_RULE = "use 1 to 64 letters, digits, points, - and _"

Buffer: TypeAlias = bytes | memoryview


class Malformed(ValueError):
    """A received message is invalid; the text gives the reason and quotes nothing from the message."""


class NewerSchema(Malformed):
    """A received message has a newer schema than this program."""


class Encoding(enum.StrEnum):
    """Pixel format of the payload, named as in ROS's sensor_msgs where it has the format."""

    MONO8 = "mono8"
    """Luma, row by row; lossless."""
    BGR8 = "bgr8"
    """Blue, green and red of each pixel, row by row."""
    YUV420P = "yuv420p"
    """Luma, lossless, then Cb and Cr of half the width and height (rounded up); all full range (0..255)."""
    JPEG = "jpeg"
    """A complete JPEG file, grey or in colour."""


def topic_of(stream: str) -> bytes:
    """Topic of a stream; the final slash keeps `front` from matching `front2`, as subscriptions match prefixes."""
    return PREFIX + stream.encode() + b"/"


def step_of(encoding: Encoding, width: int) -> int | None:
    """Bytes per row, of luma for yuv420p; None for jpeg, which has no rows."""
    return {Encoding.MONO8: width, Encoding.YUV420P: width, Encoding.BGR8: 3 * width, Encoding.JPEG: None}[encoding]


def chroma_shape(height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of each chroma plane of yuv420p."""
    return -(-height // 2), -(-width // 2)


def payload_bytes(encoding: Encoding, height: int, width: int) -> int:
    """Size of the payload in bytes; not for jpeg."""
    step = step_of(encoding, width)
    assert step is not None
    rows, columns = chroma_shape(height, width) if encoding is Encoding.YUV420P else (0, 0)
    return step * height + 2 * rows * columns


@dataclass(frozen=True, slots=True, kw_only=True)
class TemperatureHeader:
    """Description of a frame's temperatures: degC = value * scale + offset; 0 is no value, 65,535 above the scale."""

    unit: str = CELSIUS
    scale: float
    """degC for each step of the values."""
    offset: float
    """degC at the value 0."""
    min: float | None
    """degC; None, like the following, where no pixel has a value."""
    mean: float | None
    max: float | None
    min_at: tuple[int, int] | None
    """(x, y) of the coldest pixel."""
    max_at: tuple[int, int] | None
    """(x, y) of the hottest pixel."""
    part: bool
    """The message has a fourth part: the values, uint16 little-endian, row by row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Description of a frame in a message; None where a value is unknown."""

    schema: int = SCHEMA
    run: str
    """Identity of the publisher's run: sixteen hexadecimal digits, new at every start."""
    seq: int
    """Sequence number from 0, raised by one for every frame given to the publisher."""
    stream: str
    content: Content
    ir_stamp_ns: int | None
    """Capture time, ns of `ir_clock`; None where the picture has no infrared part."""
    vis_stamp_ns: int | None
    ir_clock: Clock | None
    vis_clock: Clock | None
    skew_ns: int
    """Infrared minus visible time, ns."""
    time_ns: int
    """Time on the time line of the run, ns."""
    published_ns: int
    """Time of publishing, ns since 1970 by the publisher's clock."""
    age_ns: int | None
    """Time from the arrival of the pair's earlier frame to `published_ns`, ns."""
    width: int
    height: int
    step: int | None
    """Bytes per row, of luma for yuv420p; None for jpeg."""
    encoding: Encoding
    matrix: Matrix | None
    """Colour matrix of the Cb and Cr of yuv420p; None for other encodings and grey pictures."""
    calibration: str | None
    """Identity of the calibration, twelve hexadecimal digits."""
    model: str | None
    """SHA-256 of the network's weights, hexadecimal."""
    resent: bool = False
    """True for a frame sent again for a new subscriber; others may have received it already."""
    temperature: TemperatureHeader | None = None
    """None where the frame has no temperatures."""
    alarms: tuple[str, ...] = ()
    """Alarms that are active, in their own words."""


_NAMES = tuple(field.name for field in fields(Header))


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def pack(header: Header) -> bytes:
    """Encode a header as JSON."""
    values = {name: getattr(header, name) for name in _NAMES}
    if header.temperature is not None:
        values["temperature"] = asdict(header.temperature)
    return _ENCODER.encode(values).encode()


def unpack(parts: Sequence[Buffer], max_pixels: int = MAX_PIXELS) -> Header:
    """Decode and validate a message; return its header.

    Raises Malformed for any other message, and for a JPEG of more than `max_pixels` pixels.
    """
    if len(parts) not in (PARTS, PARTS + 1):
        raise Malformed(f"{len(parts)} parts instead of {PARTS}, or {PARTS + 1} with temperatures")
    topic, text, payload = parts[:PARTS]
    if len(text) > MAX_HEADER_BYTES:
        raise Malformed(f"the header has {len(text)} bytes")
    try:
        values = json.loads(bytes(text).decode())
    except (ValueError, RecursionError):
        raise Malformed("the header is not JSON") from None
    if not isinstance(values, dict):
        raise Malformed("the header is not a JSON object")
    schema = values.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise NewerSchema(f"it has schema {min(schema, 10**6)} and this program reads {SCHEMA}: update streamfuse")
    header = Header(**_checked(values))
    if bytes(topic) != topic_of(header.stream):
        raise Malformed("the topic is not that of the stream")
    if header.step != step_of(header.encoding, header.width):
        raise Malformed("the step does not fit the width")
    _check_payload(header, memoryview(payload), max_pixels)
    announced = header.temperature is not None and header.temperature.part
    if announced is not (len(parts) > PARTS):
        raise Malformed("the header and the parts disagree on whether temperatures follow")
    if announced and memoryview(parts[PARTS]).nbytes != 2 * header.width * header.height:
        raise Malformed("the temperatures do not fit the size of the picture")
    return header


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, rule in _RULES.items():
        if name not in values:
            if name in _LATER:
                continue
            raise Malformed(f"the header has no {name}")
        try:
            checked[name] = rule(values[name])
        except (ValueError, TypeError):
            raise Malformed(f"the header's {name} is invalid") from None
    return checked


def _check_payload(header: Header, payload: memoryview, max_pixels: int) -> None:
    if header.encoding is not Encoding.JPEG:
        wanted = payload_bytes(header.encoding, header.height, header.width)
        if payload.nbytes != wanted:
            raise Malformed(f"{payload.nbytes} bytes of pixels instead of {wanted}")
    elif bytes(payload[:2]) != b"\xff\xd8" or bytes(payload[-2:]) != b"\xff\xd9":
        raise Malformed("the JPEG is incomplete")
    elif jpeg_shape(payload) != (header.height, header.width):  # a decoder allocates memory for the JPEG's own size
        raise Malformed("the size of the JPEG is not that of the header")
    elif header.width * header.height > max_pixels:
        raise Malformed("the JPEG has more pixels than --max-pixels allows")


# Validation rules: a rule returns the value, or raises ValueError or TypeError.

_Rule: TypeAlias = Callable[[Any], Any]


def _integer(low: int, high: int) -> _Rule:
    def rule(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return rule


def _text(pattern: str | re.Pattern[str]) -> _Rule:
    matches = re.compile(pattern).fullmatch

    def rule(value: Any) -> Any:
        if matches(value) is None:
            raise ValueError
        return value

    return rule


def _one_of(kinds: type[enum.StrEnum]) -> _Rule:
    members = {str(kind): kind for kind in kinds}

    def rule(value: Any) -> Any:
        if value not in members:
            raise ValueError
        return members[value]

    return rule


def _or_null(rule: _Rule) -> _Rule:
    return lambda value: None if value is None else rule(value)


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e6:
        raise ValueError
    return float(value)


def _step(value: Any) -> float:
    if not _number(value) > 0:
        raise ValueError
    return float(value)


def _unit(value: Any) -> str:
    if value != CELSIUS:
        raise ValueError
    return CELSIUS


def _place(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError
    x, y = map(_integer(0, MAX_SIDE - 1), value)
    return x, y


def _temperature(value: Any) -> TemperatureHeader:
    if not isinstance(value, dict) or value.keys() != _TEMPERATURE.keys():
        raise ValueError
    return TemperatureHeader(**{name: rule(value[name]) for name, rule in _TEMPERATURE.items()})


def _alarms(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ALARMS:
        raise ValueError
    if not all(isinstance(text, str) and text.isprintable() and len(text) <= MAX_ALARM for text in value):
        raise ValueError
    return tuple(value)


_TEMPERATURE: dict[str, _Rule] = {
    "unit": _unit,
    "scale": _step,
    "offset": _number,
    **dict.fromkeys(("min", "mean", "max"), _or_null(_number)),
    **dict.fromkeys(("min_at", "max_at"), _or_null(_place)),
    "part": _boolean,
}
_NS = _integer(-(2**63), 2**63 - 1)
_SIDE = _integer(1, MAX_SIDE)
_RULES: dict[str, _Rule] = {
    "schema": _integer(1, SCHEMA),
    "run": _text(r"[0-9a-f]{16}"),
    "seq": _integer(0, 2**63 - 1),
    "stream": _text(STREAM),
    "content": _one_of(Content),
    **dict.fromkeys(("ir_stamp_ns", "vis_stamp_ns", "age_ns"), _or_null(_NS)),
    **dict.fromkeys(("ir_clock", "vis_clock"), _or_null(_one_of(Clock))),
    **dict.fromkeys(("skew_ns", "time_ns", "published_ns"), _NS),
    **dict.fromkeys(("width", "height"), _SIDE),
    "step": _or_null(_integer(1, 3 * MAX_SIDE)),
    "encoding": _one_of(Encoding),
    "matrix": _or_null(_one_of(Matrix)),
    **dict.fromkeys(("calibration", "model"), _or_null(_text(r"[0-9a-f]{1,64}"))),
    "resent": _boolean,
    "temperature": _or_null(_temperature),
    "alarms": _alarms,
}
_LATER = frozenset({"temperature", "alarms"})
"""Keys that were added to the schema later: older publishers do not send them."""
