"""Asking the store whether it serves, beside the threads that may be stuck in it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.media.base import ObjectKey, ObjectStore
from worker.resilience.breaker import STRIKE, CircuitBreaker

UNPROVEN_STRIKE = STRIKE / 3
"""Weight of a failure while no object was read yet: an answer to ``check`` shows that the store is
there, and not that it can read any data."""


class StoreProbe:
    """Runs in a thread of its own; callers at the same time share one answer.

    Once an object was read (``known_good``), a probe reads it again, whole: a store may answer and
    still cut every body short.
    """

    def __init__(self, store: ObjectStore, breaker: CircuitBreaker, max_bytes: int) -> None:
        self._store = store
        self._breaker = breaker
        self._max_bytes = max_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-probe")
        self._running: asyncio.Future[str | None] | None = None
        self.known_good: ObjectKey | None = None

    @property
    def strike(self) -> float:
        """Weight of a failure beside a probe that passes."""
        return UNPROVEN_STRIKE if self.known_good is None else STRIKE

    async def admit(self) -> None:
        """Pass while the store serves; after a cooldown, find out first.

        Raises:
            DependencyUnavailable: the store is away.
        """
        if self._breaker.needs_probe:
            problem = await self.ask()
            if self._breaker.needs_probe:  # the first of those who shared the answer reports it
                self._breaker.probed(problem is None)
            if problem is not None:
                raise DependencyUnavailable("store", problem)
        await self._breaker.enter()

    async def ask(self) -> str | None:
        """None if the store serves, else what is wrong."""
        if self._running is None or self._running.done():
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(self._thread, self._look)
        return await asyncio.shield(self._running)

    def close(self) -> None:
        """Wait for a probe under way; blocking."""
        self._thread.shutdown(cancel_futures=True)

    def _look(self) -> str | None:
        known = self.known_good
        try:
            self._store.check()
            if known is not None:
                self._store.read(known, self._max_bytes)
        except (DependencyUnavailable, ConfigurationError) as error:
            return str(error)
        except Undecided:  # it was there, and was removed since: an answer, and no proof
            if self.known_good is known:
                self.known_good = None
        return None
