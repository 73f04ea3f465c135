"""Packages that only evaluation needs; fusing does without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamfuse.errors import UsageError


@contextmanager
def research_packages() -> Iterator[None]:
    """Around an import of one of them: says how to install what is missing (UsageError)."""
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise UsageError(f"this needs the package {package}: pip install 'streamfuse[research]'") from None
