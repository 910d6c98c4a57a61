"""How late the event loop is: the difference between a timer's due time and when it ran."""

from __future__ import annotations

import asyncio

from worker.clock import Clock, SystemClock
from worker.telemetry import instruments


class LoopProbe:
    """A task that wakes every ``interval_s`` and notes how late it woke."""

    def __init__(self, clock: Clock | None = None, interval_s: float = 0.25) -> None:
        self._clock = clock or SystemClock()
        self._interval_s = interval_s
        self._due: float | None = None
        self._last = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin in the running loop."""
        self._due = self._clock.monotonic() + self._interval_s
        self._task = asyncio.get_running_loop().create_task(self._run(), name="loop-probe")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            self.tick()

    def tick(self) -> None:
        """Note a wake-up now, and when the next one is due."""
        now = self._clock.monotonic()
        if self._due is not None:
            self._last = max(0.0, now - self._due)
            instruments.loop_lag.set(self._last)
        self._due = now + self._interval_s

    def lag_s(self) -> float:
        """Seconds the loop is or last was late; true from another thread while it is stuck."""
        if self._due is None:
            return 0.0
        return max(self._last, self._clock.monotonic() - self._due)

    async def stop(self) -> None:
        """End the task."""
        task, self._task, self._due = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
