"""A dependency is away: hold the partition, try its oldest record again, blame no event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from worker.concurrency import Signal
from worker.errors import DependencyUnavailable
from worker.log.partition import Lane, Slot
from worker.settings import Stream
from worker.telemetry.instruments import retries
from worker.telemetry.names import Attribute
from worker.telemetry.redact import Public

log = logging.getLogger(__name__)


class Outages:
    """One probe at a time per lane, with growing waits; all that failed follows in order."""

    def __init__(
        self,
        settings: Stream,
        signal: Signal,
        isolating: Callable[[], bool],
        process: Callable[[Slot], Awaitable[None]],
        restart: Callable[[Lane], None],
        changed: Callable[[], None],
    ) -> None:
        self._initial_s = settings.retry_initial_s
        self._max_s = settings.retry_max_s
        self._signal = signal
        self._isolating = isolating
        self._process = process
        self._restart = restart
        self._changed = changed

    def postpone(self, slot: Slot, error: DependencyUnavailable) -> None:
        """Keep a record that found ``error.dependency`` away, and hold its lane."""
        lane = slot.lane
        lane.failed.append(slot)
        if lane.dependency == error.dependency:
            return
        # Another one may be away once the first is back: that is what it waits for now.
        lane.dependency = error.dependency
        log.warning(
            "dependency unavailable, partition held",
            extra={
                "dependency": Public(error.dependency),
                "topic": lane.source.topic,
                "partition": lane.source.partition,
            },
        )
        self._changed()
        if lane.retry is None:
            lane.retry = asyncio.create_task(self._retry(lane))

    async def _retry(self, lane: Lane) -> None:
        delay = self._initial_s
        while not lane.closing and lane.failed:
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._max_s)
            probe = min(lane.failed, key=lambda slot: slot.offset)
            if not probe.delivery.isolated:  # one alone must stay alone
                await self._signal.until(lambda: not self._isolating())
            lane.failed.remove(probe)
            retries.add(1, {Attribute.DEPENDENCY: lane.dependency or ""})
            await self._process(probe)
            if probe.outputs is not None:
                break
        lane.retry = None
        if not lane.closing:
            lane.dependency = None
            again = sorted(lane.failed, key=lambda slot: slot.offset)
            lane.failed.clear()
            lane.backlog.extendleft(reversed(again))
            self._restart(lane)
            self._changed()
