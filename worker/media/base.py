"""The ObjectStore interface and the values that leave this package."""

from __future__ import annotations

from typing import Protocol

import msgspec


class ObjectKey(msgspec.Struct, frozen=True, kw_only=True):
    """A checked reference: bucket and key are allowed, the pins are well formed."""

    bucket: str
    key: str
    version_id: str | None = None
    sha256: str | None = None


class ObjectStore(Protocol):
    """Reads objects, never writes. Conformance: tests/media/conformance.py."""

    def read(self, key: ObjectKey, max_bytes: int) -> bytes:
        """The whole object, at most ``max_bytes``; blocking, called from a thread of the fetcher.

        Raises:
            Undecided: ``image_missing``, ``image_forbidden`` or ``image_too_large``.
            DependencyUnavailable: the store is away (connection, timeout, throttling, 5xx).
        """
        ...

    def check(self) -> None:
        """Raise ``DependencyUnavailable`` or ``ConfigurationError`` if it cannot serve."""
        ...

    def close(self) -> None: ...
