"""An object store in memory whose objects can fail or wait, for tests of what reads from stores."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, Undecided
from worker.media.base import ObjectKey


class MemoryStore:
    """``objects`` by key. ``away``: the store is. ``bad``: keys that fail while it is not.

    ``before`` is called in the reading thread with the key, before anything else.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.bad: set[str] = set()
        self.before: Callable[[str], None] | None = None
        self.reads: Counter[str] = Counter()
        self.checks = 0
        self.closed = False
        self._lock = threading.Lock()

    def read(self, key: ObjectKey, max_bytes: int) -> bytes:
        with self._lock:
            self.reads[key.key] += 1
        if self.before is not None:
            self.before(key.key)
        if self.away or key.key in self.bad:
            raise DependencyUnavailable("store", "on demand")
        data = self.objects.get(key.key)
        if data is None:
            raise Undecided(UndecidedReason.IMAGE_MISSING, field="uri", detail="no such object")
        if len(data) > max_bytes:
            raise Undecided(UndecidedReason.IMAGE_TOO_LARGE, field="uri", detail="over the cap")
        return data

    def check(self) -> None:
        self.checks += 1
        if self.away:
            raise DependencyUnavailable("store", "on demand")

    def close(self) -> None:
        self.closed = True
