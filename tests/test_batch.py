"""`streamfuse batch` as a user has it: real processes, a real cluster, real kills."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from batches import (
    FRAMES,
    batch,
    colour_in,
    colour_of,
    done,
    kill_all,
    options,
    outputs_of,
    patterns,
    reference,
    report_of,
    until,
    workers_of,
    write_archive,
)
from media import every, read_video, write_images, write_video

from streamfuse.batch import cluster, receipts
from streamfuse.batch.options import BatchOptions, check, made_of
from streamfuse.batch.recordings import pair_patterns
from streamfuse.cli.batch import command
from streamfuse.errors import StreamfuseError
from streamfuse.options import EngineChoice, FusionOptions


@pytest.fixture
def weights(full_weights: Path) -> Path:
    """A network slow enough to be interrupted at work."""
    return full_weights


linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at open files in /proc")


def check_outputs(root: Path, names: list[str], weights: Path) -> None:
    """Every output is there, once, and is what one process alone makes of that recording."""
    times, pictures = reference(root / "rec/c000/ir.mp4", root / "rec/c000/vis.mp4", weights, root / "reference.mp4")
    assert len(times) == FRAMES
    assert [path.stem for path in outputs_of(root / "out")] == names
    for k, name in enumerate(names):
        made_times, made = read_video(root / "out" / f"{name}.mp4")
        assert made_times == times
        assert all(np.array_equal(one, other) for one, other in zip(made, pictures, strict=True))
        assert colour_in(root / "out" / f"{name}.mp4") == pytest.approx(colour_of(k), abs=3)
    check_nothing_half_done(root / "out", names)


def check_nothing_half_done(out: Path, names: list[str]) -> None:
    hidden = {path.name for path in out.iterdir() if path.name.startswith(".")}
    assert hidden == {f".{name}.mp4.batch.json" for name in names}


def killed_half_way(root: Path, count: int, weights: Path, patience_s: float) -> None:
    names = write_archive(root, count)
    out = root / "out"
    args = [*patterns(root), "-o", out, "--workers", 2, *options(weights)]
    with batch(*args) as process:
        until(lambda: len(outputs_of(out)) >= count // 2, patience_s)
        victim = workers_of(process)[0]
        victim.kill()
        said, _ = process.communicate(timeout=patience_s)
        assert process.returncode == 0, said
    check_outputs(root, names, weights)
    made = report_of(out)
    assert made["counts"] == {"left": 0, "done": count, "skipped": 0, "failed": 0, "damaged": 0, "unpaired": 0}
    assert made["frames"] == count * FRAMES
    processes = {recording["worker"] for recording in made["recordings"]}
    assert len(processes) == 3  # the two, and the one that took the dead one's place
    before = {path: path.stat().st_mtime_ns for path in outputs_of(out)}
    assert "done     0" in done(*args)
    assert {path: path.stat().st_mtime_ns for path in outputs_of(out)} == before
    again = report_of(out)
    assert (again["counts"]["skipped"], again["frames"]) == (count, 0)


def test_a_killed_worker_loses_nothing_and_a_second_run_does_nothing(tmp_path: Path, weights: Path) -> None:
    killed_half_way(tmp_path, 12, weights, 120)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_hundred_recordings_with_a_worker_killed_half_way(tmp_path: Path, weights: Path) -> None:
    killed_half_way(tmp_path, 200, weights, 800)


def test_killed_altogether_it_goes_on_where_it_was(tmp_path: Path, weights: Path) -> None:
    names = write_archive(tmp_path, 10)
    out = tmp_path / "out"
    args = [*patterns(tmp_path), "-o", out, "--workers", 2, *options(weights)]
    with batch(*args) as process:
        until(lambda: len(outputs_of(out)) >= 4)
        kill_all(process)
    finished = {path.name: path.stat().st_mtime_ns for path in outputs_of(out)}
    assert len(finished) < len(names)
    assert not (out / "batch.json").exists()
    done(*args)
    check_outputs(tmp_path, names, weights)
    assert finished.items() <= {path.name: path.stat().st_mtime_ns for path in outputs_of(out)}.items()
    counts = report_of(out)["counts"]
    assert (counts["skipped"], counts["done"]) == (len(finished), len(names) - len(finished))


def test_parts_survive_a_kill_and_are_joined(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "rec/long").mkdir(parents=True)
    for role in ("ir", "vis"):  # few frames a second, as a real network fuses them
        write_video(tmp_path / f"rec/long/{role}.mp4", every(400, 75), options={"g": "3", "sc_threshold": "0"})
    out = tmp_path / "out"
    args = [*patterns(tmp_path), "-o", out, "--workers", 2, "--split", 5, *options(weights)]
    with batch(*args) as process:
        until(lambda: len(list((out / ".long.mp4.work").glob("*-0000?.mp4"))) >= 2)
        kill_all(process)
    done(*args)
    assert read_video(out / "long.mp4")[0] == pytest.approx(every(400, 75), abs=0.02)
    (recording,) = report_of(out)["recordings"]
    assert (recording["status"], recording["frames"], recording["segments"], recording["damage"]) == (
        "done",
        75,
        6,
        None,
    )
    assert len(recording["worker"].split(", ")) >= 3  # some segments are of the run that was killed
    assert {path.name for path in out.iterdir()} == {"long.mp4", ".long.mp4.batch.json", "batch.json", "batch.html"}


def test_a_bad_recording_fails_alone(tmp_path: Path, weights: Path) -> None:
    names = write_archive(tmp_path, 4)
    (tmp_path / "rec/c001/vis.mp4").write_bytes(b"no video")
    (tmp_path / "rec/c002/ir.mp4").unlink()
    whole = write_video(tmp_path / "w.mp4", every(40, 20), container={"movflags": "faststart"}, grain=True)
    write_video(tmp_path / "rec/c003/ir.mp4", every(40, 20))
    (tmp_path / "rec/c003/vis.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 7 // 10])
    out = tmp_path / "out"
    out.mkdir()
    (out / "c000.mp4").write_bytes(b"precious")
    args = [*patterns(tmp_path), "-o", out, "--workers", 1, *options(weights)]
    said = done(*args, code=1)  # input and output: no code of one kind
    assert "2 of 3 recordings failed" in said
    assert (out / "c000.mp4").read_bytes() == b"precious"
    made = report_of(out)
    by_name = {Path(recording["output"]).stem: recording for recording in made["recordings"]}
    assert by_name.keys() == set(names) - {"c002"}
    assert "is not a video" in by_name["c001"]["reason"]
    assert "was not made by a batch" in by_name["c000"]["reason"]
    assert "of 20 frames could be read" in by_name["c003"]["damage"]
    assert made["unpaired"][0]["path"].endswith("c002/vis.mp4")
    assert not list(out.glob(".*.work"))
    page = (out / "batch.html").read_text()
    assert "is not a video" in page
    (out / "c000.mp4").unlink()
    assert "1 of 3 recordings failed" in done(*args, code=3)
    write_video(tmp_path / "rec/c001/vis.mp4", every(40, FRAMES))
    said = done(*args, code=3)  # what is missing from the damaged one is still missing
    assert "1 of 3 recordings are damaged" in said
    assert report_of(out)["counts"]["skipped"] == 2


@linux
def test_a_recording_that_kills_workers_fails_alone(tmp_path: Path, weights: Path) -> None:
    names = write_archive(tmp_path, 4)
    poison = tmp_path / "rec/c001/vis.mp4"
    write_video(poison, every(40, 400))
    write_video(tmp_path / "rec/c001/ir.mp4", every(40, 400))
    out = tmp_path / "out"
    dead: set[int] = set()
    with batch(*patterns(tmp_path), "-o", out, "--workers", 2, *options(weights)) as process:
        end = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < end:
            for worker in workers_of(process):
                if worker.pid not in dead and holds(worker.pid, poison):
                    os.kill(worker.pid, signal.SIGKILL)
                    dead.add(worker.pid)
            time.sleep(0.02)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 1, said
    assert "1 of 4 recordings failed" in said
    assert "every worker that ran it died, even with nothing else running" in said
    assert len(dead) == 4  # twice among others, twice alone
    assert [path.stem for path in outputs_of(out)] == [name for name in names if name != "c001"]
    assert not list(out.glob(".*.work"))


def holds(pid: int, path: Path) -> bool:
    try:
        return any(entry.readlink() == path for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


def test_changed_options_need_force_and_only_what_changed_is_made_again(tmp_path: Path, weights: Path) -> None:
    write_archive(tmp_path, 2)
    out = tmp_path / "out"
    args = [*patterns(tmp_path), "-o", out, "--workers", 1, *options(weights)]
    done(*args)
    assert "with crf 20 instead of 30: choose another directory" in done(*args, "--crf", 30, code=5)
    write_video(tmp_path / "rec/c001/vis.mp4", every(40, FRAMES + 1))
    assert "of inputs that have changed since" in done(*args, code=5)
    before = (out / "c000.mp4").stat().st_mtime_ns
    done(*args, "--force")
    assert (out / "c000.mp4").stat().st_mtime_ns == before
    assert report_of(out)["counts"]["done"] == 1


def test_what_a_worker_left_that_died_after_its_last_rename_goes_in_the_next_run(tmp_path: Path, weights: Path) -> None:
    write_archive(tmp_path, 1)
    recordings, _ = pair_patterns(f"{tmp_path}/rec/*/ir.mp4", f"{tmp_path}/rec/*/vis.mp4", tmp_path / "out", ".mp4")
    output = recordings[0].output
    made = made_of(recordings[0], check(BatchOptions(FusionOptions(EngineChoice(weights=weights))), recordings))
    figures = {"frames": FRAMES, "seconds": 1.0, "segments": 1}
    with receipts.aside(output) as aside:
        aside.write_bytes(b"whole")
        receipts.deliver(aside, output, made, figures, False)
    receipts.work_of(output).mkdir()
    receipts.segment_file(output, made, 0).touch()
    said = command.main(
        [*patterns(tmp_path), "-o", str(output.parent), "--weights", str(weights)], standalone_mode=False
    )
    assert said == 0
    assert report_of(output.parent)["counts"]["skipped"] == 1
    check_nothing_half_done(output.parent, ["c000"])


def test_ctrl_c_stops_at_once_and_says_what_is_left(tmp_path: Path, weights: Path) -> None:
    write_archive(tmp_path, 2)
    for role in ("ir", "vis"):
        write_video(tmp_path / f"rec/c001/{role}.mp4", every(40, 400))
    out = tmp_path / "out"
    with batch(*patterns(tmp_path), "-o", out, "--workers", 1, *options(weights)) as process:
        until(lambda: (out / ".c001.mp4.work").is_dir() and any((out / ".c001.mp4.work").iterdir()))
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to the workers, too
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert report_of(out)["counts"]["left"] == 1
    assert [path.stem for path in outputs_of(out)] == ["c000"]
    assert not list(out.glob(".*.work"))


def test_a_tree_of_sequences(tmp_path: Path, weights: Path) -> None:
    names = [f"{k:08d}.png" for k in range(1, 4)]
    for sequence in ("day/street", "night"):
        write_images(tmp_path / "tree" / sequence / "ir", names)
        write_images(tmp_path / "tree" / sequence / "color", names, colour=True)
    out = tmp_path / "out"
    done("--vot", tmp_path / "tree", "-o", out, "--workers", 1, "--report", tmp_path / "said", *options(weights))
    assert read_video(out / "day/street.mp4")[0] == pytest.approx([0, 33, 67], abs=1)
    assert (out / "night.mp4").exists()
    assert report_of(tmp_path / "said")["counts"]["done"] == 2


def test_bad_usage_is_one_line_and_the_right_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path, 1)
    monkeypatch.setattr(cluster, "CONNECT_S", 0.2)
    pair = patterns(tmp_path)
    out = ["-o", str(tmp_path / "out")]
    for code, words, args in (
        (2, "give one of: a manifest", out),
        (2, "--vis missing", [*pair[:2], *out]),
        (2, "leave it out with --scheduler", [*pair, *out, "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"]),
        (2, "give tcp://HOST:PORT", [*pair, *out, "--scheduler", "127.0.0.1"]),
        (2, "unknown tone", [*pair, *out, "--tone", "loud"]),
        (2, "unknown codec", [*pair, *out, "--codec", "vp9"]),
        (2, "unknown device", [*pair, *out, "--device", "tpu"]),
        (4, "unknown engine 'warp'", [*pair, *out, "--engine", "warp"]),
        (4, "no weights file", [*pair, *out, "--weights", str(tmp_path / "gone")]),
        (1, "no Dask scheduler answers", [*pair, *out, "--scheduler", "tcp://127.0.0.1:1"]),
    ):
        with pytest.raises(StreamfuseError, match=words) as raised:
            command.main(args, standalone_mode=False)
        assert raised.value.exit_code == code
        assert "\n" not in str(raised.value)
    assert not outputs_of(tmp_path / "out")
