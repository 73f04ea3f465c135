"""Text that names a source or an output: variables in it, and what of it may be shown."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from streamfuse.errors import UsageError

SCHEME = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_ASKS = re.compile("[?#]")
_VARIABLE = re.compile(r"\$\{(STREAMFUSE_\w+)\}", re.ASCII)


def expand(text: str) -> str:
    """`${STREAMFUSE_NAME}` replaced by that environment variable; nothing else is.

    In the user and password of a URL the value is percent-encoded: a password may hold any of `@ / : %`.  Raises
    UsageError for a variable that is not set, and for what can be no name of anything.
    """
    start, end = _login(text)
    authority = re.match(r"[^/?#]*", text[start:end])
    if authority and "@" in authority[0]:  # the variables hide whatever a password holds, so this is exact
        end = start + authority[0].rindex("@")

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise UsageError(f"{redact(text)} needs the environment variable {match[1]}, which is not set")
        return quote(found, safe="") if start <= match.start() < end else found

    expanded = _VARIABLE.sub(value, text)
    try:
        os.fsencode(expanded)
    except UnicodeEncodeError:
        raise UsageError(f"{redact(text)} holds characters that no name can have") from None
    if "\0" in expanded:
        raise UsageError(f"{redact(text)} holds a zero byte, which no name can have")
    return expanded


def _login(text: str) -> tuple[int, int]:
    """Where the user and password of a URL stand, without the @ after them; (0, 0) where there are none.

    Up to the last @, since a password may have been written with slashes and question marks; an @ that is part of
    the query is taken for that, too: better to hide too much.
    """
    match = SCHEME.match(text)
    if match is None or "@" not in text:
        return 0, 0
    return match.end(), text.rindex("@")


def redact(text: str) -> str:
    """A URL that is safe to show: without user, password, query and fragment."""
    if not SCHEME.match(text):
        return text
    start, end = _login(text)
    if not end:
        return _ASKS.split(text)[0]
    if "?" in text[start:end]:  # the @ may be the query's, and what follows it secret
        return f"{text[:start]}***"
    return f"{text[:start]}***{_ASKS.split(text[end:])[0]}"


def mask(text: str) -> str:
    """Like `redact`, but still an address, its variables as they are: `rtsp://***:${STREAMFUSE_PW}@host/a?key=***`."""
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
    """Whether `text` is a URL and not a path."""
    return SCHEME.match(text) is not None
