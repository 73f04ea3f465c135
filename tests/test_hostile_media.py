"""Media that claim huge pictures are refused before memory is allocated."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from media import PassThrough, every, write_images, write_video
from streams import camera_server

from streamfuse.cli.fuse import command as fuse
from streamfuse.errors import InputError
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sources import open_pair
from streamfuse.sources.address import parse_address
from streamfuse.sources.connection import Connection, Lost
from streamfuse.sources.decode import decode_image
from streamfuse.sources.file import CORRUPT, VideoFile
from streamfuse.sources.image_header import image_shape
from streamfuse.sources.options import SourceOptions
from streamfuse.sources.pixels import read_image_file
from streamfuse.sources.vot import open_vot

KINDS = (".png", ".jpg", ".tif", ".bmp", ".pgm", ".ppm", ".webp", ".jp2")


def png_bomb(side: int = 100_000) -> bytes:
    """A valid PNG of a few hundred bytes whose header claims `side` x `side` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _tiff_bomb() -> bytes:
    tags = [(256, 100_000), (257, 100_000), (258, 8), (259, 1), (262, 1), (273, 8), (278, 100_000), (279, 1000)]
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)


BOMBS: dict[str, bytes] = {
    "png": png_bomb(),
    "jpg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9",
    "tif": _tiff_bomb(),
    "bmp": b"BM" + struct.pack("<IIIIiiHH", 100, 0, 54, 40, 100_000, -100_000, 1, 8) + bytes(60),
    "pgm": b"P5 # large\n100000\n# very\n100000 255\n" + bytes(100),
    "webp": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
    "jp2": b"\xff\x4f\xff\x51\0\x2f\0\0" + struct.pack(">IIII", 100_000, 100_000, 0, 0) + bytes(40),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_image_that_claims_too_many_pixels_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(BOMBS[kind])
    with pytest.raises(InputError, match=r"bomb.* claims \d+x\d+ pixels.*--max-pixels"):
        read_image_file(path)


@pytest.mark.parametrize("suffix", KINDS)
@pytest.mark.parametrize("size", [(48, 64), (35, 33), (300, 517)])
def test_size_of_an_image_is_known_before_decoding(suffix: str, size: tuple[int, int]) -> None:
    picture = np.full((*size, 3) if suffix != ".pgm" else size, 90, np.uint8)
    data = cv2.imencode(suffix, picture)[1].tobytes()
    assert image_shape(data) == size
    assert decode_image(data, "a") is not None
    with pytest.raises(InputError):
        decode_image(data, "a", size[0] * size[1] - 1)


def test_lossless_webp_and_big_endian_tiff() -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    assert image_shape(cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()) == (48, 64)
    assert image_shape(cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()) == (48, 64)
    big_endian = struct.pack(">2sHIH", b"MM", 42, 8, 2) + struct.pack(">HHIHHHHIHH", 256, 3, 1, 64, 0, 257, 3, 1, 48, 0)
    assert image_shape(big_endian) == (48, 64)


@given(st.binary(max_size=300), st.sampled_from(sorted(BOMBS)), st.integers(0, 40), st.booleans())
def test_headers_of_any_bytes_give_a_size_or_none(noise: bytes, kind: str, keep: int, real: bool) -> None:
    beginning = BOMBS[kind][:keep] if real else b""
    shape = image_shape(beginning + noise)
    assert shape is None or len(shape) == 2
    try:
        picture = decode_image(beginning + noise, "a", 1 << 16)
    except InputError:
        return
    assert picture is None or picture.size <= 4 << 16


@pytest.mark.parametrize(
    "data", [b"P5" + b" " * 28 + b"x", b"\xff\xd8" + b"\xff" * (4 << 20)], ids=["blanks", "filling"]
)
def test_header_takes_time_proportional_to_its_length(data: bytes) -> None:
    """A backtracking parser would need a minute for 28 blanks, and twice that for each further one."""
    began = time.process_time()
    assert image_shape(data) is None
    assert time.process_time() - began < 1


CHILD = """
import resource, sys
sys.path.insert(0, {tests!r})
import cv2, av
from pathlib import Path
from streamfuse.errors import InputError
from streamfuse.sources.file import VideoFile
from streamfuse.sources.pixels import read_image_file
path = Path({path!r})
av.open(str({small!r})).close()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    VideoFile(path) if path.suffix in (".avi", ".mp4") else read_image_file(path)
    sys.exit("not refused")
except InputError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def _video_bomb(path: Path) -> Path:
    """A real MJPEG recording whose headers claim 12,000x12,000: FFmpeg would allocate 216 MB for each frame."""
    data = bytearray(write_video(path, every(40, 3), codec="mjpeg", pixel_format="yuvj420p").read_bytes())
    for small, large in (
        (struct.pack(">BHBHH", 0xC0, 17, 8, 48, 64), struct.pack(">BHBHH", 0xC0, 17, 8, 12_000, 12_000)),  # JPEG
        (struct.pack("<II", 64, 48), struct.pack("<II", 12_000, 12_000)),  # AVI
        (struct.pack(">HHI", 64, 48, 0x480000), struct.pack(">HHI", 12_000, 12_000, 0x480000)),  # MP4's sample entry
    ):
        data = data.replace(small, large)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.avi", "a.mp4"])
def test_refused_media_allocate_nothing(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.png":
        path.write_bytes(png_bomb(20_000))  # OpenCV itself would take 400 MB
    else:
        _video_bomb(path)
    small = write_video(tmp_path / "small.mp4", every(40, 2))
    code = CHILD.format(tests=str(Path(__file__).parent), path=str(path), small=str(small))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said, kilobytes = done.stdout.splitlines()
    assert "--max-pixels" in said
    assert int(kilobytes) < 20_000


def test_video_at_the_limit_is_read_and_above_it_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", every(40, 3))
    with VideoFile(path, SourceOptions(max_pixels=64 * 48)) as source:
        assert len(list(source)) == 3
    with pytest.raises(InputError, match="claims 64x48 pixels"):
        VideoFile(path, SourceOptions(max_pixels=64 * 48 - 1))


def test_picture_larger_than_the_header_says_is_not_decoded(tmp_path: Path) -> None:
    """A stream of small pictures followed by a valid large one."""
    parts = [
        write_video(tmp_path / f"{size[0]}.mkv", every(40, 3), size=size, codec="mjpeg", pixel_format="yuvj420p")
        for size in ((48, 64), (480, 640))
    ]
    path = tmp_path / "grows.mkv"
    with av.open(str(path), "w") as output, av.open(str(parts[0])) as small, av.open(str(parts[1])) as large:
        stream = output.add_stream_from_template(small.streams.video[0])
        for part, count in ((small, 2), (large, 1)):
            for packet in islice(part.demux(video=0), count):
                packet.pts = packet.dts = (packet.pts or 0) + (1000 if part is large else 0)
                packet.stream = stream
                output.mux(packet)
    for limit, sizes, lost in ((1_000_000, [(48, 64), (48, 64), (480, 640)], 0), (100_000, [(48, 64), (48, 64)], 1)):
        with VideoFile(path, SourceOptions(max_pixels=limit)) as source:
            assert [frame.luma.shape for frame in source] == sizes
        assert source.drops[CORRUPT] == lost


def test_sequence_ends_with_the_reason(tmp_path: Path) -> None:
    """Also as the second image: what came before has been fused."""
    for channel in ("ir", "color"):
        write_images(tmp_path / channel, ["1.png", "2.png", "3.png"])
    (tmp_path / "ir/2.png").write_bytes(png_bomb())
    for sources in (open_vot(tmp_path), open_pair(str(tmp_path / "ir"), str(tmp_path / "color"))):
        pipeline = Pipeline(*sources, fuser=Fuser(engine=PassThrough(), tone="per-frame"))
        with pytest.raises(InputError, match=r"2\.png claims 100000x100000 pixels"):
            pipeline.run()


def test_live_stream_above_the_limit_is_refused() -> None:
    with camera_server() as port:
        address = parse_address(f"http://127.0.0.1:{port}/cam")
        assert address is not None
        with pytest.raises(Lost, match="claims 64x48 pixels") as raised:
            Connection(address, SourceOptions(max_pixels=1000))
    assert raised.value.hopeless


def test_option_changes_the_limit_for_its_command_only(tmp_path: Path) -> None:
    pair = [str(write_images(tmp_path / role, ["1.png"]) / "1.png") for role in ("ir", "vis")]
    done = CliRunner().invoke(fuse, [*pair, "-o", str(tmp_path / "f.png"), "--max-pixels", "3000"])
    assert isinstance(done.exception, InputError)
    assert "claims 64x48 pixels, and more than 3,000 are refused" in str(done.exception)


def test_ffmpeg_applies_the_limit_to_later_pictures() -> None:
    """The limit for later pictures depends on this."""
    context = av.CodecContext.create("mjpeg", "r")
    context.options = {"max_pixels": "100"}
    context.width, context.height = 64, 48
    with pytest.raises(av.error.ArgumentError):
        context.open()


def test_png_whose_chunk_claims_gigabytes_takes_no_time() -> None:
    """OpenCV alone takes seconds."""
    data = cv2.imencode(".png", np.zeros((48, 64), np.uint8))[1].tobytes()
    at = data.index(b"IDAT") - 4
    assert decode_image(data, "a.png") is not None
    began = time.process_time()
    assert decode_image(data[:at] + b"\x7f\xff\xff\xff" + data[at + 4 :], "a.png") is None
    assert decode_image(data[:-14], "a.png") is None
    assert time.process_time() - began < 0.2


def test_header_that_points_beyond_any_file() -> None:
    assert image_shape(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 1 << 63)) is None
    assert image_shape(b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I4sQ", 1, b"x", (1 << 64) - 1)) is None
