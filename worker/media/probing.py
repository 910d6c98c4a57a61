"""Asking the store whether it serves, beside the threads that may be stuck in it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from worker.errors import ConfigurationError, DependencyUnavailable
from worker.media.base import ObjectStore
from worker.media.outage import Outage


class StoreProbe:
    """Runs ``store.check()`` in a thread of its own; callers at the same time share one answer."""

    def __init__(self, store: ObjectStore, outage: Outage) -> None:
        self._store = store
        self._outage = outage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-probe")
        self._running: asyncio.Future[str | None] | None = None

    async def admit(self) -> None:
        """Pass while the store serves; half-open, find out first.

        Raises:
            DependencyUnavailable: the store is away.
        """
        self._outage.admit()
        if not self._outage.needs_probe:
            return
        problem = await self.ask()
        if self._outage.needs_probe:  # the first of those who shared the answer reports it
            self._outage.probed(problem is None)
        if problem is not None:
            raise DependencyUnavailable("store", problem)

    async def ask(self) -> str | None:
        """None if the store answers, else what is wrong."""
        if self._running is None or self._running.done():
            loop = asyncio.get_running_loop()
            self._running = loop.run_in_executor(self._thread, self._check)
        return await asyncio.shield(self._running)

    def close(self) -> None:
        """Wait for a probe under way; blocking."""
        self._thread.shutdown(cancel_futures=True)

    def _check(self) -> str | None:
        try:
            self._store.check()
        except (DependencyUnavailable, ConfigurationError) as error:
            return str(error)
        return None
