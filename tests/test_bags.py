"""Bags give the same frames and stamps as the same pictures in a directory, whole or cut off."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import bags
import cv2
import mcap.writer
import numpy as np
import numpy.typing as npt
import pytest
from bags import CONTAINERS, EPOCH_NS, PERIOD_NS, Sent, compressed, image
from hypothesis import given, settings
from hypothesis import strategies as st
from media import luma_of

from streamfuse.color import Chroma
from streamfuse.errors import InputError, UsageError
from streamfuse.frames import Frame
from streamfuse.sources import open_pair, open_source
from streamfuse.sources.bags.bag import Bag
from streamfuse.sources.base import Source
from streamfuse.sources.sequence import ImageSequence

COUNT = 12
SIZE = (24, 32)


def thermal(index: int) -> npt.NDArray[np.uint16]:
    """A 16-bit picture: noise on a ramp, and a warm spot that moves through it again and again."""
    rng = np.random.default_rng(index)
    picture = 7400 + 4 * np.arange(SIZE[1]) + rng.integers(0, 30, SIZE)
    column = 2 * index % 26
    picture[4:9, column : column + 5] += 900
    return picture.astype(np.uint16)


def colour(index: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(100 + index)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def walk(count: int = COUNT) -> list[Sent]:
    sent: list[Sent] = []
    for k in range(count):
        sent.append(image("/boson/image_raw", thermal(k), "mono16", k))
        sent.append(compressed("/eo/image/compressed", colour(k), "jpeg", k))
    return sent


def in_directory(directory: Path, pictures: list[npt.NDArray[Any]], suffix: str = ".png") -> ImageSequence:
    """The same pictures as files, with the stamps of the headers."""
    directory.mkdir()
    images = []
    for k, pixels in enumerate(pictures):
        images.append((directory / f"{k:03d}{suffix}", k * PERIOD_NS))
        assert cv2.imwrite(str(images[-1][0]), pixels)
    return ImageSequence(str(directory), images, PERIOD_NS)


def same(found: list[Frame], expected: list[Frame]) -> None:
    assert [frame.stamp_ns for frame in found] == [frame.stamp_ns for frame in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.luma, other.luma)
        assert (one.chroma is None) is (other.chroma is None)
        if one.chroma is not None and other.chroma is not None:
            np.testing.assert_array_equal(one.chroma.u, other.chroma.u)
            np.testing.assert_array_equal(one.chroma.v, other.chroma.v)
            assert one.chroma.full_range is other.chroma.full_range


def read(source: Source) -> list[Frame]:
    with source:
        return list(source)


def topic(path: Path, name: str) -> str:
    return f"{path}?topic={name}"


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_bag_is_read_as_the_same_pictures_in_a_directory(kind: str, tmp_path: Path) -> None:
    path = CONTAINERS[kind](tmp_path, walk())
    ir, vis = open_pair(topic(path, "/boson/image_raw"), topic(path, "/eo/image/compressed"))
    assert ir.epoch_ns == vis.epoch_ns == EPOCH_NS
    assert ir.period_ns == vis.period_ns == PERIOD_NS
    assert ir.size == vis.size == SIZE
    assert ir.frame_count in (COUNT, None)
    assert (ir.frame_count is None) is (kind in ("mcap-without-index", "mcap-without-end"))
    same(read(ir), read(in_directory(tmp_path / "ir", [thermal(k) for k in range(COUNT)])))
    same(read(vis), read(in_directory(tmp_path / "vis", [colour(k) for k in range(COUNT)], ".jpeg")))
    assert not ir.drops
    assert (ir.damage is None) is (kind != "mcap-without-end")


def test_topics_of_two_bags_share_a_time_line(tmp_path: Path) -> None:
    for name in ("ir", "vis"):
        (tmp_path / name).mkdir()
    ir = CONTAINERS["ros1"](tmp_path / "ir", [image("/ir", thermal(k), "mono16", k) for k in (5, 6)])
    vis = CONTAINERS["sqlite"](tmp_path / "vis", [compressed("/vis", colour(k), "png", k) for k in (3, 5, 6)])
    first, second = open_pair(str(ir), topic(vis, "/vis"))
    assert first.epoch_ns == second.epoch_ns == EPOCH_NS + 3 * PERIOD_NS
    assert (first.first_stamp_ns, second.first_stamp_ns) == (2 * PERIOD_NS, 0)
    assert [frame.stamp_ns for frame in read(first)] == [2 * PERIOD_NS, 3 * PERIOD_NS]
    assert [frame.stamp_ns for frame in read(second)] == [0, 2 * PERIOD_NS, 3 * PERIOD_NS]


def mosaic(bgr: npt.NDArray[np.uint8], first: str) -> npt.NDArray[np.uint8]:
    """A picture as a sensor sees it through colour filters; `first`: the four of the first two rows, such as rggb."""
    out = np.empty(bgr.shape[:2], np.uint8)
    for at, letter in enumerate(first):
        out[at // 2 :: 2, at % 2 :: 2] = bgr[at // 2 :: 2, at % 2 :: 2, "bgr".index(letter)]
    return out


def deep(k: int) -> npt.NDArray[np.uint16]:
    return colour(k).astype(np.uint16) * 256 + 77


def kelvin(k: int) -> npt.NDArray[np.float32]:
    return (thermal(k) * np.float32(0.04)).astype(np.float32)


ENCODINGS: dict[str, tuple[Any, Any]] = {
    "mono8": (luma_of, luma_of),
    "8UC1": (luma_of, luma_of),
    "mono16": (thermal, thermal),
    "16UC1": (thermal, thermal),
    "16SC1": (lambda k: thermal(k).astype(np.int16), lambda k: thermal(k) + np.uint16(32768)),
    "32FC1": (kelvin, lambda k: np.rint(kelvin(k) * 100.0).astype(np.uint16)),
    "bgr8": (colour, colour),
    "rgb8": (lambda k: colour(k)[..., ::-1], colour),
    "bgra8": (lambda k: cv2.cvtColor(colour(k), cv2.COLOR_BGR2BGRA), colour),
    "rgba8": (lambda k: cv2.cvtColor(colour(k), cv2.COLOR_BGR2RGBA), colour),
    "8UC3": (colour, colour),
    "bgr16": (deep, deep),
    "rgb16": (lambda k: deep(k)[..., ::-1], deep),
}
"""Encoding: the pixels in the message, and those of the same picture in a file."""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_is_read_as_the_same_picture_in_a_file(encoding: str, tmp_path: Path) -> None:
    sent, filed = ENCODINGS[encoding]
    path = CONTAINERS["mcap"](tmp_path, [image("/a", sent(k), encoding, k) for k in range(3)])
    same(read(open_source(str(path))), read(in_directory(tmp_path / "files", [filed(k) for k in range(3)])))


@pytest.mark.parametrize("encoding", ["mono16", "32FC1"])
def test_values_of_the_other_byte_order_are_swapped(encoding: str, tmp_path: Path) -> None:
    sent, filed = ENCODINGS[encoding]
    swapped = [image("/a", sent(k).byteswap(), encoding, k, is_bigendian=1) for k in range(3)]
    path = CONTAINERS["ros1"](tmp_path, swapped)
    same(read(open_source(str(path))), read(in_directory(tmp_path / "files", [filed(k) for k in range(3)])))


@pytest.mark.parametrize("first", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_mosaics_become_colour(first: str, bits: int, tmp_path: Path) -> None:
    bgr = np.full((24, 32, 3), (200, 120, 40), np.uint8)
    pixels = mosaic(bgr, first) if bits == 8 else mosaic(bgr, first).astype(np.uint16) * 256
    path = CONTAINERS["sqlite"](tmp_path, [image("/a", pixels, f"bayer_{first}{bits}")])
    (frame,) = read(open_source(str(path)))
    (expected,) = read(in_directory(tmp_path / "files", [bgr]))
    same([frame], [expected])


def planes(k: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Y, Cb and Cr of a picture, limited range, full size."""
    rng = np.random.default_rng(k)
    y, cb, cr = (rng.integers(16, 236, SIZE, np.uint8) for _ in range(3))
    return y, cb, cr


