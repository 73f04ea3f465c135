"""The packages of the extra `ros`, which only bags need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamfuse.errors import UsageError


@contextmanager
def ros_packages() -> Iterator[None]:
    """Context for importing one of them; raises UsageError, which says how to install them."""
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise UsageError(f"bags need the package {package}: pip install 'streamfuse[ros]'") from None
