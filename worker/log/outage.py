"""A dependency is away: hold the partition, try its oldest record again, blame no event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from worker.concurrency import Signal
from worker.errors import DependencyUnavailable
from worker.log.partition import InFlight, PartitionState
from worker.settings import Stream
from worker.telemetry.instruments import retries
from worker.telemetry.names import Attribute
from worker.telemetry.redact import Public

log = logging.getLogger(__name__)


class Outages:
    """One probe at a time per partition, with growing waits; all that failed follows in order."""

    def __init__(
        self,
        settings: Stream,
        signal: Signal,
        isolating: Callable[[], bool],
        process: Callable[[InFlight], Awaitable[None]],
        restart: Callable[[PartitionState], None],
        changed: Callable[[], None],
    ) -> None:
        self._initial_s = settings.retry_initial_s
        self._max_s = settings.retry_max_s
        self._signal = signal
        self._isolating = isolating
        self._process = process
        self._restart = restart
        self._changed = changed

    def postpone(self, record: InFlight, error: DependencyUnavailable) -> None:
        """Keep a record that found ``error.dependency`` away, and hold its partition."""
        partition = record.partition
        partition.failed.append(record)
        if partition.dependency == error.dependency:
            return
        # Another one may be away once the first is back: that is what it waits for now.
        partition.dependency = error.dependency
        log.warning(
            "dependency unavailable, partition held",
            extra={
                "dependency": Public(error.dependency),
                "topic": partition.source.topic,
                "partition": partition.source.partition,
            },
        )
        self._changed()
        if partition.retry is None:
            partition.retry = asyncio.create_task(self._retry(partition))

    async def _retry(self, partition: PartitionState) -> None:
        delay = self._initial_s
        while not partition.closing and partition.failed:
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._max_s)
            probe = min(partition.failed, key=lambda record: record.offset)
            if not probe.delivery.isolated:  # one alone must stay alone
                await self._signal.until(lambda: not self._isolating())
            partition.failed.remove(probe)
            retries.add(1, {Attribute.DEPENDENCY: partition.dependency or ""})
            await self._process(probe)
            if probe.outputs is not None:
                break
        partition.retry = None
        if not partition.closing:
            partition.dependency = None
            partition.backlog.extend(partition.failed)
            partition.failed.clear()
            self._restart(partition)
            self._changed()