def packed(k: int, order: str) -> npt.NDArray[np.uint8]:
    y, cb, cr = planes(k)
    out = np.empty((SIZE[0], SIZE[1] * 2), np.uint8)
    for at, letter in enumerate(order):
        out[:, at::4] = {"y": y[:, (at // 2) :: 2], "u": cb[:, ::2], "v": cr[:, ::2]}[letter]
    return out


def biplanar(k: int, kind: str) -> npt.NDArray[np.uint8]:
    """The plane of luma, and below it the pairs of chroma; for nv24 these have twice the width."""
    y, cb, cr = planes(k)
    down = 1 if kind == "nv24" else 2
    first, second = (cr, cb) if kind == "nv21" else (cb, cr)
    pairs = np.stack([first[::down, ::down], second[::down, ::down]], axis=-1)
    return np.vstack([y, pairs.reshape(-1, SIZE[1])])


YUV: dict[str, tuple[Any, int]] = {
    "yuv422": (lambda k: packed(k, "uyvy"), 1),
    "uyvy": (lambda k: packed(k, "uyvy"), 1),
    "yuv422_yuy2": (lambda k: packed(k, "yuyv"), 1),
    "yuyv": (lambda k: packed(k, "yuyv"), 1),
    "nv12": (lambda k: biplanar(k, "nv12"), 2),
    "nv21": (lambda k: biplanar(k, "nv21"), 2),
    "nv24": (lambda k: biplanar(k, "nv24"), 0),
}
"""Encoding: the bytes, and the subsampling of chroma: 0 none, 1 of columns, 2 of both."""


@pytest.mark.parametrize("encoding", YUV)
def test_yuv_keeps_its_chroma(encoding: str, tmp_path: Path) -> None:
    data, down = YUV[encoding]
    step = SIZE[1] * (2 if down == 1 else 1)
    sent = Sent("/a", bags.IMAGE, image("/a", data(0), encoding).fields, EPOCH_NS)
    sent.fields.update(height=SIZE[0], width=SIZE[1], step=step, data=data(0).ravel())
    path = CONTAINERS["mcap"](tmp_path, [sent])
    (frame,) = read(open_source(str(path)))
    y, cb, cr = planes(0)
    np.testing.assert_allclose(frame.luma, np.clip(np.rint((y - 16.0) * 255 / 219), 0, 255))
    assert isinstance(frame.chroma, Chroma)
    assert not frame.chroma.full_range
    rows, columns = (2 if down == 2 else 1), (2 if down else 1)
    np.testing.assert_array_equal(frame.chroma.u, cb[::rows, ::columns])
    np.testing.assert_array_equal(frame.chroma.v, cr[::rows, ::columns])


@pytest.mark.parametrize(
    ("pixels", "kind", "fields"),
    [
        (colour(1), "jpeg", {"format": "bgr8; jpeg compressed bgr8"}),
        (colour(1), "png", {"format": "rgb8; png compressed bgr8"}),
        (thermal(1), "png", {"format": "16UC1; png compressed "}),
        (thermal(1), "png", {"format": "mono16; png compressed mono16"}),
        (luma_of(3), "jpeg", {"format": "mono8; jpeg compressed "}),
    ],
)
def test_compressed_pictures_are_those_of_the_file(
    pixels: npt.NDArray[Any], kind: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    path = CONTAINERS["ros1-lz4"](tmp_path, [compressed("/a", pixels, kind, **fields)])
    same(read(open_source(str(path))), read(in_directory(tmp_path / "files", [pixels], f".{kind}")))


def test_compressed_depth_is_read_behind_its_header(tmp_path: Path) -> None:
    data = np.concatenate([np.zeros(12, np.uint8), cv2.imencode(".png", thermal(1))[1].ravel()])
    sent = compressed("/a", thermal(1), "png", data=data, format="16UC1; compressedDepth png")
    path = CONTAINERS["mcap"](tmp_path, [sent])
    same(read(open_source(str(path))), read(in_directory(tmp_path / "files", [thermal(1)])))


def frames_of(path: Path, name: str) -> tuple[list[Frame], str | None]:
    """The frames of a bag that may be cut off, and its damage; none where it cannot be opened."""
    try:
        source = open_source(topic(path, name))
    except InputError as error:
        return [], str(error)
    return read(source), source.damage


@pytest.mark.parametrize("kind", ["ros1", "ros1-bz2", "ros1-lz4", "sqlite", "mcap", "mcap-zstd", "mcap-without-chunks"])
def test_a_bag_that_is_cut_off_anywhere_is_read_as_far_as_it_goes(kind: str, tmp_path: Path) -> None:
    sent = [image("/ir", thermal(k), "mono16", k) for k in range(30)]
    path = CONTAINERS[kind](tmp_path, sent)
    path = path if path.is_file() else next(path.glob("*.db3"))
    whole, damage = frames_of(path, "/ir")
    assert len(whole) == 30
    assert damage is None
    data = path.read_bytes()
    ends = [data.find(message.fields["data"].tobytes()) + message.fields["data"].size for message in sent]
    plain = kind in ("ros1", "mcap", "mcap-without-chunks")
    cut = tmp_path / f"cut{path.suffix}"
    for at in np.linspace(1, len(data) - 1, 70).astype(int).tolist():
        cut.write_bytes(data[:at])
        frames, damage = frames_of(cut, "/ir")
        assert damage is not None or len(frames) == 30
        same(frames, whole[: len(frames)])
        if plain:  # every message that is there
            assert len(frames) == sum(end <= at for end in ends)
        elif kind == "sqlite":  # whose last page may hold two messages
            assert len(frames) >= 30 * (at - 7 * 4096) / len(data) - 2
        else:  # what is in the blocks of the compression that are there; here each chunk is one
            assert len(frames) >= 30 * at / len(data) - 16


@given(at=st.floats(0, 1), byte=st.integers(0, 255), kind=st.sampled_from(["ros1", "ros1-lz4", "sqlite", "mcap"]))
@settings(max_examples=60, deadline=None)
def test_a_wrong_byte_ends_in_frames_or_in_one_error(
    at: float, byte: int, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, data = WHOLE.setdefault(kind, _written(kind, tmp_path_factory))
    changed = bytearray(data)
    changed[int(at * (len(data) - 1))] = byte
    path.write_bytes(changed)
    try:
        frames, damage = frames_of(path, "/boson/image_raw")
    except UsageError:  # the topic's type or name
        return
    assert len(frames) == COUNT or damage is not None or frames[-1].index < COUNT


WHOLE: dict[str, tuple[Path, bytes]] = {}


def _written(kind: str, factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    path = CONTAINERS[kind](factory.mktemp(kind), walk())
    path = path if path.is_file() else next(path.glob("*.db3"))
    return path, path.read_bytes()


@pytest.mark.parametrize("kind", CONTAINERS)
def test_reading_starts_at_a_time(kind: str, tmp_path: Path) -> None:
    path = CONTAINERS[kind](tmp_path, walk(60))
    wanted = 40 * PERIOD_NS + 1
    with open_source(topic(path, "/eo/image/compressed")) as source:
        indexed = kind not in ("mcap-without-index", "mcap-without-end")
        assert source.cut_before(wanted) == (40 * PERIOD_NS if indexed else None)
        source.start_at(40 * PERIOD_NS)
        stamps = [frame.stamp_ns for frame in source]
    assert stamps == [k * PERIOD_NS for k in range(40, 60)]


@pytest.mark.parametrize("kind", ["ros1", "sqlite", "mcap"])
def test_a_seek_reads_little_of_the_bag(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = CONTAINERS[kind](tmp_path, [image("/ir", thermal(k), "mono16", k) for k in range(300)])
    with open_source(topic(path, "/ir")) as source:
        source.start_at(295 * PERIOD_NS)
        seen = 0
        messages = Bag.messages

        def counting(self: Bag, *args: Any) -> Any:
            nonlocal seen
            for message in messages(self, *args):
                seen += 1
                yield message

        monkeypatch.setattr(Bag, "messages", counting)
        assert len(list(source)) == 5
    assert seen <= 5 + 26 + 12  # the margin of a second, and the rest of a chunk


def test_a_ros1_bag_that_was_never_closed_is_read(tmp_path: Path) -> None:
    path = CONTAINERS["ros1"](tmp_path, walk())
    data = path.read_bytes()
    at = data.index(b"index_pos=") + len(b"index_pos=")
    end = int.from_bytes(data[at : at + 8], "little")
    path = tmp_path / "walk.bag.active"
    path.write_bytes(data[:at] + bytes(8) + data[at + 8 : end])
    with open_source(topic(path, "/boson/image_raw")) as source:
        assert source.frame_count is None
        assert len(list(source)) == COUNT
        assert source.damage is None


def test_a_directory_without_metadata_is_read(tmp_path: Path) -> None:
    """A recorder that was killed leaves none."""
    path = CONTAINERS["sqlite"](tmp_path, walk())
    (path / "metadata.yaml").unlink()
    assert len(read(open_source(topic(path, "/boson/image_raw")))) == COUNT


def test_the_files_of_a_directory_are_read_in_their_order(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    for number in (10, 2, 9):
        directory = tmp_path / str(number)
        directory.mkdir()
        part = CONTAINERS["mcap"](directory, [image("/ir", thermal(k), "mono16", 100 * number + k) for k in range(3)])
        part.rename(whole / f"walk_{number}.mcap")
    with open_source(topic(whole, "/ir")) as source:
        assert source.frame_count == 9
        assert [frame.stamp_ns // PERIOD_NS for frame in source] == [0, 1, 2, 700, 701, 702, 800, 801, 802]
    with open_source(topic(whole, "/ir")) as source:
        source.start_at(701 * PERIOD_NS)
        assert [frame.stamp_ns // PERIOD_NS for frame in source] == [701, 702, 800, 801, 802]


def test_messages_in_the_log_of_a_database_are_read(tmp_path: Path) -> None:
    """A recorder that was killed leaves the newest messages there."""
    path = next(CONTAINERS["sqlite"](tmp_path, walk()).glob("*.db3"))
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute(
            "INSERT INTO messages (topic_id, timestamp, data) SELECT topic_id, timestamp, data FROM messages "
            "WHERE topic_id = (SELECT id FROM topics WHERE name = '/boson/image_raw')"
        )
        database.commit()
        copy = tmp_path / "killed.db3"
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
    with open_source(topic(copy, "/boson/image_raw")) as source:
        assert source.frame_count == 2 * COUNT


def test_headers_without_stamps_get_the_time_of_the_recorder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = CONTAINERS["mcap"](tmp_path, [image("/ir", thermal(k), "mono16", k, stamp_ns=0) for k in range(5)])
    with open_source(str(path)) as source:
        assert source.epoch_ns == EPOCH_NS + bags.DELAY_NS
        assert [frame.stamp_ns for frame in source] == [k * PERIOD_NS for k in range(5)]
    assert "have no stamps" in caplog.text


def test_counts_of_a_topic_become_temperatures(tmp_path: Path) -> None:
    path = CONTAINERS["mcap"](tmp_path, [image("/ir", thermal(k), "mono16", k) for k in range(2)])
    frames = read(open_source(f"{topic(path, '/ir')}&temperature=kelvin/100"))
    temperature = frames[1].temperature
    assert temperature is not None
    np.testing.assert_allclose(temperature.celsius(), thermal(1) / 100 - 273.15, atol=0.01)


@pytest.mark.parametrize(
    ("encoding", "temperature", "values", "step_k", "celsius"),
    [
        ("32FC1", "kelvin", np.array([[293.15, 300.004, np.nan]], np.float32), 0.01, [20.0, 26.85, np.nan]),
        ("32FC1", "celsius", np.array([[-20.0, 36.62, np.inf]], np.float32), 0.01, [-20.0, 36.62, np.inf]),
        ("64FC1", "celsius", np.array([[1500.0, 20.0, -300.0]], np.float64), 0.1, [1500.0, 20.0, np.nan]),
        ("32FC1", "celsius/10-100", np.array([[1200.0, 1365.0, 0.0]], np.float32), 0.01, [20.0, 36.5, -100.0]),
        ("16SC1", "celsius/100", np.array([[-2000, 3662, 32_767]], np.int16), 0.01, [-20.0, 36.62, 327.67]),
        ("16SC1", "kelvin/100", np.array([[29_315, 1, -5]], np.int16), 0.01, [20.0, -273.14, np.nan]),
        ("16UC1", "kelvin/100", np.array([[29_315, 1, 0]], np.uint16), 0.01, [20.0, -273.14, np.nan]),
        ("32FC1", "kelvin", np.full((1, 3), np.nan, np.float32), 0.01, [np.nan] * 3),
    ],
)
def test_every_kind_of_number_has_temperatures(
    encoding: str, temperature: str, values: npt.NDArray[Any], step_k: float, celsius: list[float], tmp_path: Path
) -> None:
    path = CONTAINERS["mcap"](tmp_path, [image("/ir", values, encoding, k) for k in range(2)])
    for frame in read(open_source(f"{topic(path, '/ir')}&temperature={temperature}")):
        assert frame.temperature is not None
        assert frame.temperature.scale.step == step_k
        # half a step, and the precision of the float32 that `celsius` gives
        np.testing.assert_allclose(frame.temperature.celsius()[0], celsius, atol=step_k / 2 + 1e-4)


def test_the_step_of_a_topic_is_that_of_its_first_picture(tmp_path: Path) -> None:
    """A hotter one ends above the scale."""
    pictures = [np.full((2, 2), value, np.float32) for value in (300.0, 900.0)]
    path = CONTAINERS["mcap"](tmp_path, [image("/ir", one, "32FC1", k) for k, one in enumerate(pictures)])
    first, second = (frame.temperature for frame in read(open_source(f"{topic(path, '/ir')}&temperature=kelvin")))
    assert first is not None
    assert second is not None
    assert (first.scale.step, second.scale.step) == (0.01, 0.01)
    assert np.all(np.isinf(second.celsius()))


@pytest.mark.parametrize("temperature", ["lepton", "planck:17000,0.0125,1440,1,-2000"])
def test_temperatures_that_need_counts_are_refused_for_other_numbers(temperature: str, tmp_path: Path) -> None:
    path = CONTAINERS["mcap"](tmp_path, [image("/ir", np.ones((2, 2), np.float32), "32FC1")])
    with pytest.raises(UsageError, match="has 32fc1: use kelvin, celsius or celsius/100"):
        read(open_source(f"{topic(path, '/ir')}&temperature={temperature}"))


def test_what_is_no_picture_is_counted(tmp_path: Path) -> None:
    sent = [image("/ir", thermal(k), "mono16", k) for k in range(9)]
    sent[2].fields["data"] = sent[2].fields["data"][:100]
    sent[3].fields["width"] = 0
    sent[5].fields["stamp_ns"] = sent[4].fields["stamp_ns"]
    with open_source(str(CONTAINERS["mcap"](tmp_path, sent))) as source:
        assert [frame.index for frame in source] == [0, 1, 4, 6, 7, 8]
        assert source.drops == {"unreadable image": 2, "stamp not after the one before": 1}


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("{bag}?topic=/nothing", InputError, "no such topic.*/boson/image_raw, /eo/image/compressed"),
        ("{bag}", UsageError, "choose one"),
        ("{bag}?topic=", UsageError, "name the topic"),
        ("{bag}?colour=1", UsageError, "it has topic"),
        ("{bag}?topic=/tf_static", UsageError, "not a picture"),
        ("{directory}/missing.mcap?topic=/a", InputError, "there is no file"),
        ("{directory}/text.bag", InputError, "not a bag of ROS 1"),
        ("{directory}/text.mcap", InputError, "not an MCAP file"),
        ("{directory}/text.db3", InputError, "not an SQLite database"),
        ("{directory}/other.db3", InputError, "without the tables"),
        ("{directory}/empty.mcap", InputError, "is empty"),
        ("{directory}/old.bag", InputError, "rosbag fix"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(text: str, error: type[Exception], says: str, tmp_path: Path) -> None:
    transform = Sent("/tf_static", "tf2_msgs/msg/TFMessage", {"transforms": []}, EPOCH_NS)
    path = CONTAINERS["mcap"](tmp_path, [transform, *walk()])
    for name in ("text.bag", "text.mcap", "text.db3"):
        (tmp_path / name).write_text(
            "a text that is long enough for any header, as it has more than a hundred bytes" * 2
        )
    (tmp_path / "empty.mcap").touch()
    (tmp_path / "old.bag").write_text("#ROSBAG V1.2\n")
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db3")) as database:
        database.execute("CREATE TABLE other (a)")
    with pytest.raises(error, match=says):
        open_source(text.format(bag=path, directory=tmp_path))


def test_an_unknown_encoding_is_named(tmp_path: Path) -> None:
    path = CONTAINERS["mcap"](tmp_path, [image("/a", luma_of(0), "hsv8")])
    with pytest.raises(InputError, match="'hsv8', which is not read; known are mono8"):
        read(open_source(str(path)))


def test_a_picture_that_claims_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = CONTAINERS["mcap"](tmp_path, [image("/a", luma_of(0), "mono8", width=100_000, height=100_000)])
    with pytest.raises(InputError, match="--max-pixels"):
        read(open_source(str(path)))


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = CONTAINERS["mcap"](tmp_path, walk())
    monkeypatch.delitem(sys.modules, "streamfuse.sources.bags.mcap_file", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mcap"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcap", None)
    with pytest.raises(UsageError, match=r"bags need the package mcap: pip install 'streamfuse\[ros\]'"):
        open_source(topic(path, "/boson/image_raw"))


def field(number: int, value: bytes | int) -> bytes:
    """A field of protobuf: bytes, or a fixed 32-bit number."""
    if isinstance(value, int):
        return bytes([number << 3 | 5]) + value.to_bytes(4, "little")
    length = len(value)
    return bytes([number << 3 | 2, length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14]) + value


@pytest.mark.parametrize("kind", ["RawImage", "CompressedImage"])
def test_messages_of_foxglove_in_protobuf_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "foxglove.mcap"
    with path.open("wb") as file:
        writer = mcap.writer.Writer(file)
        writer.start()
        channel = writer.register_channel(
            "/ir", "protobuf", writer.register_schema(f"foxglove.{kind}", "protobuf", b"")
        )
        for k in range(3):
            stamp = b"\x08" + varint(EPOCH_NS // 10**9) + b"\x10" + varint(k * PERIOD_NS)
            if kind == "RawImage":
                data = field(1, stamp) + field(2, SIZE[1]) + field(3, SIZE[0]) + field(4, b"mono16")
                data += field(5, SIZE[1] * 2) + field(6, thermal(k).tobytes())
            else:
                data = field(1, stamp) + field(2, cv2.imencode(".png", thermal(k))[1].tobytes()) + field(3, b"png")
            writer.add_message(channel, EPOCH_NS + k * PERIOD_NS, data, 0)
        writer.finish()  # type: ignore[no-untyped-call]
    same(read(open_source(str(path))), read(in_directory(tmp_path / "files", [thermal(k) for k in range(3)])))


def varint(value: int) -> bytes:
    out = []
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_messages_of_foxglove_for_ros_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = image("/ir", thermal(0), "mono16")
    before = bags.cdr
    monkeypatch.setattr(bags, "cdr", lambda sent: before(sent) + b"\5\0\0\0uuid\0")  # fields of a newer version
    raw = Sent("/raw", "foxglove_msgs/msg/RawImage", sent.fields, sent.log_ns)
    small = compressed("/png", thermal(0), "png")
    path = CONTAINERS["mcap"](
        tmp_path, [raw, Sent("/png", "foxglove_msgs/msg/CompressedImage", small.fields, small.log_ns)]
    )
    expected = read(in_directory(tmp_path / "files", [thermal(0)]))
    same(read(open_source(topic(path, "/raw"))), expected)
    same(read(open_source(topic(path, "/png"))), expected)
