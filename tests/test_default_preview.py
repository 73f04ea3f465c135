"""`streamfuse run` with sources and nothing else: a preview in the browser."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_line import fails, streamfuse
from media import PassThrough, every, write_video
from test_web_browser import browser, opened  # noqa: F401
from test_web_cli import LIVE, running, status
from web import until

from streamfuse.cli.browser import has_display, open_browser
from streamfuse.fuser import Fuser
from streamfuse.pipeline import Pipeline
from streamfuse.sources.file import VideoFile
from streamfuse.sources.paced import PacedSource

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
STAND_IN = """#!{python}
import pathlib, sys
pathlib.Path({file!r}).write_text(" ".join(sys.argv[1:]))
"""


def stand_in(tmp_path: Path) -> tuple[Path, Path]:
    """A program in place of a browser, and the file to which it writes its arguments."""
    program, file = tmp_path / "browser", tmp_path / "opened.txt"
    program.write_text(STAND_IN.format(python=sys.executable, file=str(file)))
    program.chmod(0o755)
    return program, file


def shows_a_picture(page: object) -> bool:
    """Return True if the canvas of the fused view has different levels, unlike an empty canvas."""
    value = page.evaluate(  # type: ignore[attr-defined]
        """() => { const canvas = document.querySelector("figure[data-view=fused] canvas");
        if (!canvas?.width) return 0;
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(data.filter((_, index) => index % 4 === 0)).size; }"""
    )
    return int(value) > 8


def test_browser_shows_a_picture_without_options(browser: Browser) -> None:  # noqa: F811
    with running(*LIVE, **NO_DISPLAY) as (process, read):
        url = read("preview: ").split()[-1]
        assert re.fullmatch(r"http://127\.0\.0\.1:(80[89]\d|81\d\d)/", url)
        port = int(url.rstrip("/").rpartition(":")[2])
        with opened(browser, port) as page:
            until(lambda: shows_a_picture(page), 180)
        process.send_signal(signal.SIGINT)
        read("dropped")
        assert process.wait(30) == 0


def test_page_shows_the_end_and_the_last_picture_of_a_recording(
    tmp_path: Path,
    browser: Browser,  # noqa: F811
) -> None:
    ir, vis = (write_video(tmp_path / f"{name}.mp4", every(100, 30)) for name in ("ir", "vis"))
    begin = time.monotonic()
    with running("--ir", ir, "--vis", vis, **NO_DISPLAY) as (process, read):
        url = read("preview: ").split()[-1]
        with opened(browser, int(url.rstrip("/").rpartition(":")[2])) as page:
            until(lambda: shows_a_picture(page), 180)
            read("fused    30")
            assert process.wait(30) == 0
            assert time.monotonic() - begin > 29 * 0.1  # in real time
            page.get_by_text("The run has ended").wait_for()
            assert shows_a_picture(page)


def test_two_runs_take_successive_ports_and_open_the_browser(tmp_path: Path) -> None:
    program, file = stand_in(tmp_path)
    environment = {"BROWSER": str(program), "DISPLAY": ":9"}
    taken = [socket.create_server(("127.0.0.1", port)) for port in (8080, 8081) if is_free(port)]
    ours = [port for port in range(8080, 8180) if is_free(port)][:2]
    try:
        with running(*LIVE, **environment) as (_, read):
            url = read("preview: ").split()[-1]
            assert url == f"http://127.0.0.1:{ours[0]}/"
            until(file.exists, 60)
            until(lambda: file.read_text() == url)
            file.unlink()
            with running(*LIVE, "--no-open", **environment) as (_, read_other):
                other = read_other("preview: ").split()[-1]
                assert other == f"http://127.0.0.1:{ours[1]}/"
                until(lambda: bool(status(other)["fused"]), 60)
                assert not file.exists()
    finally:
        for one in taken:
            one.close()


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_an_output_or_an_address_opens_no_browser(tmp_path: Path) -> None:
    program, file = stand_in(tmp_path)
    environment = {"BROWSER": str(program), "DISPLAY": ":9"}
    with running(*LIVE, "--preview", "127.0.0.1:0", **environment) as (process, read):
        url = read("preview: ").split()[-1]
        until(lambda: bool(status(url)["fused"]), 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not file.exists()


def test_address_in_use_is_not_retried_for_other_options() -> None:
    """The preview tries the next port; --metrics does not."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in fails(5, "cannot serve --metrics", "run", *LIVE, "--metrics", address)


def test_display_detection() -> None:
    assert has_display("linux", {"DISPLAY": ":0"})
    assert has_display("linux", {"WAYLAND_DISPLAY": "wayland-0"})
    assert not has_display("linux", {"DISPLAY": "", "PATH": "/bin"})
    assert has_display("darwin", {})
    assert has_display("win32", {})


@pytest.mark.parametrize("name", ["w3m", "/usr/bin/lynx", "www-browser"])
def test_text_browsers_are_not_opened(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser(name))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: started.append(args))
    assert open_browser("http://127.0.0.1:8080/") is None
    assert started == []


def test_missing_browser_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> webbrowser.BaseBrowser:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(webbrowser, "get", none)
    assert open_browser("http://127.0.0.1:8080/") is None
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(webbrowser, "get", lambda: pytest.fail("there is no display"))
    assert open_browser("http://127.0.0.1:8080/") is None


@pytest.mark.skipif(sys.platform != "linux" or Path("/dev/video0").exists(), reason="needs Linux without cameras")
def test_without_the_cameras_one_line_says_what_to_do() -> None:
    """No summary of zeros beside it."""
    done = streamfuse("run", "--ir", "cam0", "--vis", "cam1", **NO_DISPLAY)
    assert done.returncode == 3
    preview, error = done.stderr.splitlines()
    assert preview.startswith("note: preview: ")
    assert re.fullmatch(r"error: cam[01]: there is no such camera: connect it, or .*`streamfuse doctor` lists", error)


def test_a_recording_that_is_watched_gets_a_preset_that_keeps_up(tmp_path: Path) -> None:
    class Prepared(Fuser):
        period_ns: int | None = None

        def prepare(self, height: int, width: int, period_ns: int | None = None) -> None:
            self.period_ns = period_ns
            super().prepare(height, width)

    ir, vis = (write_video(tmp_path / f"{name}.mp4", every(20, 3)) for name in ("ir", "vis"))
    for paced in (True, False):
        fuser = Prepared(engine=PassThrough())
        source = PacedSource(VideoFile(vis)) if paced else VideoFile(vis)
        Pipeline(VideoFile(ir), source, fuser=fuser).run()
        assert fuser.period_ns == (source.period_ns if paced else None)
