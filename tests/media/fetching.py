"""What the fetcher's test modules share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from worker.clock import SystemClock
from worker.contracts.event import ImageRef
from worker.images import FetchedImage
from worker.media.base import ObjectStore
from worker.media.fetch import ImageFetcher
from worker.settings import Store


def ref(key: str, **pins: str) -> ImageRef:
    return ImageRef(uri=f"s3://images/{key}", **pins)


def refs(*keys: str) -> list[ImageRef]:
    return [ref(key) for key in keys]


@asynccontextmanager
async def fetching(store: ObjectStore, **changes: Any) -> AsyncIterator[ImageFetcher]:
    """A fetcher that has started, over the bucket ``images``."""
    settings = Store(**{"buckets": ("images",), "threads": 8, "max_images": 64, **changes})
    fetcher = ImageFetcher(store, settings, SystemClock())
    await fetcher.start()
    try:
        yield fetcher
    finally:
        await fetcher.stop()


async def fetched(fetcher: ImageFetcher, wanted: Sequence[ImageRef]) -> tuple[FetchedImage, ...]:
    """The images of one event, whose bytes are given back at once."""
    async with fetcher.fetch(wanted) as images:
        return images


def errors(images: Sequence[FetchedImage]) -> list[str | None]:
    return [image.error for image in images]


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until ``holds``, at most ``seconds``."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
