"""Images of an event: fetched together, within bounds, none ever dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import msgspec

from worker.clock import Clock
from worker.codes import UndecidedReason
from worker.concurrency import together
from worker.contracts.event import ImageRef
from worker.errors import Undecided
from worker.images import FetchedImage
from worker.media.attempts import Attempts, EventDeadline
from worker.media.base import ObjectKey, ObjectStore
from worker.media.budget import ByteBudget, DecoderGate, Lease
from worker.media.cache import Decoded, ImageCache
from worker.media.decode import DecodeLimits
from worker.media.probing import StoreProbe
from worker.media.read import Reader
from worker.media.uri import parse_uri
from worker.resilience.breaker import CircuitBreaker
from worker.settings import Store
from worker.telemetry.instruments import fetch_cache_hits, fetch_duration, inflight_image_bytes
from worker.telemetry.names import Attribute, Span
from worker.telemetry.tracing import stage

_Found = tuple[str | None, Decoded]


class ImageFetcher:
    """Fetches, checks and decodes the images of events, many events at a time.

    ``async with fetcher.fetch(refs) as images`` holds the decoded bytes of the event until the
    block ends: keep judging inside it. Owns ``store`` and closes it.
    """

    def __init__(self, store: ObjectStore, settings: Store, clock: Clock) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._limits = DecodeLimits.of(settings)
        self._cache = ImageCache(settings.cache_bytes)
        self._budget = ByteBudget(settings.inflight_bytes)
        self._pool: ThreadPoolExecutor | None = None
        self._attempts: Attempts | None = None
        self._probe: StoreProbe | None = None

    @property
    def inflight_bytes(self) -> int:
        """Decoded bytes held or reserved by events now."""
        return self._budget.used

    @property
    def cached_bytes(self) -> int:
        """Bytes held by the cache."""
        return self._cache.bytes

    async def start(self) -> None:
        """Make the threads. The store is not called: it may be away when a worker starts."""
        self._pool = ThreadPoolExecutor(self._settings.threads, thread_name_prefix="fetch")
        gate = DecoderGate(self._settings.inflight_bytes // 2)
        reader = Reader(
            self._store, self._cache, gate, self._limits, self._settings.max_image_bytes
        )
        breaker = CircuitBreaker("store", self._clock)
        self._probe = StoreProbe(self._store, breaker, self._settings.max_image_bytes)
        self._attempts = Attempts(reader, self._pool, breaker, self._probe, self._clock)
        inflight_image_bytes.watch(lambda: [(self._budget.used, {})])

    async def stop(self) -> None:
        """Drop reads that have not begun, wait for those that have, close the store."""
        pool, probe = self._pool, self._probe
        self._pool = self._attempts = self._probe = None
        if pool is not None and probe is not None:
            inflight_image_bytes.watch(None)
            pool.shutdown(wait=False, cancel_futures=True)
            await asyncio.to_thread(pool.shutdown)
            await asyncio.to_thread(probe.close)
        self._store.close()

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        """The images of one event in its order; each has frames, or the code why it has none.

        Raises:
            Undecided: ``too_many_images``.
            DependencyUnavailable: the store is away. No image is blamed for that.
        """
        if len(refs) > self._settings.max_images:
            raise Undecided(
                UndecidedReason.TOO_MANY_IMAGES,
                field="images",
                detail=f"{len(refs)} images, over {self._settings.max_images}",
            )
        leases: dict[ObjectKey, Lease] = {}
        try:
            images = await self._traced(refs, leases) if refs else ()
            yield images
        finally:
            for lease in leases.values():
                lease.release()

    async def _traced(
        self, refs: Sequence[ImageRef], leases: dict[ObjectKey, Lease]
    ) -> tuple[FetchedImage, ...]:
        began, result = self._clock.monotonic(), "unavailable"
        try:
            with stage(Span.FETCH, {Attribute.IMAGES: len(refs)}):
                images = await self._fetch(refs, leases)
            result = "failed" if any(image.error for image in images) else "fetched"
            return images
        finally:
            seconds = self._clock.monotonic() - began
            fetch_duration.record(seconds, {Attribute.RESULT: result})

    async def _fetch(
        self, refs: Sequence[ImageRef], leases: dict[ObjectKey, Lease]
    ) -> tuple[FetchedImage, ...]:
        checked = [self._check(ref) for ref in refs]
        # An event may show one object often: it is read and held once.
        keys = list(dict.fromkeys(key for key in checked if isinstance(key, ObjectKey)))
        found: dict[ObjectKey, _Found] = {}
        for key in keys:
            if (kept := self._cache.find(key)) is not None:
                found[key] = kept
                fetch_cache_hits.add(1, {Attribute.RESULT: "pinned"})
        unread = [key for key in keys if key not in found]
        wanted = [
            found[key][1].size if key in found else self._limits.frame_bytes() for key in keys
        ]
        leases.update(zip(keys, await self._budget.lease(wanted), strict=True))
        if unread:
            found.update(await self._read(unread, leases))
        images = [
            _image(ref, *found[key]) if isinstance(key, ObjectKey) else key
            for ref, key in zip(refs, checked, strict=True)
        ]
        return shared_out(images, self._settings.max_event_frames)

    def _check(self, ref: ImageRef) -> ObjectKey | FetchedImage:
        try:
            return parse_uri(ref, self._settings.buckets, self._settings.prefixes)
        except Undecided as fault:
            detail = f"{fault.field}: {fault.detail}"
            return FetchedImage(uri=ref.uri, error=fault.reason.value, detail=detail)

    async def _read(
        self, keys: Sequence[ObjectKey], leases: dict[ObjectKey, Lease]
    ) -> dict[ObjectKey, _Found]:
        attempts, probe = self._attempts, self._probe
        if attempts is None or probe is None:
            raise RuntimeError("fetch() needs start()")
        await probe.admit()
        deadline = EventDeadline(self._clock, self._settings.fetch_deadline_s)
        # The first image that finds the store away ends the event; its other reads are dropped.
        results = await together(attempts.read(key, leases, keys[0], deadline) for key in keys)
        return dict(zip(keys, results, strict=True))


def _image(ref: ImageRef, digest: str | None, decoded: Decoded) -> FetchedImage:
    return FetchedImage(
        uri=ref.uri,
        sha256=digest,
        frames=decoded.frames,
        total=decoded.total,
        scale=decoded.scale,
        error=decoded.error,
        detail=decoded.detail,
    )


def shared_out(images: Sequence[FetchedImage], most: int) -> tuple[FetchedImage, ...]:
    """The images with at most ``most`` views of all of them together, and one of each at least.

    Every image has its first views before any has more: a long animation takes none of another's.
    """
    left = most
    share = [0] * len(images)
    wanting = [index for index, image in enumerate(images) if image.frames]
    while wanting and (left > 0 or not all(share[index] for index in wanting)):
        for index in wanting:
            if left > 0 or not share[index]:
                share[index] += 1
                left -= 1
        wanting = [index for index in wanting if share[index] < len(images[index].frames)]
    return tuple(
        image
        if share[index] == len(image.frames)
        else msgspec.structs.replace(
            image,
            frames=image.frames[: share[index]],
            total=max(image.total, len(image.frames)),
        )
        for index, image in enumerate(images)
    )
