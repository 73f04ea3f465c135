"""The page in a real browser: headless Chromium, which `scripts/peers` installs."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from streams import free_port
from test_web_hub import decoded
from web import GREYS, TOKEN, Run, picture, pumping, serving, until

from streamfuse.frames import Content, FusedFrame, Role
from streamfuse.sinks.preview import PreviewSink
from streamfuse.sources.base import State
from streamfuse.telemetry import SourceSummary
from streamfuse.temperature import NONE, Scale, TemperaturePlane

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NEAR = 12
"""Tolerance in grey levels: the index of the picture, and the error of JPEG."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("needs Chromium: scripts/peers installs it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield launched
        launched.close()


@contextmanager
def opened(browser: Browser, sink_port: int, rest: str = "", **context: Any) -> Iterator[Page]:
    """Open the page; fail at the end if it had an error or violated its policy."""
    wrong: list[str] = []
    with browser.new_context(**context) as made:
        page = made.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Content Security" in said.text else None)
        page.goto(f"http://127.0.0.1:{sink_port}/{rest}")
        yield page
        assert wrong == []


def grey(page: Page, view: str) -> int:
    """Grey level in the middle of a view's canvas."""
    value = page.evaluate(
        """(view) => { const canvas = document.querySelector(`figure[data-view=${view}] canvas`);
        return canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data[0]; }""",
        view,
    )
    return int(value)


def shows(page: Page, *views: str) -> None:
    """Wait until these views show their streams; no other view may be visible."""
    for view in views:
        until(lambda view=view: GREYS[view] - 3 <= grey(page, view) <= GREYS[view] + NEAR)  # type: ignore[misc]
    on = page.eval_on_selector_all("figure[data-on]", "all => all.map(one => one.dataset.view)")
    assert set(on) == set(views)


def becomes(page: Page, true: str) -> None:
    """Wait for a condition: Playwright's own waiting needs eval, which the page's policy forbids."""
    until(lambda: bool(page.evaluate(true)))


def number(page: Page) -> int:
    return int(page.evaluate("state.header?.number ?? 0"))


def advances(page: Page) -> None:
    before = number(page)
    becomes(page, f"(state.header?.number ?? 0) > {before + 5}")


def seen(page: Page, x: float) -> float:
    """Grey level on the screen at a fraction of the picture's width, at a third of its height."""
    box = page.locator("#pictures").bounding_box()
    assert box is not None
    image = decoded(page.screenshot())
    return float(image[round(box["y"] + box["height"] / 3), round(box["x"] + box["width"] * x)].mean())


def test_picture_advances_and_every_view_shows_its_stream(browser: Browser) -> None:
    with serving() as sink, pumping(sink), opened(browser, sink.port) as page:
        advances(page)
        shows(page, "fused")
        for key, views in (("2", ["infrared"]), ("3", ["visible"]), ("1", ["fused"])):
            page.keyboard.press(key)
            shows(page, *views)
            advances(page)
        page.get_by_role("button", name="All side by side").click()
        shows(page, "fused", "infrared", "visible")
        page.keyboard.press("5")
        shows(page, "fused", "visible")
        page.get_by_label("infrared", exact=True).check()
        shows(page, "fused", "infrared")
        page.reload()
        shows(page, "fused", "infrared")  # the address contains the view


def test_only_what_is_watched_is_encoded(browser: Browser) -> None:
    with serving() as sink, pumping(sink), opened(browser, sink.port, "#visible") as page:
        advances(page)
        assert set(sink.hub.encoded) == {"visible"}
        # As if another tab were in front, which headless browsers do not report.
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )

        def rests() -> bool:
            before, at = sink.hub.encoded.total(), newest_number(sink)
            until(lambda: newest_number(sink) > at + 10)
            return sink.hub.encoded.total() == before

        until(rests)


def newest_number(sink: PreviewSink) -> int:
    shown = sink.hub.newest
    return 0 if shown is None else shown.number


