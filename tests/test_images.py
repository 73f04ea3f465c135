"""Directories and patterns of images, VOT sequences, and errors of source arguments."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import MS, luma_of, number_of, write_images

from streamfuse.errors import InputError, UsageError
from streamfuse.frames import Frame
from streamfuse.sources import open_pair, open_source
from streamfuse.sources.base import Source
from streamfuse.sources.sequence import MISSING, UNREADABLE, list_images, match_images, open_images
from streamfuse.sources.vot import open_vot
from streamfuse.support.urls import redact


def contents(source: Source) -> list[tuple[int, int]]:
    """Return (stamp in ms, number shown) of every frame."""
    with source:
        return [(round(frame.stamp_ns / MS), number_of(frame.luma)) for frame in source]


def numbered(count: int, start: int = 1, form: str = "{:08d}.png") -> list[str]:
    return [form.format(k) for k in range(start, start + count)]


def test_directory_in_natural_order(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{k}.png" for k in range(9, 13)])
    (tmp_path / "notes.txt").write_text("not an image")
    assert contents(open_images(str(tmp_path))) == [(0, 0), (40, 1), (80, 2), (120, 3)]


def test_pattern_and_glob(tmp_path: Path) -> None:
    write_images(tmp_path / "a", numbered(3, form="ir_{:03d}.png"))
    write_images(tmp_path / "a", ["other_001.png"])
    for text in (tmp_path / "a" / "ir_%03d.png", tmp_path / "a" / "ir_*.png"):
        assert contents(open_source(str(text), fps=10)) == [(0, 0), (100, 1), (200, 2)]


def test_missing_image_is_a_gap_in_time(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png", "4.png"])
    assert [stamp for stamp, _ in contents(open_images(str(tmp_path)))] == [0, 40, 120]


def test_pairs_by_number_though_names_differ_and_some_are_missing(tmp_path: Path) -> None:
    """RGBT234: 00001i.jpg and 00001v.jpg."""
    write_images(tmp_path / "ir", ["00001i.png", "00003i.png", "00004i.png"])
    write_images(tmp_path / "vis", ["00001v.png", "00002v.png", "00003v.png", "00004v.png"])
    ir, vis = open_pair(str(tmp_path / "ir"), str(tmp_path / "vis"), fps=25)
    assert contents(ir) == [(0, 0), (80, 1), (120, 2)]
    assert contents(vis) == [(0, 0), (40, 1), (80, 2), (120, 3)]


def test_numbers_that_jump_leave_no_gap_where_both_jump(tmp_path: Path) -> None:
    """LLVIP: 190001 to 190003, then 200001: several recordings in one directory."""
    names = [f"{k}.png" for k in (190001, 190002, 200001)]
    texts = [str(write_images(tmp_path / d, names)) for d in ("ir", "vis")]
    ir, vis = open_pair(texts[0], texts[1], fps=25)
    assert [s for s, _ in contents(ir)] == [s for s, _ in contents(vis)] == [0, 40, 80]


def test_names_that_are_time_stamps(tmp_path: Path) -> None:
    """A robot's log: nanoseconds since the epoch, the two cameras 3 ms apart."""
    start = 1_699_999_999_000_000_000
    write_images(tmp_path / "ir", [f"{start + k * 100 * MS + 3 * MS}.png" for k in range(3)])
    write_images(tmp_path / "vis", [f"{start + k * 100 * MS}.png" for k in range(3)])
    ir, vis = open_pair(str(tmp_path / "ir"), str(tmp_path / "vis"))
    assert [s for s, _ in contents(ir)] == [3, 103, 203]
    assert [s for s, _ in contents(vis)] == [0, 100, 200]


def test_names_that_are_seconds_with_a_fraction(tmp_path: Path) -> None:
    write_images(tmp_path / "ir", ["1305031102.975304.png", "1305031103.075304.png", "1305031103.17.png"])
    write_images(tmp_path / "vis", ["1305031102.965304.png", "1305031103.065304.png"])
    ir, vis = open_pair(str(tmp_path / "ir"), str(tmp_path / "vis"))
    with ir, vis:
        assert [frame.stamp_ns for frame in ir] == [10_000_000, 110_000_000, 204_696_000]
        assert [frame.stamp_ns for frame in vis] == [0, 100_000_000]


def test_names_without_common_numbers_pair_in_order_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "ir", ["warm.png", "warmer.png"])
    write_images(tmp_path / "vis", ["day.png", "night.png"])
    with caplog.at_level(logging.WARNING, "streamfuse"):
        ir, vis = open_pair(str(tmp_path / "ir"), str(tmp_path / "vis"))
    assert len(contents(ir)) == len(contents(vis)) == 2
    assert caplog.text.count("pairing them in order") == 1


def test_equal_names_pair_where_numbers_repeat() -> None:
    ir = [Path(f"ir/{name}.png") for name in ("a1", "b1", "b2")]
    vis = [Path(f"vis/{name}.png") for name in ("b1", "a1")]
    ir_places, vis_places, by_name = match_images(ir, vis)
    assert by_name
    assert ir_places[0] == vis_places[1]
    assert ir_places[1] == vis_places[0]


