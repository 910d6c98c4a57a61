"""One image, from key to frames, in one thread: read, check the digest, decode."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress

from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.media.base import ObjectKey, ObjectStore
from worker.media.budget import DecoderGate
from worker.media.cache import Decoded, ImageCache
from worker.media.decode import DecodeLimits, look_at


class Reader:
    """What every read shares. Its methods block and run in threads."""

    def __init__(
        self,
        store: ObjectStore,
        cache: ImageCache,
        gate: DecoderGate,
        limits: DecodeLimits,
        max_bytes: int,
    ) -> None:
        self._store = store
        self._cache = cache
        self._gate = gate
        self._limits = limits
        self._max_bytes = max_bytes

    def load(self, key: ObjectKey, job: Job) -> tuple[str | None, Decoded, bool]:
        """Digest of the bytes read, what they decode to, and whether the cache knew.

        Raises:
            DependencyUnavailable: the store did not answer.
        """
        job.report(job.started)
        try:
            data = self._store.read(key, self._max_bytes)
        except Undecided as refusal:
            return None, _failed(refusal), False
        digest = hashlib.sha256(data).hexdigest()
        job.report(job.answered)
        if key.sha256 is not None and digest != key.sha256:
            mismatch = UndecidedReason.IMAGE_DIGEST_MISMATCH
            return digest, Decoded(error=mismatch.value, detail="sha256 differs"), False
        known = self._cache.get(digest)
        if known is None and job.abandoned:
            return digest, Decoded(error=UndecidedReason.IMAGE_TIMEOUT.value), False
        decoded = known or self._decode(data, digest)
        if decoded is not _EXHAUSTED:
            self._cache.put(key, digest, decoded)
        return digest, decoded, known is not None

    def _decode(self, data: bytes, digest: str) -> Decoded:
        try:
            seen = look_at(data, self._limits, sha256=digest, gate=self._gate)
            return Decoded(frames=seen.frames, total=seen.total, scale=seen.scale)
        except Undecided as fault:
            return _failed(fault)
        except MemoryError:
            return _EXHAUSTED


class Job:
    """One read under way: what it has reached, told to the event loop, and its result."""

    def __init__(self, reader: Reader, key: ObjectKey, pool: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = self._loop.create_future()
        self.answered: asyncio.Future[None] = self._loop.create_future()
        self.abandoned = False
        # A context of its own: a span of this event is the parent of what the thread does.
        context = contextvars.copy_context()
        self._thread = pool.submit(context.run, reader.load, key, self)
        self.result = asyncio.wrap_future(self._thread)

    def report(self, reached: asyncio.Future[None]) -> None:
        """From the thread: tell the event loop that this point was reached."""
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self._loop.call_soon_threadsafe(_reach, reached)

    def abandon(self, then: Callable[[], None]) -> None:
        """Nobody waits any more; ``then`` runs once no thread holds any of its memory.

        A read that has not started never will; one that runs ends without decoding.
        """
        self.abandoned = True
        self.result.add_done_callback(_ignore)
        self._thread.cancel()
        if self.result.done():
            then()
        else:
            self.result.add_done_callback(lambda _: then())


def _reach(reached: asyncio.Future[None]) -> None:
    if not reached.done():
        reached.set_result(None)


def _ignore(result: asyncio.Future[tuple[str | None, Decoded, bool]]) -> None:
    if not result.cancelled():
        result.exception()


def _failed(fault: Undecided) -> Decoded:
    return Decoded(error=fault.reason.value, detail=fault.detail)


_EXHAUSTED = Decoded(error=UndecidedReason.IMAGE_TOO_LARGE.value, detail="not enough memory")
