"""URLs of sources and outputs: expansion of variables, and masking of secrets."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from streamfuse.errors import UsageError

SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_ASKS = re.compile("[?#]")
_VARIABLE = re.compile(r"\$\{(STREAMFUSE_\w+)\}", re.ASCII)


def expand(text: str) -> str:
    """Replace each `${STREAMFUSE_NAME}` by that environment variable; other variables are not expanded.

    In the user and password of a URL the value is percent-encoded, because a password may contain `@ / : %`.  Raises
    UsageError for a variable that is not set, and for characters that are not allowed in names.
    """
    start, end = _login(text)
    authority = re.match(r"[^/?#]*", text[start:end])
    if authority and "@" in authority[0]:  # exact, because variables are not expanded yet
        end = start + authority[0].rindex("@")

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise UsageError(f"{redact(text)} needs the environment variable {match[1]}, which is not set: set it")
        return quote(found, safe="") if start <= match.start() < end else found

    expanded = _VARIABLE.sub(value, text)
    try:
        os.fsencode(expanded)
    except UnicodeEncodeError:
        raise UsageError(f"{redact(text)} contains characters that are not allowed in names: remove them") from None
    if "\0" in expanded:
        raise UsageError(f"{redact(text)} contains a zero byte, which is not allowed in names: remove it")
    return expanded


def _login(text: str) -> tuple[int, int]:
    """Start and end of a URL's user and password, without the @ after them; (0, 0) if there are none.

    They end at the last @, because a password may contain slashes and question marks.  An @ in the query has the same
    effect: rather too much is hidden than too little.
    """
    match = SCHEME.match(text)
    if match is None or "@" not in text:
        return 0, 0
    return match.end(), text.rindex("@")


def redact(text: str) -> str:
    """Return a URL that is safe to show: without user, password, query and fragment."""
    if not SCHEME.match(text):
        return text
    start, end = _login(text)
    if not end:
        return _ASKS.split(text)[0]
    if "?" in text[start:end]:  # the @ may be part of the query, and the text after it secret
        return f"{text[:start]}***"
    return f"{text[:start]}***{_ASKS.split(text[end:])[0]}"


def mask(text: str) -> str:
    """Mask secrets but keep the URL's form and its variables: `rtsp://***:${STREAMFUSE_PW}@host/a?key=***`."""
    scheme = SCHEME.match(text)
    if scheme is None:
        return text
    start, end = _login(text)
    if "?" in text[start:end]:
        return redact(text)
    login = ":".join(_masked(part) for part in text[start:end].split(":", 1)) if end else ""
    tail, hash_, options = text[max(end, scheme.end()) :].partition("#")
    address, asks, query = tail.partition("?")
    fields = (field.partition("=") for field in query.split("&"))
    shown = "&".join(f"{key}{is_}{_masked(value)}" for key, is_, value in fields)
    return f"{scheme[0]}{login}{address}{asks}{shown}{hash_}{options}"


def _masked(secret: str) -> str:
    return secret if not secret or _VARIABLE.fullmatch(secret) else "***"


def has_scheme(text: str) -> bool:
    """Return True if `text` is a URL and not a path."""
    return SCHEME.match(text) is not None
