"""Packages that only training and evaluation need; fusing does without them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from streamfuse.errors import UsageError


@contextmanager
def research_packages() -> Iterator[None]:
    """Context for importing one of them; raises UsageError, which names the packages to install."""
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise UsageError(f"this needs the package {package}: pip install 'streamfuse[research]'") from None


def check_research_packages(*names: str) -> None:
    """Raise UsageError if a package is missing, before the first pictures are fused or the first steps are done."""
    from importlib.util import find_spec

    with research_packages():
        for name in names:
            if find_spec(name) is None:
                raise ModuleNotFoundError(name=name)
