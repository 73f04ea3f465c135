"""Time limit for clients that do not read what they are sent.

A write to such a client waits as soon as the buffers are full: without a limit, the client would take a viewer's slot
and memory for as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from aiohttp import web

STALL_S = 60.0
"""Time to read one message, s; a 100 KB picture takes 60 s at 13 kbit/s."""


@contextlib.contextmanager
def stall_limit(request: web.Request) -> Iterator[None]:
    """Abort the connection if the block, which writes one message, takes longer than STALL_S."""
    transport = request.transport
    if transport is None:
        yield
        return
    timer = asyncio.get_running_loop().call_later(STALL_S, transport.abort)
    try:
        yield
    finally:
        timer.cancel()
