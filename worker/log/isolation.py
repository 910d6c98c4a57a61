"""Records that may kill the worker are delivered alone, and the log is told before each try."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from worker.concurrency import Signal
from worker.log.base import Log, Mark
from worker.log.partition import Lane, Slot
from worker.records import TopicPartition
from worker.settings import Stream

log = logging.getLogger(__name__)

UNJUDGED_TRIES = 2
"""Tries of passing a record on unjudged, after which not even its event is read."""


class Isolation:
    """Walks the suspected records of all lanes, one in flight in the whole process.

    Each try is committed as a mark first, so a crash is counted against exactly the record that
    was in flight. At ``poison_give_up_after`` tries a record is passed on as poison, and where
    even that ends the worker, as one that nothing may be read of; with the culprit found, nothing
    is suspected any more.
    """

    def __init__(
        self,
        lanes: Mapping[TopicPartition, Lane],
        log: Log,
        settings: Stream,
        signal: Signal,
        quiet: Callable[[], bool],
        process: Callable[[Slot], Awaitable[None]],
        finished: Callable[[], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._lanes = lanes
        self._log = log
        self._give_up_after = settings.poison_give_up_after
        self._signal = signal
        self._quiet = quiet
        self._process = process
        self._finished = finished
        self._failed = failed
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """Whether everything else has to wait."""
        return self._task is not None

    def begin(self) -> None:
        """Start walking, unless that is under way."""
        if self._task is None:
            self._task = asyncio.create_task(self._walk())

    async def stop(self) -> None:
        """End the walk; the record in flight is redelivered."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _next(self) -> Lane | None:
        for lane in self._lanes.values():
            if lane.suspect and lane.backlog and not lane.closing:
                return lane
        return None

    async def _walk(self) -> None:
        try:
            while (lane := self._next()) is not None:
                await self._signal.until(self._quiet)
                if lane.backlog and not lane.closing:
                    await self._deliver_alone(lane, lane.backlog.popleft())
        except Exception as error:
            self._failed(error)
        finally:
            self._task = None
            self._finished()

    async def _deliver_alone(self, lane: Lane, slot: Slot) -> None:
        tries = lane.mark.attempts
        poison = tries >= self._give_up_after
        mark = Mark(attempts=tries + 1, until=lane.until)
        await self._log.commit(lane.claim, (), lane.committed, mark)
        lane.mark = mark
        if poison:
            log.error(
                "record passed on as poison",
                extra={
                    "topic": lane.source.topic,
                    "partition": lane.source.partition,
                    "offset": slot.offset,
                    "attempts": tries,
                },
            )
            for other in self._lanes.values():
                other.until = 0
        slot.delivery = msgspec.structs.replace(
            slot.delivery,
            attempts=tries + 1,
            isolated=True,
            poison=poison,
            untouchable=tries >= self._give_up_after + UNJUDGED_TRIES,
        )
        await self._process(slot)
        await self._signal.until(lambda: lane.committed > slot.offset or lane.closing)
