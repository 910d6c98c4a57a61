"""Which record is judged next: fair shares between keys and topics, bounded by workers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable

from worker.log.partition import InFlight

YIELD_EVERY = 64
"""Records after which a worker whose processor never waits lets the loop turn."""
LEAST_SHARE = 32
"""While others want to run, a share runs no more than a 32nd of what may run at once."""


class FairQueue:
    """Runs the processor over queued records: the shares take turns, each in its own order.

    At most ``limit`` records run at once. A share is whoever the work is done for (a key of a
    topic). While more than one share has work here, each may have at most ``limit`` /
    ``LEAST_SHARE`` records running; alone it may have everything. So what one conversation sends
    waits for itself, and not in front of the judge.

    Workers are reused tasks: one runs until its processor waits, and only then the next wakes. A
    processor that finishes without waiting costs no task and no turn of the loop per record.
    """

    def __init__(self, process: Callable[[InFlight], Awaitable[None]], limit: int) -> None:
        self._process = process
        self._limit = limit
        self._most = max(1, limit // LEAST_SHARE)
        self._busy = 0
        self._queues: dict[Hashable, deque[InFlight]] = {}
        self._turns: deque[Hashable] = deque()
        """Shares with queued records that may start one now."""
        self._running: dict[Hashable, int] = {}
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._kick_due = False

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, record: InFlight) -> None:
        """Queue one record."""
        share = record.share
        queue = self._queues.get(share)
        if queue is None:
            queue = self._queues[share] = deque()
            self._turns.append(share)
        queue.append(record)
        self._kick_soon()

    def _next(self) -> InFlight | None:
        for _ in range(len(self._turns) if self._busy < self._limit else 0):
            share = self._turns.popleft()
            alone = len(self._queues) == 1 and self._running.keys() <= {share}
            if not alone and self._running.get(share, 0) >= self._most:
                self._turns.append(share)
                continue
            queue = self._queues[share]
            record = queue.popleft()
            if queue:
                self._turns.append(share)
            else:
                del self._queues[share]
            return record
        return None

    def _kick_soon(self) -> None:
        if not self._kick_due:
            self._kick_due = True
            asyncio.get_running_loop().call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        if not self._turns:
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
            while (record := self._next()) is not None:
                share = record.share
                self._running[share] = self._running.get(share, 0) + 1
                self._busy += 1
                if self._turns:
                    self._kick_soon()  # runs only if this worker has to wait
                try:
                    await self._process(record)
                finally:
                    self._busy -= 1
                    left = self._running[share] - 1
                    if left:
                        self._running[share] = left
                    else:
                        del self._running[share]
                streak += 1
                if streak % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            waiter: asyncio.Future[None] = loop.create_future()
            self._idle.append(waiter)
            await waiter

    async def stop(self) -> None:
        """Cancel every worker; records they had are not committed."""
        self._queues.clear()
        self._turns.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