def test_split_is_dragged_by_mouse_and_keyboard(browser: Browser) -> None:
    with serving() as sink, pumping(sink), opened(browser, sink.port, "#split") as page:
        shows(page, "fused", "visible")
        fused, visible = (pytest.approx(GREYS[view] + 5, abs=NEAR) for view in ("fused", "visible"))
        assert [seen(page, 0.3), seen(page, 0.7)] == [fused, visible]
        box = page.locator("#pictures").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        divider = page.get_by_role("slider", name="Divider")
        assert divider.get_attribute("aria-valuenow") == "20"
        assert [seen(page, 0.1), seen(page, 0.3)] == [fused, visible]
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"])  # the button is released: no drag
        divider.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        assert divider.get_attribute("aria-valuenow") == "32"
        assert seen(page, 0.27) == fused
        page.keyboard.press("End")
        assert seen(page, 0.97) == fused
        page.keyboard.press("Home")
        assert seen(page, 0.1) == visible
        assert divider.get_attribute("aria-valuetext") == "0 % fused, the rest visible"


@pytest.mark.timed
def test_stalled_page_slows_no_other(browser: Browser) -> None:
    """One page handles no message any more; the other continues at full rate."""
    with ExitStack() as stack:
        sink = stack.enter_context(serving())
        stack.enter_context(pumping(sink, 0.04))
        stalled = stack.enter_context(opened(browser, sink.port))
        watching = stack.enter_context(opened(browser, sink.port))
        advances(stalled)
        advances(watching)
        stalled.evaluate("() => { link.socket.onmessage = () => {}; }")  # shows and acknowledges nothing
        stopped = number(stalled)
        begin, first = time.monotonic(), number(watching)
        becomes(watching, f"state.header.number >= {first + 50}")
        took_s = time.monotonic() - begin
        assert number(stalled) <= stopped + 1
        assert sink.hub.viewers == 2
        assert took_s < 50 * 0.04 * 2


def test_state_of_the_run_and_of_its_streams(browser: Browser) -> None:
    run = Run()
    with serving(run=run) as sink, opened(browser, sink.port) as page:
        page.get_by_text("Waiting for the first picture").wait_for()
        sink.write(picture(0))
        page.locator("#figures").get_by_text(re.compile(r"fps . .* skew \+4\.0\sms . 3 dropped")).wait_for()
        page.locator("#shown").get_by_text("Fused", exact=True).wait_for()
        page.get_by_text("visible: late: by far").wait_for()
        page.get_by_role("row", name=re.compile("fuse 20.0 20.0")).wait_for()
        sink.write(picture(1, content=Content.INFRARED))
        page.locator("#shown").get_by_text("Infrared passthrough: visible is away").wait_for()
        page.keyboard.press("3")
        page.get_by_text("The visible stream is away").wait_for()
        away = {**run.summary.sources, Role.VIS: SourceSummary(State.BACKOFF, 3, "cam1", 0.04)}
        run.summary = replace(run.summary, sources=away)
        page.get_by_role("listitem").get_by_text("waiting to reconnect").wait_for()
        page.get_by_text(re.compile(r"3\sreconnects")).wait_for()
        page.get_by_role("status").get_by_text("Not ready: visible: waiting to reconnect").wait_for()
        page.get_by_text(re.compile(r"No new picture for \d+ s")).wait_for()


def test_snapshots_match_the_view(browser: Browser, tmp_path: Path) -> None:
    with serving() as sink, opened(browser, sink.port, "#infrared", accept_downloads=True) as page:
        sink.write(picture(2))
        shows(page, "infrared")
        for key, name, greys in (
            ("2", r"streamfuse-infrared-[-\d]+\.jpg", [GREYS["infrared"] + 2] * 2),
            ("5", r"streamfuse-split-[-\d]+\.png", [GREYS["fused"] + 2, GREYS["visible"] + 2]),
        ):
            page.keyboard.press(key)
            if key == "5":
                shows(page, "fused", "visible")
            with page.expect_download() as download:
                page.keyboard.press("s")
            assert re.fullmatch(name, download.value.suggested_filename)
            download.value.save_as(tmp_path / "x")
            image = cv2.imdecode(np.fromfile(tmp_path / "x", np.uint8), cv2.IMREAD_GRAYSCALE)
            assert image is not None
            assert image.shape == (48, 64)
            assert [int(image[24, 10]), int(image[24, 54])] == pytest.approx(greys, abs=3)


