"""Base class of objects that own files, threads or devices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closeable(ABC):
    """A context manager that is closed at the end of the `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Free everything that the object owns."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
