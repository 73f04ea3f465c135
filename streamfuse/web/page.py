"""The preview page, which is one HTML file, and its Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

_PAGE = files("streamfuse.web").joinpath("page.html").read_text("utf-8")


def page() -> str:
    """Return the HTML with its style and script inline; it contains nothing about the run."""
    return _PAGE


def _hashes(tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_hashes('script')}",
        f"style-src {_hashes('style')}",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Allows only the page's own script and style, and connections to its own server."""