def test_page_recovers_from_a_server_that_was_killed(browser: Browser) -> None:
    port = free_port()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, Path(__file__).with_name("web.py"), str(port)])

    def answers() -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", port)) == 0

    with ExitStack() as stack:
        first = stack.enter_context(start())
        stack.callback(first.kill)
        until(answers)
        page = stack.enter_context(opened(browser, port))
        advances(page)
        first.kill()
        page.get_by_text("not connected").wait_for()
        page.get_by_role("status").get_by_text("No connection to streamfuse").wait_for()
        second = stack.enter_context(start())
        stack.callback(second.kill)
        page.locator("#link").get_by_text("live").wait_for()
        becomes(page, "state.header.number < 1000 && performance.now() - state.pictureAt < 500")
        shows(page, "fused")


def test_end_of_the_run_is_shown(browser: Browser) -> None:
    with ExitStack() as running:
        sink = running.enter_context(serving())
        with opened(browser, sink.port) as page:
            page.locator("#link").get_by_text("live").wait_for()
            running.close()
            page.get_by_text("The run has ended", exact=True).wait_for()


def test_mjpeg_where_websockets_are_refused(browser: Browser) -> None:
    with serving() as sink, pumping(sink), opened(browser, sink.port) as page:
        page.add_init_script(
            "window.WebSocket = class { static OPEN = 1; readyState = 3;"
            "constructor() { setTimeout(() => this.onclose({ code: 1006 }), 0); } };"
        )
        page.reload()
        page.get_by_text("live, by MJPEG").wait_for()
        shows(page, "fused")
        page.keyboard.press("5")
        shows(page, "fused", "visible")
        assert sink.hub.viewers == 2


def test_token_is_asked_for_and_leaves_the_address(browser: Browser) -> None:
    with serving(token=TOKEN) as sink, pumping(sink), browser.new_context() as context:
        page = context.new_page()
        for query in ("", "?token=wrong"):
            answer = page.goto(f"http://127.0.0.1:{sink.port}/{query}")
            assert answer is not None
            assert answer.status == 401
        page.goto(f"http://127.0.0.1:{sink.port}/?token={TOKEN}#visible")
        shows(page, "visible")
        assert page.url == f"http://127.0.0.1:{sink.port}/#visible"
        assert page.evaluate("document.cookie") == ""
        page.reload()
        shows(page, "visible")


def test_foreign_page_gets_nothing(browser: Browser) -> None:
    """A page of another server on this machine: the closest that a foreign page can be."""
    with serving() as sink, serving() as other, opened(browser, other.port) as page:
        sink.write(picture())
        page.goto("about:blank")  # without the policy of the page, which would forbid the attempt
        tried = """async (url) => {
          const socket = new WebSocket(url.replace("http", "ws") + "socket");
          const opened = new Promise((done) => {
            socket.onopen = () => done("opened"); socket.onerror = () => done("refused"); });
          const image = new Promise((done) => { const one = new Image(); one.onload = () => done("loaded");
            one.onerror = () => done("refused"); one.src = url + "snapshot.jpg"; });
          const read = fetch(url + "status").then((answer) => answer.text(), () => "refused");
          return [await opened, await image, await read]; }"""
        assert page.evaluate(tried, f"http://127.0.0.1:{sink.port}/") == ["refused"] * 3
        assert sink.hub.encoded.total() == 0


def warm_picture(index: int = 0) -> FusedFrame:
    """20 degC at the left to 36 degC at the right, 80 degC in row 12, column 40, nothing in the first row."""
    celsius = np.tile(np.linspace(20, 36, 64), (48, 1))
    celsius[12, 40] = 80.0
    plane = TemperaturePlane(np.rint((celsius + 273.15) * 64).astype(np.uint16), Scale(1 / 64))
    plane.values[0] = NONE
    return picture(index, temperature=plane)


def point_at(page: Page, x: float, y: float) -> None:
    """Move the mouse to the middle of a pixel of the 64x48 picture."""
    box = page.locator("#pictures").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * (x + 0.5) / 64, box["y"] + box["height"] * (y + 0.5) / 48)


