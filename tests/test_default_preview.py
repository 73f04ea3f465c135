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
from command_line import fails
from media import every, write_video
from test_web_browser import browser, opened  # noqa: F401
from test_web_cli import LIVE, running, status
from web import until

from streamfuse.cli.browser import has_display, open_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
STAND_IN = """#!{python}
import pathlib, sys
pathlib.Path({file!r}).write_text(" ".join(sys.argv[1:]))
"""


def stand_in(tmp_path: Path) -> tuple[Path, Path]:
    """A program in the place of a browser, and the file to which it writes its arguments."""
    program, file = tmp_path / "browser", tmp_path / "opened.txt"
    program.write_text(STAND_IN.format(python=sys.executable, file=str(file)))
    program.chmod(0o755)
    return program, file


def shows_a_picture(page: object) -> bool:
    """The canvas of the fused view has levels that differ, as a scene has and an empty canvas has not."""
    value = page.evaluate(  # type: ignore[attr-defined]
        """() => { const canvas = document.querySelector("figure[data-view=fused] canvas");
        if (!canvas?.width) return 0;
        const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(data.filter((_, index) => index % 4 === 0)).size; }"""
    )
    return int(value) > 8


def test_a_real_browser_shows_a_picture_with_nothing_else_given(browser: Browser) -> None:  # noqa: F811
    with running(*LIVE, **NO_DISPLAY) as (process, read):
        url = read("preview: ").split()[-1]
        assert re.fullmatch(r"http://127\.0\.0\.1:(80[89]\d|81\d\d)/", url)
        port = int(url.rstrip("/").rpartition(":")[2])
        with opened(browser, port) as page:
            until(lambda: shows_a_picture(page), 180)
        process.send_signal(signal.SIGINT)
        read("dropped")
        assert process.wait(30) == 0


def test_the_page_says_that_a_recording_has_ended_and_keeps_its_last_picture(
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


def test_two_at_once_take_the_next_free_ports_and_open_the_browser(tmp_path: Path) -> None:
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


def test_an_address_that_is_taken_is_not_the_previews_fault() -> None:
    """The preview tries the next port; --metrics does not."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in fails(5, "cannot serve --metrics", "run", *LIVE, "--metrics", address)


def test_where_a_window_can_be_shown() -> None:
    assert has_display("linux", {"DISPLAY": ":0"})
    assert has_display("linux", {"WAYLAND_DISPLAY": "wayland-0"})
    assert not has_display("linux", {"DISPLAY": "", "PATH": "/bin"})
    assert has_display("darwin", {})
    assert has_display("win32", {})


@pytest.mark.parametrize("name", ["w3m", "/usr/bin/lynx", "www-browser"])
def test_never_in_a_text_browser(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser(name))
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: started.append(args))
    assert open_browser("http://127.0.0.1:8080/") is None
    assert started == []


def test_without_any_browser_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> webbrowser.BaseBrowser:
        raise webbrowser.Error("could not locate runnable browser")

    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(webbrowser, "get", none)
    assert open_browser("http://127.0.0.1:8080/") is None
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(webbrowser, "get", lambda: pytest.fail("there is no display"))
    assert open_browser("http://127.0.0.1:8080/") is None
