"""Commits of one partition: whatever may be published, one transaction after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from worker.clock import Clock
from worker.concurrency import asked_to_cancel
from worker.errors import DependencyUnavailable
from worker.log.base import Log, PartitionLost
from worker.log.partition import InFlight, PartitionState
from worker.records import Output
from worker.telemetry.instruments import commit_duration, commits
from worker.telemetry.names import Attribute
from worker.telemetry.tracing import send_span

MAX_EVENTS = 2000
"""Events in one transaction at most."""
MAX_BYTES = 16 * 1024 * 1024
"""Input bytes in one transaction at most (or one record), so that transactions stay short."""


CANCELLED_ITSELF = DependencyUnavailable("log", "its client cancelled what it was doing")
"""A cancellation that nobody here asked for; taken for an end, it would leave nothing working."""


class Commits:
    """Takes to the log what may be published. While one is under way the next one gathers."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        release: Callable[[InFlight], None],
        committed: Callable[[PartitionState], None],
        lost: Callable[[PartitionState, PartitionLost], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._log = log
        self._clock = clock
        self._release = release
        self._committed = committed
        self._lost = lost
        self._failed = failed
        self.events = 0
        self.last_at = clock.monotonic()

    async def loop(self, partition: PartitionState) -> None:
        """Commit what becomes ready until cancelled; a failure ends the assignment."""
        try:
            while True:
                await partition.ready.wait()
                partition.committing = True  # before it is taken back: never quiet in between
                partition.ready.clear()
                while await self._commit(partition):
                    pass
                if partition.needs_bound:
                    await self.declare(partition)
                partition.committing = False
                self._committed(partition)
        except PartitionLost as error:
            self._lost(partition, error)
        except asyncio.CancelledError:
            if not asked_to_cancel():
                self._failed(CANCELLED_ITSELF)
            raise
        except Exception as error:
            self._failed(error)
        finally:
            partition.committing = False

    async def _commit(self, partition: PartitionState) -> bool:
        async with partition.commit_lock:  # what is committed next says what was committed before
            return await self._publish(partition)

    async def _publish(self, partition: PartitionState) -> bool:
        publishable = partition.take(MAX_EVENTS, MAX_BYTES)
        if publishable is None:
            return False
        taken = publishable.records
        outputs: list[Output] = []
        for record in taken:
            outputs.extend(record.outputs or ())
        metadata = msgspec.structs.replace(
            partition.metadata(publishable.next_offset), finished=publishable.finished
        )
        started = self._clock.monotonic()
        labels, result = {Attribute.TOPIC: partition.source.topic}, "failed"
        try:
            with send_span([record.outputs for record in taken if record.outputs]):
                await self._log.commit(
                    partition.assignment, outputs, publishable.next_offset, metadata
                )
            result = "committed"
        finally:
            commits.add(1, {**labels, Attribute.RESULT: result})
        now = self._clock.monotonic()
        partition.unfinished.remove(taken)
        partition.moved(publishable.next_offset, metadata, now)
        self.events += len(taken)
        self.last_at = now
        commit_duration.record(now - started, labels)
        for record in taken:
            self._release(record)
        self._committed(partition)
        return True

    async def declare(self, partition: PartitionState) -> None:
        """Commit what is about to be started, and nothing else.

        Raises:
            PartitionLost: as ``Log.commit``.
        """
        async with partition.commit_lock:
            next_offset, finished = partition.finished()
            metadata = msgspec.structs.replace(partition.metadata(next_offset), finished=finished)
            await self._log.commit(partition.assignment, (), next_offset, metadata)
            partition.moved(next_offset, metadata, self._clock.monotonic())

    async def rest(self, partition: PartitionState) -> None:
        """Commit that nothing is in flight here any more: an orderly end counts for nothing.

        Raises:
            PartitionLost: as ``Log.commit``.
        """
        async with partition.commit_lock:
            next_offset, finished = partition.finished()
            metadata = msgspec.structs.replace(partition.at_rest(next_offset), finished=finished)
            await self._log.commit(partition.assignment, (), next_offset, metadata)
