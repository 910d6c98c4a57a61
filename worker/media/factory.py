"""The store that the settings name."""

from __future__ import annotations

from worker.clock import Clock
from worker.media.base import ObjectStore
from worker.media.directory import DirectoryStore
from worker.media.s3 import S3Store
from worker.settings import Store


def open_store(settings: Store, clock: Clock | None = None) -> ObjectStore:
    """Open ``store.backend``; no call is made yet, ``check()`` makes one.

    Raises:
        ConfigurationError: settings no client can be made from.
    """
    if settings.backend == "directory":
        return DirectoryStore(settings.directory)
    return S3Store(settings, clock)
