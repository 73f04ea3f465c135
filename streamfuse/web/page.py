"""The page, which is one file, and the policy that keeps everything else out of it."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

_PAGE = files("streamfuse.web").joinpath("page.html").read_text("utf-8")


def page() -> str:
    """HTML with its style and its script inside; it holds nothing about the run."""
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
"""Only the page's own script and style run, and they talk to nobody else."""
