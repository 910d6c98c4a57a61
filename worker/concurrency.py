"""Waiting and working together: a condition that tasks change, pieces of work that end as one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

# Several pieces of one event's work at once, of which none outlives the event.

Result = TypeVar("Result")


async def together(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results in order. The first error, or a cancellation, ends what is still under way.

    ``asyncio.gather`` alone would leave the rest running: work and memory for an event that is
    retried from the start.
    """
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def bounded(work: Coroutine[Any, Any, object], timeout_s: float) -> bool:
    """Run ``work`` for so long at most, in a task of its own; whether it ended in time and well.

    Whatever happens in there stays in there, its cancellations too: a library that cancels tasks
    of its own and waits for them lets a ``CancelledError`` out that nobody meant for the caller.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
    finally:
        done = task.done()
        if not done:
            task.cancel()
            task.add_done_callback(_look_at)
    if not done or task.cancelled():
        return False
    return task.exception() is None


def asked_to_cancel() -> bool:
    """Whether the running task was cancelled by whoever has it, and not by what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _look_at(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()


class Signal:
    """Wakes everyone who waits; costs next to nothing while nobody does."""

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    def notify(self) -> None:
        """Something changed: waiters look at their condition again."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait for ``condition``; False where ``timeout_s`` passed first."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            return condition()
        return True
