"""Clusters: the one of docs/batch.md, and who is let into our own."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dask
import psutil
import pytest
from batches import ROOT, batch, done, options, outputs_of, report_of, until, write_archive
from distributed import Client
from media import every, write_video
from streams import free_port

from streamfuse.batch import cluster
from streamfuse.batch.options import BatchOptions, check
from streamfuse.batch.recordings import Recording
from streamfuse.batch.run import Run, State, plan
from streamfuse.errors import StreamfuseError, UsageError
from streamfuse.options import EngineChoice, FusionOptions


@pytest.fixture
def weights(full_weights: Path) -> Path:
    """A network slow enough to be interrupted at work."""
    return full_weights


@contextmanager
def two_workers(root: Path) -> Iterator[tuple[str, list[str]]]:
    """The example of docs/batch.md up to `streamfuse batch`, at a free port; that line's command and options."""
    text = (ROOT / "docs/batch.md").read_text()
    example = next(block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "dask scheduler" in block)
    example = example.replace("8786", str(free_port())).replace("8787", "0")
    lines = example.strip().splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("streamfuse batch"))
    start, command, ends = lines[:place], lines[place], lines[place + 1 :]
    assert ends
    assert all(line.startswith("kill ") for line in ends)
    dask = f"{sys.executable} -m dask"
    script = "\n".join([line.replace("dask", dask, 1) for line in start] + ["wait"])
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=root,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield re.findall(r"tcp://\S+", command)[0], command.replace("'", "").split()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_two_workers_as_documented(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = write_archive(tmp_path, 6)
    monkeypatch.chdir(tmp_path)
    with two_workers(tmp_path) as (address, command):
        assert command[:2] == ["streamfuse", "batch"]
        done(*command[2:], *options(weights))
        assert [path.stem for path in outputs_of(tmp_path / "fused")] == names
        made = report_of(tmp_path / "fused")
        assert made["cluster"] == f"the cluster {address}"
        assert len({recording["worker"] for recording in made["recordings"]}) == 2
        assert listening_on(address) == {"127.0.0.1"}
        # A command that is stopped takes its recordings along: the workers, which stay, give them up.
        for role in ("ir", "vis"):
            write_video(tmp_path / f"rec/c005/{role}.mp4", every(40, 1500))
        work = tmp_path / "fused/.c005.mp4.work"
        with batch(*command[2:], "--force", *options(weights)) as process:
            until(lambda: work.is_dir() and any(work.iterdir()))
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 143, said
        until(lambda: not work.exists(), 10)
        assert report_of(tmp_path / "fused")["counts"]["left"] == 1
        # And one whose scheduler dies says so.
        with batch(*command[2:], "--force", *options(weights)) as process:
            until(lambda: work.is_dir() and any(work.iterdir()))
            processes_of(address, "scheduler")[0].kill()
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 1, said
        assert "the Dask scheduler does not answer any more" in said
        assert "Traceback" not in said


def processes_of(address: str, word: str) -> list[psutil.Process]:
    """Those of a Dask cluster."""
    port = address.rpartition(":")[2]
    found = []
    for each in psutil.process_iter(["cmdline"]):  # None of one that is just ending
        line = " ".join(each.info["cmdline"] or [])
        if line.startswith(f"{sys.executable} -m dask {word}") and port in line:
            found.append(each)
    return found


def listening_on(address: str) -> set[str]:
    members = [*processes_of(address, "scheduler"), *processes_of(address, "worker")]
    members += [child for member in members for child in member.children(recursive=True)]
    connections = [connection for member in members for connection in member.net_connections("tcp")]
    return {connection.laddr.ip for connection in connections if connection.status == "LISTEN"}


def test_workers_of_this_machine_do_not_sample_themselves() -> None:
    """There is no page that would show it."""
    with cluster.local(1, []) as client:
        client.wait_for_workers(1)
        assert list(client.run(dask.config.get, "distributed.worker.profile.enabled").values()) == [False]


INVITED = """
import os, sys
from streamfuse.batch import cluster

if __name__ == "__main__":
    with cluster.remote(sys.argv[1]) as client:
        print(client.submit(os.getppid, pure=False).result())
"""


def test_nobody_else_is_let_into_a_cluster_of_our_own(tmp_path: Path) -> None:
    with cluster.local(1, []) as client:
        address = client.scheduler_info()["address"]
        assert address.startswith("tls://127.0.0.1:")
        assert client.submit(os.getppid).result() == os.getpid()
        for scheme in ("tls", "tcp"):
            with (
                pytest.raises(StreamfuseError, match="no Dask scheduler answers"),
                cluster.remote(f"{scheme}://{address.partition('://')[2]}"),
            ):
                pass
        security = client.security
        files = {}
        for name in ("tls_ca_file", "tls_client_cert", "tls_client_key"):
            files[name] = tmp_path / name
            files[name].write_text(getattr(security, name))
        as_documented = {
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(files["tls_ca_file"]),
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": str(files["tls_client_cert"]),
            "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": str(files["tls_client_key"]),
        }
        invited = subprocess.run(
            [sys.executable, "-c", INVITED, address],
            env={**os.environ, **as_documented, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (invited.returncode, invited.stdout) == (0, f"{os.getpid()}\n"), invited.stderr
        ports = psutil.Process().net_connections("tcp")
        assert {one.laddr.ip for one in ports if one.status == "LISTEN"} == {"127.0.0.1"}


def test_nothing_is_left_of_a_client_that_found_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collected in the thread that the next one waits for, it would stop that for 10 s."""
    monkeypatch.setattr(cluster, "CONNECT_S", 0.2)
    gc.collect()
    before = sum(type(each) is Client for each in gc.get_objects())
    gc.disable()
    try:
        with (
            pytest.raises(StreamfuseError, match="no Dask scheduler answers"),
            cluster.remote(f"tcp://127.0.0.1:{free_port()}"),
        ):
            pass
        assert sum(type(each) is Client for each in gc.get_objects()) <= before
    finally:
        gc.enable()


def test_it_is_known_how_far_a_long_recording_is(tmp_path: Path, weights: Path) -> None:
    for role in ("ir", "vis"):
        write_video(tmp_path / f"{role}.mp4", every(40, 60))
    options(weights)
    fusing = check(BatchOptions(FusionOptions(EngineChoice("openvino", "fp32", weights=weights))), [])
    entries = plan(
        [Recording(tmp_path / "out.mp4", str(tmp_path / "ir.mp4"), str(tmp_path / "vis.mp4"))], fusing, False
    )
    states: list[State] = []
    with cluster.local(1, []) as client:
        Run(client, entries, fusing, False)(states.append)
    frames = [state.frames for state in states]
    assert any(0 < state.frames < 60 and state.done == 0 for state in states)
    assert frames == sorted(frames)
    assert (states[-1].frames, states[-1].done) == (60, 1)


def test_without_dask_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'streamfuse\[cluster\]'"):
        cluster.check_installed()


def test_a_worker_for_each_core_or_gpu_that_fits() -> None:
    gigabyte = 1_000_000_000
    assert cluster.worker_count(2, 16 * gigabyte, 0) == 2
    assert cluster.worker_count(16, 10 * gigabyte, 0) == 6
    assert cluster.worker_count(16, gigabyte, 0) == 1
    assert cluster.worker_count(4, None, 0) == 4
    assert cluster.worker_count(16, 100 * gigabyte, 2) == 2


def test_each_worker_sees_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert cluster.visible_gpus() == ["3", "GPU-abc"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert cluster.visible_gpus() == []
    with cluster.local(2, ["3", "GPU-abc"]) as client:
        assert set(client.run(os.getenv, "CUDA_VISIBLE_DEVICES").values()) == {"3", "GPU-abc"}
