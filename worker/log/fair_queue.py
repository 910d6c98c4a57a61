"""Which record is judged next: in the order they came, but for shares that have theirs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable

from worker.log.partition import InFlight

YIELD_EVERY = 64
"""Records after which a worker whose processor never waits lets the loop turn."""
LEAST_SHARE = 64
"""While others want to run, a share runs no more than a 64th of what may run at once."""


class FairQueue:
    """Runs the processor over queued records, ``limit`` at once.

    A share is whoever the work is done for (a key of a topic). While more than one share has work
    here, each may have at most ``limit`` / ``LEAST_SHARE`` records running, and what is above that
    steps aside; alone it may have everything. So what one conversation sends waits for itself, and
    not in front of the judge.

    Workers are reused tasks: one runs until its processor waits, and only then the next wakes. A
    processor that finishes without waiting costs no task and no turn of the loop per record.
    """

    def __init__(self, process: Callable[[InFlight], Awaitable[None]], limit: int) -> None:
        self._process = process
        self._limit = limit
        self._most = max(1, limit // LEAST_SHARE)
        self._queue: deque[InFlight] = deque()
        self._aside: dict[Hashable, deque[InFlight]] = {}
        """Records of shares that have their part; they come before what is queued."""
        self._free: deque[Hashable] = deque()
        """Shares with records aside that may start one now."""
        self._running: dict[Hashable, int] = {}
        self._busy = 0
        self._idle: list[asyncio.Future[None]] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._kick_due = False

    def __len__(self) -> int:
        return len(self._queue) + sum(map(len, self._aside.values()))

    def add(self, record: InFlight) -> None:
        """Queue one record."""
        self._queue.append(record)
        self._kick_soon()

    def _next(self) -> InFlight | None:
        if self._busy >= self._limit:
            return None
        while self._free:
            share = self._free.popleft()
            if waiting := self._aside.get(share):
                return self._from_aside(share, waiting)
        while self._queue:
            record = self._queue.popleft()
            share = record.share
            waiting = self._aside.get(share)
            if waiting is None and self._running.get(share, 0) < self._most:
                return record
            if waiting is None:
                waiting = self._aside[share] = deque()
            waiting.append(record)
        # Nobody else wants anything: what stands aside may go, each share in its turn.
        for share in self._aside:
            waiting = self._aside.pop(share)
            self._aside[share] = waiting
            return self._from_aside(share, waiting)
        return None

    def _from_aside(self, share: Hashable, waiting: deque[InFlight]) -> InFlight:
        record = waiting.popleft()
        if not waiting:
            del self._aside[share]
        return record

    def _kick_soon(self) -> None:
        if not self._kick_due:
            self._kick_due = True
            asyncio.get_running_loop().call_soon(self._kick)

    def _kick(self) -> None:
        self._kick_due = False
        if not (self._queue or self._aside) or self._busy >= self._limit:
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
                self._begin(record.share)
                if self._queue or self._aside:
                    self._kick_soon()  # runs only if this worker has to wait
                try:
                    await self._process(record)
                finally:
                    self._end(record.share)
                streak += 1
                if streak % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
            waiter: asyncio.Future[None] = loop.create_future()
            self._idle.append(waiter)
            await waiter

    def _begin(self, share: Hashable) -> None:
        self._busy += 1
        self._running[share] = self._running.get(share, 0) + 1

    def _end(self, share: Hashable) -> None:
        self._busy -= 1
        left = self._running[share] - 1
        if left:
            self._running[share] = left
        else:
            del self._running[share]
        if share in self._aside and left < self._most:
            self._free.append(share)

    async def stop(self) -> None:
        """Cancel every worker; records they had are not committed."""
        self._queue.clear()
        self._aside.clear()
        self._free.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