def test_damaged_image_is_skipped_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path, numbered(4))
    data = (tmp_path / "00000002.png").read_bytes()
    (tmp_path / "00000002.png").write_bytes(data[:20])
    (tmp_path / "00000003.png").write_bytes(b"")
    source = open_images(str(tmp_path))
    assert contents(source) == [(0, 0), (120, 3)]
    assert source.drops == {UNREADABLE: 2}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bit(tmp_path: Path, suffix: str) -> None:
    """A few hundred levels of a thermal camera's 14 bits are converted to the full grey range."""
    for k in range(3):
        assert cv2.imwrite(str(tmp_path / f"{k}{suffix}"), luma_of(k).astype(np.uint16) * 2 + 7000)
    with open_images(str(tmp_path)) as source:
        frames = list(source)
    assert frames[0].luma.dtype == np.uint8
    assert frames[0].luma.min() <= 2
    assert frames[0].luma.max() >= 253
    assert frames[0].chroma is None


def test_colour_and_alpha(tmp_path: Path) -> None:
    bgra = np.zeros((32, 40, 4), np.uint8)
    bgra[..., 2] = 200
    cv2.imwrite(str(tmp_path / "1.png"), bgra)
    cv2.imwrite(str(tmp_path / "2.png"), bgra[..., :3].astype(np.uint16) * 257)
    with open_images(str(tmp_path)) as source:
        frames: list[Frame] = list(source)
    for frame in frames:
        assert abs(int(frame.luma.mean()) - 60) <= 1  # 0.299 * 200
        assert frame.chroma is not None
        assert frame.chroma.v.mean() > 200


def test_upright_as_the_exif_tag_asks(tmp_path: Path) -> None:
    done, data = cv2.imencode(".jpg", np.zeros((40, 60, 3), np.uint8))
    assert done
    tag = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    jpeg = data.tobytes()
    turned = jpeg[:2] + b"\xff\xe1" + (len(tag) + 2).to_bytes(2, "big") + tag + jpeg[2:]
    (tmp_path / "1.jpg").write_bytes(turned)
    with open_images(str(tmp_path)) as source:
        assert next(iter(source)).luma.shape == (60, 40)


def test_hidden_and_double_names(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "._1.png"])
    assert len(contents(open_images(str(tmp_path)))) == 1
    write_images(tmp_path, ["1.bmp"])
    with pytest.raises(InputError, match="same moment"):
        open_pair(str(tmp_path), str(tmp_path))


# VOT-RGBT


def described(directory: Path, text: str, ir: int = 4, color: int = 4) -> Path:
    write_images(directory / "ir", numbered(ir))
    write_images(directory / "color", numbered(color), colour=True)
    (directory / "sequence").write_text(text)
    return directory


def test_vot_sequence_file(tmp_path: Path) -> None:
    text = "name=x\nfps=20\nlength=4\n\nchannels.color=color/%08d.png\nchannels.ir=ir/%08d.png\n"
    ir, vis = open_vot(described(tmp_path, text))
    assert contents(ir) == contents(vis) == [(0, 0), (50, 1), (100, 2), (150, 3)]
    ir, _ = open_vot(tmp_path, fps=10)
    assert [s for s, _ in contents(ir)] == [0, 100, 200, 300]


def test_vot_length_counts_missing_and_ignores_the_rest(tmp_path: Path) -> None:
    text = "length=5\nchannels.color=color/%08d.png\nchannels.ir=ir/%08d.png"
    ir, vis = open_vot(described(tmp_path, text, ir=3, color=6))
    assert ir.drops == {MISSING: 2}
    assert len(contents(vis)) == 5
    assert [s for s, _ in contents(ir)] == [0, 33, 67]  # 30 fps if the sequence has no rate


