"""Bytes in flight: one bound for decoded images held by events, one for decoders at work.

Neither can deadlock. An event takes all it may need in one go, before it holds anything, and gives
back what it did not need; a decoder takes its share last, and always finishes. Both are served in
order of arrival, and what is larger than the whole bound passes alone.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Lease:
    """Bytes one image holds. Only ever shrinks."""

    def __init__(self, budget: ByteBudget, amount: int) -> None:
        self._budget = budget
        self._amount = amount
        self._holds = 0
        self._released = False

    def shrink(self, amount: int) -> None:
        """Give back all but ``amount`` bytes."""
        spare = self._amount - amount
        if spare > 0:
            self._amount = amount
            self._budget._give_back(spare)

    def release(self) -> None:
        """Give everything back as soon as nothing holds it; again is harmless."""
        self._released = True
        if not self._holds:
            self.shrink(0)

    def hold(self) -> None:
        """A thread may still use these bytes after their event has gone."""
        self._holds += 1

    def unhold(self) -> None:
        """That thread has ended."""
        self._holds -= 1
        if self._released and not self._holds:
            self.shrink(0)


class ByteBudget:
    """Decoded image bytes over all events. Used on one event loop only."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Bytes leased now."""
        return self._used

    async def lease(self, amounts: Iterable[int]) -> list[Lease]:
        """Wait for the sum of ``amounts``, then lease each."""
        wanted = list(amounts)
        total = sum(wanted)
        if self._waiting or not self._fits(total):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((total, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._give_back(total)  # granted and cancelled at once
                else:
                    self._waiting.remove((total, turn))
                    self._serve()
                raise
        else:
            self._used += total
        return [Lease(self, amount) for amount in wanted]

    def _fits(self, amount: int) -> bool:
        return self._used == 0 or self._used + amount <= self._capacity

    def _give_back(self, amount: int) -> None:
        self._used -= amount
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            if turn.done() or not self._fits(amount):
                return  # a cancelled waiter is done: it removes itself and serves the next
            self._waiting.popleft()
            self._used += amount
            turn.set_result(None)


class DecoderGate:
    """Memory of decoders at work, over all threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._used = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def enter(self, amount: int) -> Iterator[None]:
        """Wait for ``amount`` bytes in order of arrival, and hold them."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._fits(amount))
            self._waiting.popleft()
            self._used += amount
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= amount
                self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return self._used == 0 or self._used + amount <= self._capacity
