"""Poison isolation: records that may end the worker are tried alone, and the log is told before."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from worker.clock import Clock
from worker.concurrency import Signal
from worker.log.base import PartitionLost
from worker.log.commit import Commits
from worker.log.partition import InFlight, PartitionState
from worker.records import TopicPartition
from worker.settings import Stream

log = logging.getLogger(__name__)

LEAST_TRIES = 2
"""Ends without a word while a record was alone in flight, before it can be called poison."""
UNJUDGED_TRIES = 2
"""Tries of passing a record on unjudged, after which not even its event is read."""
LEAST_SLICE_S = 0.05
"""Least time that suspects are tried for before others run again."""


class Isolation:
    """Walks the suspects of all partitions, one in flight in the whole process.

    Each try is committed first, with this incarnation's name, so an end without a word is counted
    against exactly the record that was in flight. Once it has ended enough incarnations it is
    passed on as poison, and where even that ends the worker, as one that nothing may be read of.
    Between tries everything else runs for as long as they held it up.
    """

    def __init__(
        self,
        partitions: Mapping[TopicPartition, PartitionState],
        commits: Commits,
        settings: Stream,
        clock: Clock,
        signal: Signal,
        quiet: Callable[[], bool],
        process: Callable[[InFlight], Awaitable[None]],
        released: Callable[[], None],
        lost: Callable[[PartitionState, PartitionLost], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._partitions = partitions
        self._commits = commits
        self._tries = max(
            LEAST_TRIES, settings.poison_give_up_after - settings.poison_isolate_after
        )
        self._clock = clock
        self._signal = signal
        self._quiet = quiet
        self._process = process
        self._released = released
        self._lost = lost
        self._failed = failed
        self._task: asyncio.Task[None] | None = None
        self.active = False
        """Whether everything else has to wait."""

    def begin(self) -> None:
        """Start walking, unless that is under way."""
        if self._task is None:
            self._task = asyncio.create_task(self._walk())

    async def stop(self) -> None:
        """End the walk; the record in flight is redelivered."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _next(self) -> PartitionState | None:
        waiting = [
            partition
            for partition in self._partitions.values()
            if partition.suspected and not partition.closing
        ]
        # One that was alone when a worker ended comes first: it is the likeliest.
        return max(waiting, key=lambda partition: partition.alone, default=None)

    async def _walk(self) -> None:
        try:
            while self._next() is not None:
                began = self._clock.monotonic()
                self.active = True
                await self._signal.until(self._quiet)
                quiet = self._clock.monotonic()
                # As long as it took to get there, so that a search does not consist of waiting.
                while (partition := self._next()) is not None:
                    await self._deliver_alone(partition, partition.suspected.popleft())
                    if self._clock.monotonic() - quiet >= max(quiet - began, LEAST_SLICE_S):
                        break
                self.active = False
                self._released()
                if self._next() is not None:
                    await asyncio.sleep(self._clock.monotonic() - began)
        except Exception as error:
            self._failed(error)
        finally:
            self.active = False
            if self._task is asyncio.current_task():
                self._task = None
                self._released()

    async def _deliver_alone(self, partition: PartitionState, record: InFlight) -> None:
        alone = partition.alone if record.offset == partition.tried else 0
        poison = alone >= self._tries
        partition.tried = partition.trying = record.offset
        partition.alone = alone
        try:
            await self._commits.declare(partition)
        except PartitionLost as error:
            self._lost(partition, error)
            return
        attempts = partition.attempts + alone + 1
        if poison:
            log.error(
                "record passed on as poison",
                extra={
                    "topic": partition.source.topic,
                    "partition": partition.source.partition,
                    "offset": record.offset,
                    "attempts": attempts - 1,
                },
            )
        record.delivery = msgspec.structs.replace(
            record.delivery,
            attempts=attempts,
            isolated=True,
            poison=poison,
            untouchable=alone >= self._tries + UNJUDGED_TRIES,
        )
        await self._process(record)
        await self._signal.until(lambda: record.outputs is not None or partition.closing)
        if record.outputs is not None:
            partition.tried = partition.trying = None
            partition.alone = 0
            await self._signal.until(
                lambda: record.offset not in partition.unfinished or partition.closing
            )
