"""Files of thermal cameras for tests, drawn: FLIR's container and JPEG, DJI's JPEG."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np
import numpy.typing as npt

from streamfuse.sources.thermal.planck import Planck
from streamfuse.temperature import Counts

Bgr = npt.NDArray[np.uint8]

PLANCK = Planck(17_000.0, 0.0125, 1440.0, 1.0, -2000.0, emissivity=0.9, distance_m=5.0, reflected_k=290.0, air_k=285.0)
"""Constants as those of real cameras."""


def counts_of(celsius: npt.NDArray[np.float64], planck: Planck = PLANCK) -> Counts:
    """Raw values that a camera with these constants delivers, by the law itself: object, reflection and air."""
    ta, e = planck.air_transmission(), planck.emissivity
    air, reflected = planck.signal(planck.air_k), planck.signal(planck.reflected_k)
    own = np.vectorize(planck.signal)(celsius + 273.15)
    received = ta * ta * (e * own + (1 - e) * reflected) + (1 - ta) * ta * air + (1 - ta) * air
    return cast(Counts, np.rint(received).astype(np.uint16))


def warm_spot(
    size: tuple[int, int] = (60, 80), row: int = 20, column: int = 30, celsius: float = 45.0
) -> npt.NDArray[np.float64]:
    """A room of 20 to 22 degC with a spot of 6x6 pixels whose centre is at (row + 0.5, column + 0.5)."""
    picture = np.linspace(20, 22, size[0] * size[1]).reshape(size)
    picture[row - 2 : row + 4, column - 2 : column + 4] = celsius
    return picture


@dataclass
class Container:
    """An FFF container; the fields that are None have no record."""

    raw: Counts
    planck: Planck | None = PLANCK
    visible: Bgr | None = None
    geometry: tuple[float, int, int] | None = None
    """Real2IR, OffsetX, OffsetY."""
    order: str = "<"
    form: str = "bytes"
    """png: as FLIR writes it, in the wrong order of bytes."""
    visible_form: str = ".jpg"
    camera: str = "FLIR drawn"
    zoom: float = 1.0
    stamp_ms: int = 1_600_000_000_000
    more: dict[int, bytes] = field(default_factory=dict)

    def records(self) -> dict[int, bytes]:
        o, (height, width) = self.order, self.raw.shape
        head = struct.pack(f"{o}HHH", 2, width, height).ljust(32, b"\0")
        if self.form == "png":
            found = {0x01: head + cv2.imencode(".png", self.raw.byteswap())[1].tobytes()}
        else:
            found = {0x01: head + self.raw.astype(f"{o}u2").tobytes()}
        if self.planck is not None:
            found[0x20] = self._camera(self.planck)
        if self.visible is not None:
            size = struct.pack(f"{o}HHH", 3, self.visible.shape[1], self.visible.shape[0])
            picture = self.visible
            if self.visible_form == ".png":  # Y, Cb, Cr
                picture = np.ascontiguousarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YCrCb)[:, :, (1, 2, 0)])
            found[0x0E] = size.ljust(32, b"\0") + cv2.imencode(self.visible_form, picture)[1].tobytes()
        if self.geometry is not None:
            ratio, x, y = self.geometry
            found[0x2A] = struct.pack("<fhh", ratio * self.zoom, x, y).ljust(64, b"\0")
        return found | self.more

    def _camera(self, p: Planck) -> bytes:
        o, record = self.order, bytearray(0x500)
        struct.pack_into(f"{o}H", record, 0, 2)
        values = (p.emissivity, p.distance_m, p.reflected_k, p.air_k, p.window_k, p.window_transmission)
        struct.pack_into(f"{o}6f", record, 0x20, *values)
        struct.pack_into(f"{o}f", record, 0x3C, p.humidity)
        struct.pack_into(f"{o}3f", record, 0x58, p.r1, p.b, p.f)
        struct.pack_into(f"{o}5f", record, 0x70, *p.air)
        struct.pack_into(f"{o}f", record, 0x90, p.max_c + 273.15)
        record[0x170:0x175] = b"FOL18"
        struct.pack_into(f"{o}f", record, 0x1B4, 25.0)
        record[0xD4 : 0xD4 + len(self.camera)] = self.camera.encode()
        struct.pack_into(f"{o}if", record, 0x308, round(p.o), p.r2)
        struct.pack_into(f"{o}f", record, 0x36C, self.zoom)
        struct.pack_into(f"{o}II", record, 0x384, *divmod(self.stamp_ms, 1000))
        struct.pack_into(f"{o}H", record, 0x464, 30)
        return bytes(record)

    def fff(self) -> bytes:
        records, o = self.records(), self.order
        at = 64 + 32 * len(records)
        directory, body = b"", b""
        for kind, data in records.items():
            directory += struct.pack(f"{o}HHIIII", kind, 1, 100, 1, at + len(body), len(data)).ljust(32, b"\0")
            body += data
        head = b"FFF\0" + b"drawn".ljust(16, b"\0") + struct.pack(f"{o}III", 100, 64, len(records))
        return head.ljust(64, b"\0") + directory + body

    def jpeg(self) -> bytes:
        """The container in the segments of a JPEG, in reverse order, as only their numbers count."""
        data, room = self.fff(), 60_000
        parts = [data[at : at + room] for at in range(0, len(data), room)]
        segments = [
            _segment(0xE1, b"FLIR\0\x01" + bytes((number, len(parts) - 1)) + part) for number, part in enumerate(parts)
        ]
        return _with_segments(segments[::-1])

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.jpeg() if path.suffix.lower() in (".jpg", ".jpeg") else self.fff())
        return path


def dji_jpeg(raw: Counts) -> bytes:
    """A JPEG as DJI's cameras write it; `raw`: (512, 640)."""
    data = raw.astype("<u2").tobytes()
    parts = [_segment(0xE3, data[at : at + 65_532]) for at in range(0, len(data), 65_532)]
    entries = struct.pack("<HHHI4sHHII", 2, 0x010F, 2, 4, b"DJI\0", 0x0110, 2, 5, 38)  # make and model
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + bytes(4) + b"M30T\0"
    return _with_segments([_segment(0xE1, exif), *parts])


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _with_segments(segments: list[bytes]) -> bytes:
    """A small grey picture, which nobody should take for the infrared one, with segments."""
    picture = cv2.imencode(".jpg", np.full((24, 32), 128, np.uint8))[1].tobytes()
    return picture[:2] + b"".join(segments) + picture[2:]