@pytest.mark.parametrize(("ir", "vis"), [("ir", "color"), ("infrared", "visible")])
def test_vot_layouts_without_a_sequence_file(tmp_path: Path, ir: str, vis: str) -> None:
    write_images(tmp_path / ir, numbered(2, form="{:05d}i.png"))
    write_images(tmp_path / vis, numbered(2, form="{:05d}v.png"), colour=True)
    sources = open_vot(tmp_path)
    assert contents(sources[0]) == contents(sources[1]) == [(0, 0), (33, 1)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("channels.color=color/%08d.png", "no channels.ir"),
        ("channels.ir=ir/%08d.png", "no channels.color"),
        ("channels.color=color/%08d.png\nchannels.ir=ir/%08d.png\nfps=fast", "fps must be a number above 0"),
        ("channels.color=color/%08d.png\nchannels.ir=ir/%08d.png\nfps=0", "fps must be a number above 0"),
        ("channels.color=color/%08d.png\nchannels.ir=ir/%08d.png\nlength=nan", "length must be a number"),
        ("channels.color=color/%08d.png\nchannels.ir=gone/%08d.png", "there is no directory"),
        ("channels.color=color/%08d.png\nchannels.ir=ir/frame.png", "needs a number"),
        ("channels.color=color/%08d.png\nchannels.ir=ir/x%08d.png", "has no images"),
        ("just words", "line 1: expected key=value"),
    ],
)
def test_vot_errors_name_the_cause(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_vot(described(tmp_path, text))


def test_vot_file_of_a_windows_editor_and_numbers_past_the_length(tmp_path: Path) -> None:
    for channel in ("ir", "color"):
        write_images(tmp_path / channel, numbered(4, start=100))
    text = "channels.color=color/%08d.png\r\nchannels.ir=ir/%08d.png\r\nlength=4\r\nfps=25\r\n"
    (tmp_path / "sequence").write_bytes(b"\xef\xbb\xbf" + text.encode())
    ir, vis = open_vot(tmp_path)
    assert contents(ir) == contents(vis) == [(0, 0), (40, 1), (80, 2), (120, 3)]


def test_vot_directory_of_sequences_names_one(tmp_path: Path) -> None:
    described(tmp_path / "street", "")
    with pytest.raises(InputError, match="holds several sequences"):
        open_vot(tmp_path)
    with pytest.raises(InputError, match="no VOT-RGBT sequence"):
        open_vot(tmp_path / "street" / "ir")


def test_vot_real_sequence(data_dir: Path) -> None:
    ir, vis = open_vot(data_dir / "data/eval/vot/steps")
    with ir, vis:
        pairs = list(zip(ir, vis, strict=True))
    assert len(pairs) == 20
    assert pairs[19][0].stamp_ns == pairs[19][1].stamp_ns == round(19e9 / 30)
    assert pairs[0][1].chroma is not None


# Errors of source arguments


def test_unknown_sources_list_the_known_ones(tmp_path: Path) -> None:
    for text, kind, words in (
        ("", UsageError, "empty source"),
        ("ftp://user:secret@10.0.0.1/stream?token=abc", UsageError, "not supported"),
        (str(tmp_path / "none"), InputError, "there is no file"),
        (str(tmp_path / "%03d.png"), InputError, "there are no images"),
        (str(tmp_path / "*.png"), InputError, "there are no images"),
        (str(tmp_path / "none.png"), InputError, "there are no images"),
        (str(tmp_path), InputError, "there are no images"),
        (f"{tmp_path}?crop=1", InputError, "has no option crop"),
    ):
        with pytest.raises(kind, match=words) as error:
            open_source(text)
        assert "secret" not in str(error.value)
        assert "abc" not in str(error.value)


def test_directory_of_directories_points_to_vot(tmp_path: Path) -> None:
    write_images(tmp_path / "ir", ["1.png"])
    with pytest.raises(InputError, match="--vot"):
        list_images(str(tmp_path))


def test_redact() -> None:
    assert redact("rtsp://me:pw@host:554/a/b?key=1") == "rtsp://***@host:554/a/b"
    assert redact("rtsp://me:p/w@host/a") == "rtsp://***@host/a"
    assert redact("rtsp://host/a") == "rtsp://host/a"
    assert redact("C:/videos/a@b.mp4") == "C:/videos/a@b.mp4"


TIMES = ["12-00-57", "12-00-58", "12-00-59", "12-01-00", "12-01-01", "12-01-02"]


@pytest.mark.parametrize("start", ["2024-05-01_", "ir_"])
def test_times_of_day_in_names_are_in_order(start: str) -> None:
    """The last number is the second, which begins again with each minute."""
    names = [Path(f"{start}{time}.png") for time in TIMES]
    assert match_images(names[1:], names) == ([1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], True)
    assert match_images(names[1:3], names) == ([1, 2], [0, 1, 2, 3, 4, 5], True)  # one is within a minute


@pytest.mark.parametrize(
    ("ir", "vis"),
    [
        (["a_120001_980", "a_120002_120"], ["b_120001_120", "b_120002_230"]),
        (["10.975304", "11.075304"], ["10.075304", "11.175304"]),
    ],
)
def test_equal_fractions_of_different_seconds_are_no_pair(ir: list[str], vis: list[str]) -> None:
    places = match_images(*([Path(f"{name}.png") for name in names] for names in (ir, vis)))
    assert places == ([0, 1], [0, 1], False)


def test_one_list_in_which_a_number_begins_again_keeps_its_order(tmp_path: Path) -> None:
    write_images(tmp_path, [f"s{k}.png" for k in ("1_f8", "1_f9", "2_f1", "2_f2")])
    with open_images(str(tmp_path)) as source:
        assert [path.stem for path in list_images(str(tmp_path))] == ["s1_f8", "s1_f9", "s2_f1", "s2_f2"]
        first, *_, last = source
    assert [first.stamp_ns, last.stamp_ns] == [0, 120_000_000]
