"""Runs the processor: as many at once as records are in flight, without a task per record."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from worker.log.partition import Slot

YIELD_EVERY = 64
"""Records after which a worker whose processor never waits lets the loop turn."""


class Pool:
    """Workers take slots in order. One runs until its processor waits; only then the next wakes.

    So a processor that finishes without waiting costs no task and no turn of the loop per
    record, and one that waits gets a (reused) task of its own.
    """

    def __init__(self, process: Callable[[Slot], Awaitable[None]]) -> None:
        self._process = process
        self._work: deque[Slot] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._kick_due = False

    def __len__(self) -> int:
        return len(self._work)

    def add(self, slot: Slot) -> None:
        """Queue one slot."""
        self._work.append(slot)
        self._kick_soon()

    def _kick_soon(self) -> None:
        if not self._kick_due:
            self._kick_due = True
            asyncio.get_running_loop().call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        if not self._work:
            return
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        task = asyncio.create_task(self._worker())
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    async def _worker(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            streak = 0
            while self._work:
                slot = self._work.popleft()
                if self._work:
                    self._kick_soon()  # runs only if this worker has to wait
                await self._process(slot)
                streak += 1
                if streak % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            waiter: asyncio.Future[None] = loop.create_future()
            self._idle.append(waiter)
            await waiter

    async def stop(self) -> None:
        """Cancel every worker; records they had are not committed."""
        self._work.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
