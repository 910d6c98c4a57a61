"""Images from files of this machine, for a person's command line and for examples of policies.

Never for events: what an event refers to goes through the allow-list of ``ImageFetcher``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from worker.codes import UndecidedReason
from worker.contracts.event import ImageRef
from worker.errors import Undecided
from worker.images import FetchedImage
from worker.media.decode import DecodeLimits, look_at
from worker.media.fetch import shared_out
from worker.settings import Store

SCHEME = "file://"


class LocalFileFetcher:
    """Reads ``file://`` references; within the same limits as images of events."""

    def __init__(self, settings: Store) -> None:
        self._max_bytes = settings.max_image_bytes
        self._most = settings.max_event_frames
        self._limits = DecodeLimits.of(settings)

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        """One image a reference, in order; a failed one carries its code."""
        read = await asyncio.gather(*(asyncio.to_thread(self._read, ref.uri) for ref in refs))
        yield shared_out(read, self._most)

    def _read(self, uri: str) -> FetchedImage:
        path = Path(uri.removeprefix(SCHEME))
        try:
            if path.stat().st_size > self._max_bytes:
                raise Undecided(UndecidedReason.IMAGE_TOO_LARGE)
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            seen = look_at(data, self._limits, sha256=digest)
        except OSError as error:
            code = UndecidedReason.IMAGE_MISSING
            return FetchedImage(uri=uri, error=code, detail=error.strerror or "cannot be read")
        except Undecided as error:
            return FetchedImage(uri=uri, error=error.reason, detail=error.detail)
        return FetchedImage(
            uri=uri, sha256=digest, frames=seen.frames, total=seen.total, scale=seen.scale
        )
