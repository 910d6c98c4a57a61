"""Images from files of this machine, for a person's command line and for examples of policies.

Never for events: what an event refers to goes through the allow-list of ``ImageFetcher``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from worker.codes import UndecidedReason
from worker.contracts.event import ImageRef
from worker.errors import Undecided
from worker.images import FetchedImage
from worker.media.decode import DecodeLimits, decode
from worker.settings import Store

SCHEME = "file://"


class LocalFileFetcher:
    """Reads ``file://`` references; within the same limits as images of events."""

    def __init__(self, settings: Store) -> None:
        self._max_bytes = settings.max_image_bytes
        self._limits = DecodeLimits(
            max_pixels=settings.max_image_pixels, max_frames=settings.max_frames
        )

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        """One image a reference, in order; a failed one carries its code."""
        yield tuple(await asyncio.gather(*(asyncio.to_thread(self._read, ref.uri) for ref in refs)))

    def _read(self, uri: str) -> FetchedImage:
        path = Path(uri.removeprefix(SCHEME))
        try:
            if path.stat().st_size > self._max_bytes:
                raise Undecided(UndecidedReason.IMAGE_TOO_LARGE)
            frames = decode(path.read_bytes(), self._limits)
        except OSError as error:
            code = UndecidedReason.IMAGE_MISSING
            return FetchedImage(uri=uri, error=code, detail=error.strerror or "cannot be read")
        except Undecided as error:
            return FetchedImage(uri=uri, error=error.reason, detail=error.detail)
        digest = frames[0].sha256.partition("#")[0].partition("@")[0]
        return FetchedImage(uri=uri, sha256=digest, frames=frames)