def test_temperatures_under_the_pointer_and_of_an_area(browser: Browser) -> None:
    """One picture that stands still: the answers do not wait for the next one."""
    with serving() as sink, opened(browser, sink.port) as page:
        sink.write(warm_picture())
        probe, degrees = page.locator("#probe"), page.get_by_role("table", name="Temperature")
        page.locator("#hot").get_by_text("80.0\u00a0\u00b0C").wait_for()
        page.locator("#cold").get_by_text("20.0\u00a0\u00b0C").wait_for()
        hot, box = page.locator("#hot").bounding_box(), page.locator("#pictures").bounding_box()
        assert hot is not None
        assert box is not None
        assert (hot["x"] + hot["width"] / 2 - box["x"]) / box["width"] * 64 == pytest.approx(40.5, abs=0.3)
        assert (hot["y"] + hot["height"] / 2 - box["y"]) / box["height"] * 48 == pytest.approx(12.5, abs=0.3)
        point_at(page, 63, 30)
        probe.get_by_text("36.0\u00a0\u00b0C").wait_for()
        point_at(page, 40, 12)
        probe.get_by_text("80.0\u00a0\u00b0C").wait_for()
        point_at(page, 5, 0)
        probe.get_by_text("no temperature here").wait_for()
        page.get_by_label("\u00b0F").check()
        page.locator("#hot").get_by_text("176.0\u00a0\u00b0F").wait_for()
        point_at(page, 40, 12)
        probe.get_by_text("176.0\u00a0\u00b0F").wait_for()
        page.get_by_label("\u00b0C").check()
        point_at(page, 32, 20)
        page.mouse.down()
        point_at(page, 63, 40)
        page.mouse.up()
        degrees.get_by_role("row", name=re.compile(r"area 28\.1 32\.1 36\.0")).wait_for()
        assert page.locator("#area").is_visible()
        point_at(page, 2, 40)
        page.mouse.down()
        page.mouse.up()
        degrees.get_by_role("row", name=re.compile("pointer 20.5")).wait_for()
        assert page.locator("#area").is_hidden()
        page.keyboard.press("o")
        assert page.locator("#hot").is_hidden()
        page.keyboard.press("4")
        page.keyboard.press("o")
        assert page.locator("#hot").is_hidden()  # side by side
        sink.write(picture(1))  # without temperatures
        page.locator("#warm").wait_for(state="hidden")


def test_temperatures_follow_the_pictures(browser: Browser) -> None:
    with serving() as sink, opened(browser, sink.port) as page:
        for celsius in (40, 41, 42):
            plane = TemperaturePlane(np.full((48, 64), round((celsius + 273.15) * 64), np.uint16), Scale(1 / 64))
            sink.write(picture(celsius, temperature=plane))
            point_at(page, 20, 20)
            page.locator("#probe").get_by_text(f"{celsius}.0").wait_for()
        page.keyboard.press("5")  # the divider is still dragged
        page.mouse.down()
        point_at(page, 40, 20)
        page.mouse.up()
        assert page.locator("#area").is_hidden()
        assert page.get_by_role("slider", name="Divider").get_attribute("aria-valuenow") == "63"
        page.locator("#probe").get_by_text("42.0").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_contrast_names_and_width(browser: Browser, scheme: str, width: int) -> None:
    """Text has the contrast of WCAG AA, 4.5; every control has a name; the page fits the window's width."""
    with (
        serving() as sink,
        pumping(sink),
        opened(browser, sink.port, color_scheme=scheme, viewport={"width": width, "height": 844}) as page,
    ):
        advances(page)
        page.get_by_role("row", name=re.compile("fuse 20.0")).wait_for()
        poor = page.evaluate("""() => {
          const light = (color) => {
            const [r, g, b] = color.match(/[\\d.]+/g).map((v) => v / 255)
              .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b; };
          const ground = (node) => {
            for (; node; node = node.parentElement) {
              const color = getComputedStyle(node).backgroundColor;
              if (!/, 0\\)$/.test(color)) return color; } };
          return [...document.querySelectorAll("body *:not(script)")].filter((node) => node.checkVisibility() &&
              [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())
              && !node.closest("#pictures") && node.getAttribute("aria-hidden") !== "true").map((node) => {
            const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
            return [node.textContent, (a + .05) / (b + .05)]; }).filter(([, ratio]) => ratio < 4.5); }""")
        assert poor == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        unnamed = page.eval_on_selector_all(
            "button, input, canvas, [role=slider]",
            "all => all.filter(one => !(one.getAttribute('aria-label') || one.innerText || one.labels?.length))"
            ".map(one => one.outerHTML)",
        )
        assert unnamed == []