def write_recording(path: Path, count: int = 3, step_ms: int = 40) -> Path:
    """Write a SEQ file with a gap between its pictures, as some programs leave it."""
    parts = [
        Container(counts_of(warm_spot(celsius=40 + k)), stamp_ms=1_600_000_000_000 + k * step_ms).fff()
        for k in range(count)
    ]
    path.write_bytes(b"junk".join(parts))
    return path


def infiray_frame(celsius: npt.NDArray[np.float64], extra: str = "") -> Counts:
    """A frame of 16 bits a pixel as InfiRay's cameras send it: grey of their own above, K * 64 below.

    `extra`: "below" or "between", where two rows of other data are.
    """
    values = np.rint((celsius + 273.15) * 64).astype(np.uint16)
    grey = np.full(values.shape, 0x8000 | 200, np.uint16)  # Y 200, chroma 128
    rows = np.random.default_rng(0).integers(0, 65_536, (2, values.shape[1])).astype(np.uint16)
    parts = {"": (grey, values), "below": (grey, values, rows), "between": (grey, rows, values)}[extra]
    return np.concatenate(parts)


def write_infiray(path: Path, frames: list[npt.NDArray[np.float64]], *, rate: int = 25) -> Path:
    """Write frames as uncompressed YUYV: a stand-in for the camera, byte by byte what its driver delivers."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("rawvideo", rate=rate)
        first = infiray_frame(frames[0])
        stream.height, stream.width, stream.pix_fmt = *first.shape, "yuyv422"
        for index, celsius in enumerate(frames):
            made = av.VideoFrame(first.shape[1], first.shape[0], "yuyv422")
            plane = made.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(first.shape[0], plane.line_size)
            rows[:, : 2 * first.shape[1]] = infiray_frame(celsius).astype("<u2").view(np.uint8)
            made.pts = index
            output.mux(stream.encode(made))
        output.mux(stream.encode(None))
    return path


def lepton_frame(
    celsius: npt.NDArray[np.float64], *, above: bool = False, ffc: bool = False, step_k: float | None = 0.01
) -> Counts:
    """A Y16 frame of a Lepton 3 (120x160) or 2 (60x80) with telemetry."""
    values = np.rint((celsius + 273.15) / (step_k or 0.01)).astype(np.uint16)
    width = values.shape[1]
    words = np.zeros({160: 320, 80: 240}[width], np.uint16)
    words[0], words[3], words[24] = 0x0E0D, 0x20 if ffc else 0x30, 301_00
    words[208], words[209] = step_k is not None, step_k == 0.01
    rows = words.reshape(-1, width)
    return np.concatenate((rows, values) if above else (values, rows))


def write_y16(path: Path, frames: list[Counts], *, rate: int = 25) -> Path:
    """Write frames of 16 bits a pixel, lossless."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames[0].shape
        stream.pix_fmt = "gray16le"
        for index, frame in enumerate(frames):
            made = av.VideoFrame.from_ndarray(frame, format="gray16le")
            made.pts = index
            output.mux(stream.encode(made))
        output.mux(stream.encode(None))
    return path
