"""Opening the preview in the user's browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Mapping
from pathlib import PurePath

TEXT_BROWSERS = frozenset({"www-browser", "lynx", "links", "links2", "elinks", "w3m", "browsh", "carbonyl"})
"""They would take over the terminal, and do not show pictures in motion."""


def has_display(system: str = sys.platform, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a browser can show a window: on Linux X11 or Wayland must be there."""
    return system in ("darwin", "win32") or any(environment.get(key) for key in ("DISPLAY", "WAYLAND_DISPLAY"))


def open_browser(url: str) -> threading.Thread | None:
    """Open `url` in a graphical browser, in a thread: some browsers return only when they are closed.

    Returns None where there is no display or no such browser.
    """
    if not has_display():
        return None
    try:
        browser = webbrowser.get()
    except webbrowser.Error:
        return None
    if PurePath(getattr(browser, "name", "")).name in TEXT_BROWSERS:
        return None
    thread = threading.Thread(target=_open, args=(browser, url), name="streamfuse browser", daemon=True)
    thread.start()
    return thread


def _open(browser: webbrowser.BaseBrowser, url: str) -> None:
    try:
        browser.open(url)
    except OSError:
        return  # the address has been printed
