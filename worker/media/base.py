"""The ObjectStore interface and the values that leave this package."""

from __future__ import annotations

from typing import Protocol

import msgspec

from worker.judge.base import JudgeImage


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


class FetchedImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of an event, in event order: its frames to judge, or the code why there are none.

    ``sha256`` is of the encoded bytes. ``frames`` are the views worth judging, in that order: the
    moments of an animation, the parts of a large image, on light and on dark ground where it is
    partly transparent (worker/media/decode.py says what their digests stand for). ``total`` is how
    many it takes to see everything; 0 means as many as there are.
    """

    uri: str
    sha256: str | None = None
    frames: tuple[JudgeImage, ...] = ()
    total: int = 0
    error: str | None = None
    detail: str = ""
