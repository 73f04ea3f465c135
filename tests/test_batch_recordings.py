"""The choice of recordings: manifests, patterns, trees."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamfuse.batch.recordings import Recording, pair_patterns, read_manifest, sequence_recordings
from streamfuse.errors import InputError, StreamfuseError, UsageError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_csv_and_toml_say_the_same(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "a.csv").write_text(
        "\ufeffir, vis, output, vot, calib, ir-offset-ms\n"
        'ir/1.mp4 , vis/1.mp4," ",,,\n'
        '"ir/a, b.mp4", vis/2.mp4, sub/two.mkv,, calib.toml, -12\n'
        ",,,seq/street.2,,\n",
        encoding="utf-8",
    )
    (tmp_path / "a.toml").write_text(
        '[[recording]]\nir = "ir/1.mp4"\nvis = "vis/1.mp4"\n'
        '[[recording]]\nir = "ir/a, b.mp4"\nvis = "vis/2.mp4"\noutput = "sub/two.mkv"\n'
        'calib = "calib.toml"\nir-offset-ms = -12\n'
        '[[recording]]\nvot = "seq/street.2"\n'
    )
    expected = [
        Recording(out / "1.mp4", str(tmp_path / "ir/1.mp4"), str(tmp_path / "vis/1.mp4")),
        Recording(
            out / "sub/two.mkv",
            str(tmp_path / "ir/a, b.mp4"),
            str(tmp_path / "vis/2.mp4"),
            calib=str(tmp_path / "calib.toml"),
            ir_offset_ms=-12.0,
        ),
        Recording(out / "street.2.mp4", vot=str(tmp_path / "seq/street.2")),
    ]
    assert read_manifest(tmp_path / "a.csv", out, ".mp4") == expected
    assert read_manifest(tmp_path / "a.toml", out, ".mp4") == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("m.csv", "ir,viz\na,b\n", r"m.csv:1: unknown 'viz'; known are ir, vis"),
        ("m.csv", "ir,vis\na,b\nc\n", r"m.csv:3: give ir and vis, or vot"),
        ("m.csv", "ir,vis\na,b,c\n", r"m.csv:2: more values"),
        ("m.csv", 'ir,vis\n"a,b\n', r"m.csv:\d: not valid CSV"),
        ("m.csv", "ir,vis,vot\na,b,c\n", "give ir and vis, or vot"),
        ("m.csv", "ir,vis,ir-offset-ms\na,b,soon\n", "m.csv:2: ir-offset-ms must be a number"),
        ("m.csv", "ir,vis,ir-offset-ms\na,b,inf\n", "m.csv:2: ir-offset-ms must be a number"),
        ("m.CSV", "ir,vis\n", "lists no recordings"),
        ("m.csv", "", "lists no recordings"),
        ("m.csv", "ir,vis\nrtsp://me:secret@camera/a,b\n", r"m.csv:2: rtsp://\*\*\*@camera/a is not a recording"),
        ("m.csv", "ir,vis\ncam0,b\n", "cam0 is not a recording"),
        ("m.csv", "ir,vis\na,https://host/b.mp4\n", "https://host/b.mp4 is not a recording"),
        ("m.csv", "ir,vis\na,synthetic:vis\n", "synthetic:vis is not a recording"),
        ("m.csv", "ir,vis\na,${STREAMFUSE_UNSET}/b\n", "m.csv:2: .* STREAMFUSE_UNSET, which is not set"),
        ("m.csv", "ir,vis\na/x.mp4,b/x.mp4\nc/x.mp4,d/x.mp4\n", "would both become"),
        ("m.csv", "ir,vis,output\na,out/b.mp4,b.mp4\n", "would overwrite an input"),
        ("m.csv", "ir,vis,output\na,b,x/../1.mp4\nc,d,1.mp4\n", "would both become"),
        ("m.csv", "ir,vis,output\na,out/x/../b.mp4,b.mp4\n", "would overwrite an input"),
        ("m.TOML", "[[recording]]\nir = 'a'\nviz = 'b'\n", "recording 1: unknown 'viz'"),
        ("m.toml", "recording = [3]\n", r"a list of \[\[recording\]\]"),
        ("m.csv", "vot,output\ns,a\0b\n", "m.csv:2: .* holds a zero byte"),
        ("m.toml", "[[recording]]\nir = 'a'\nvis = 3\n", "recording 1: vis must be text"),
        ("m.toml", "[[recording]]\nir = 'a'\n", "recording 1: give ir and vis"),
        ("m.toml", "[[recording]]\nir-offset-ms = true\n", "must be a number"),
        ("m.toml", "[[recordings]]\nir = 'a'\n", "m.toml:1: unknown key 'recordings'"),
        ("m.toml", "recording = 3\n", r"a list of \[\[recording\]\]"),
        ("m.toml", "[[recording]\n", "m.toml:1: not valid TOML"),
        ("m.json", "", "a .csv or .toml file"),
    ],
)
def test_a_bad_manifest_is_named_with_its_place(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words) as raised:
        read_manifest(tmp_path / name, tmp_path / "out", ".mp4")
    assert "secret" not in str(raised.value)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    for name in ("m.csv", "m.toml"):
        with pytest.raises(UsageError, match="cannot read"):
            read_manifest(tmp_path / name, tmp_path, ".mp4")
    (tmp_path / "m.csv").write_bytes(b"ir,vis\n\xff,a\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_manifest(tmp_path / "m.csv", tmp_path, ".mp4")


def test_patterns_pair_what_the_stars_stand_for(tmp_path: Path) -> None:
    touch(*(tmp_path / f"rec/{day}/{name}.mp4" for day in ("mon", "tue") for name in ("1_ir", "1_vis", "2_ir")))
    touch(tmp_path / "rec/.hidden/1_ir.mp4", tmp_path / "rec/.hidden/1_vis.mp4")
    recordings, unpaired = pair_patterns(
        f"{tmp_path}/rec/*/*_ir.mp4", f"{tmp_path}/rec/*/*_vis.mp4", tmp_path / "o", ".mkv"
    )
    assert [recording.output.name for recording in recordings] == ["mon-1.mkv", "tue-1.mkv"]
    assert (recordings[0].ir, recordings[0].vis) == (f"{tmp_path}/rec/mon/1_ir.mp4", f"{tmp_path}/rec/mon/1_vis.mp4")
    assert [one.path for one in unpaired] == [f"{tmp_path}/rec/mon/2_ir.mp4", f"{tmp_path}/rec/tue/2_ir.mp4"]


def test_patterns_go_down_and_take_other_signs_as_they_are(tmp_path: Path) -> None:
    root = tmp_path / "a[1]?"
    touch(root / "ir/x/y/1.mp4", root / "vis/x/y/1.mp4", root / "ir/2.mp4", root / "vis/2.mp4")
    recordings, unpaired = pair_patterns(f"{root}/ir/**/*.mp4", f"{root}/vis/**/*.mp4", tmp_path / "o", ".mp4")
    assert {recording.output.name for recording in recordings} == {"x-y-1.mp4", "-2.mp4"} or {
        c.output.name for c in recordings
    } == {
        "x-y-1.mp4",
        "2.mp4",
    }
    assert unpaired == []


def test_patterns_that_do_not_fit(tmp_path: Path) -> None:
    touch(tmp_path / "ir/1.mp4", tmp_path / "vis/2.mp4")
    with pytest.raises(InputError, match=r"\(1 found\) matches one of .* \(1 found\)"):
        pair_patterns(f"{tmp_path}/ir/*.mp4", f"{tmp_path}/vis/*.mp4", tmp_path, ".mp4")
    for ir, vis in (("ir/1.mp4", "vis/2.mp4"), ("ir/*.mp4", "*/*.mp4")):
        with pytest.raises(StreamfuseError, match="same number of"):
            pair_patterns(f"{tmp_path}/{ir}", f"{tmp_path}/{vis}", tmp_path, ".mp4")


def test_paths_from_home_and_from_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    monkeypatch.setenv("STREAMFUSE_DISK", str(tmp_path / "disk"))
    (tmp_path / "m.csv").write_text(
        "ir,vis,calib,output\n${STREAMFUSE_DISK}/ir.mp4,~/vis.mp4,~/c.toml,~/o.mp4\n~nobody-here.mp4,v/b.mp4,,\n"
    )
    recording, other = read_manifest(tmp_path / "m.csv", tmp_path, ".mp4")
    assert recording.inputs == (f"{tmp_path}/disk/ir.mp4", f"{tmp_path}/me/vis.mp4")
    assert (recording.calib, recording.output) == (f"{tmp_path}/me/c.toml", tmp_path / "me/o.mp4")
    assert other.ir == f"{tmp_path}/~nobody-here.mp4"


def test_sequences_of_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "t/a/sequence", tmp_path / "t/a/ir/sequence", tmp_path / "t/b/c/ir/1.png", tmp_path / "t/b/x/1")
    (tmp_path / "t/b/c/color").mkdir()
    recordings = sequence_recordings(tmp_path / "t", tmp_path / "o", ".mp4")
    assert [recording.output for recording in recordings] == [tmp_path / "o/a.mp4", tmp_path / "o/b/c.mp4"]
    assert [recording.output for recording in sequence_recordings(tmp_path / "t/a", tmp_path / "o", ".mp4")] == [
        tmp_path / "o/a.mp4"
    ]
    monkeypatch.chdir(tmp_path)
    assert sequence_recordings(Path("t"), Path("o"), ".mp4") == recordings
    assert recordings[0].inputs == (str(tmp_path / "t/a"),)
    for tree, words in ((tmp_path / "gone", "there is no directory"), (tmp_path / "t/b/x", "holds no VOT-RGBT")):
        with pytest.raises(InputError, match=words):
            sequence_recordings(tree, tmp_path, ".mp4")


def test_links_that_lead_round_in_a_circle_are_names_like_others(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "m.csv").write_text("ir,vis,output\nloop/ir.mp4,loop/vis.mp4,loop/out.mp4\n")
    (recording,) = read_manifest(tmp_path / "m.csv", tmp_path, ".mp4")
    assert recording.output == tmp_path / "loop/out.mp4"
