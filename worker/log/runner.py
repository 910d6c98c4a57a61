"""The service between log and processor: bounded intake, ordered commits, clean ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence

from worker.clock import Clock, SystemClock
from worker.concurrency import Signal
from worker.errors import DependencyUnavailable, FatalError
from worker.log import status as gauges
from worker.log.backpressure import Bounds
from worker.log.base import UNMARKED, Claim, Delivery, Log, Mark, Processor
from worker.log.commit import Commits
from worker.log.isolation import Isolation
from worker.log.outage import Outages
from worker.log.partition import Lane, Slot
from worker.log.pool import Pool
from worker.log.status import StreamStatus, partition_status
from worker.records import Record, TopicPartition
from worker.settings import Stream
from worker.telemetry.redact import Public
from worker.telemetry.tracing import poll_span

log = logging.getLogger(__name__)

POLL_S = 0.2
"""Longest wait of one poll, and until a resumed partition is looked at."""
POLL_RECORDS = 500
LAG_EVERY_S = 5.0
LEAVE_S = 15.0
"""Longest a broken log may take to close before the process ends without it."""


class StreamRunner:
    """Runs ``processor`` over ``topics`` of ``log`` until ``stop`` or a fatal error.

    Every record is delivered at least once and committed once, in input order per partition;
    what was not committed when the process ends is delivered again elsewhere.
    """

    def __init__(
        self,
        log: Log,
        processor: Processor,
        topics: Sequence[str],
        settings: Stream | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._log = log
        self._processor = processor
        self._topics = tuple(topics)
        self._settings = settings or Stream()
        self._clock = clock or SystemClock()
        self._lanes: dict[TopicPartition, Lane] = {}
        self._signal = Signal()
        self._bounds = Bounds(self._settings)
        self._pool = Pool(self._process)
        self._commits = Commits(log, self._clock, self._bounds.release, self._changed, self._fail)
        self._outages = Outages(
            self._settings,
            self._signal,
            lambda: self._isolation.active,
            self._process,
            self._restart,
            self._changed,
        )
        self._isolation = Isolation(
            self._lanes,
            log,
            self._settings,
            self._signal,
            lambda: self._running == 0 and all(lane.quiet for lane in self._lanes.values()),
            self._process,
            self._isolation_finished,
            self._fail,
        )
        self._paused: set[TopicPartition] = set()
        self._running = 0
        self._assigned = False
        self._started = False
        self._stopping = False
        self._revoking = asyncio.Lock()
        self._finish = asyncio.Event()
        self._ended = asyncio.Event()
        self._fatal: FatalError | None = None
        self._lag: dict[TopicPartition, int] = {}
        gauges.observe(self)

    async def run(self) -> None:
        """Join the group and work until ``stop``.

        Raises:
            FatalError: the process must end; nothing that was read is lost.
        """
        tasks: list[asyncio.Task[None]] = []
        self._started = True
        try:
            if not self._stopping:
                await self._log.start(self._topics, self)
                tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._watch_lag())]
                await self._finish.wait()
            await _cancel(tasks)
            if self._fatal is None:
                await self.revoked(list(self._lanes))
        except FatalError as error:
            self._fail(error)
        finally:
            await _cancel(tasks)
            await self._end()
        if self._fatal is not None:
            raise self._fatal

    async def stop(self) -> None:
        """Take nothing in any more, drain for at most ``drain_s``, commit, leave; then return."""
        self._stopping = True
        self._finish.set()
        if self._started:
            await self._ended.wait()

    async def _end(self) -> None:
        self._stopping = True
        self._assigned = False
        try:
            await self._isolation.stop()
            for lane in list(self._lanes.values()):
                await self._drop(lane)
            await self._pool.stop()
            await asyncio.wait_for(self._log.stop(), LEAVE_S)
        except Exception as error:  # everything is committed or will be delivered again
            log.warning(
                "the log was not left in order", extra={"error": Public(type(error).__name__)}
            )
        finally:
            self._ended.set()

    async def assigned(self, claims: Sequence[Claim]) -> None:
        """Take over partitions; each head's attempt is committed before its record is seen."""
        if self._stopping:  # nothing will be tried here: do not count an attempt
            return
        now = self._clock.monotonic()
        settings = self._settings
        lanes = [
            Lane(claim, settings.poison_isolate_after, settings.max_events, now) for claim in claims
        ]
        await asyncio.gather(*(self._count_attempt(lane) for lane in lanes if not lane.suspect))
        if self._stopping:  # meanwhile: nobody would end what is begun now
            await asyncio.gather(*(self._forget_attempt(lane) for lane in lanes))
            return
        for lane in lanes:
            self._lanes[lane.source] = lane
            lane.committer = asyncio.create_task(self._commits.loop(lane))
        self._commits.last_at = now
        self._assigned = True
        self._changed()

    async def _count_attempt(self, lane: Lane) -> None:
        most = self._settings.poison_isolate_after  # more are counted against one record only
        mark = Mark(attempts=min(lane.claim.attempts + 1, most))
        await self._log.commit(lane.claim, (), lane.claim.next_offset, mark)
        lane.mark = mark

    async def _forget_attempt(self, lane: Lane) -> None:
        before = Mark(attempts=lane.claim.attempts, until=lane.claim.until)
        if lane.mark != before and self._fatal is None:
            await self._log.commit(lane.claim, (), lane.claim.next_offset, before)

    async def revoked(self, sources: Iterable[TopicPartition]) -> None:
        """Drain and give up partitions; a clean end clears the attempts of their heads."""
        async with self._revoking:  # a rebalance may meet a shutdown
            lanes = [self._lanes[source] for source in sources if source in self._lanes]
            for lane in lanes:
                lane.closing = True
            self._signal.notify()
            drained = await self._signal.until(
                lambda: self._fatal is not None or all(lane.quiet for lane in lanes),
                self._settings.drain_s,
            )
            await self._signal.until(lambda: not any(lane.committing for lane in lanes))
            if not drained:
                log.warning("drain deadline passed, unfinished records will be delivered again")
            await asyncio.gather(*(self._give_up(lane) for lane in lanes))
            self._assigned = self._assigned and bool(self._lanes)

    async def _give_up(self, lane: Lane) -> None:
        if self._fatal is None and lane.running == 0 and lane.mark != UNMARKED:
            await self._log.commit(lane.claim, (), lane.committed)
        await self._drop(lane)

    async def _drop(self, lane: Lane) -> None:
        lane.closing = lane.dead = True
        self._lanes.pop(lane.source, None)
        self._paused.discard(lane.source)
        self._log.resume([lane.source])
        await _cancel([task for task in (lane.committer, lane.retry) if task is not None])
        for slot in lane.window:
            if not slot.running:
                self._bounds.release(slot)
        self._changed()

    async def _poll(self) -> None:
        try:
            while not self._finish.is_set():  # a cancellation may be lost on the way in
                started = self._clock.time()
                most = max(1, min(self._bounds.room, POLL_RECORDS))  # 0: all are paused
                records = await self._log.poll(most, POLL_S)
                if records:
                    poll_span(records, started)
                    self._admit(records)
                elif not self._bounds.events:
                    self._commits.last_at = self._clock.monotonic()
        except Exception as error:
            self._fail(error)

    def _admit(self, records: Sequence[Record]) -> None:
        now = self._clock.monotonic()
        for record in records:
            lane = self._lanes.get(record.source)
            if lane is None or lane.closing:
                continue
            attempts = max(1, lane.mark.attempts) if lane.position is None else 1
            lane.position = record.offset + 1
            slot = Slot(Delivery(record=record, attempts=attempts), lane, _size(record), now)
            lane.window.add(slot)
            self._bounds.take(slot)
            self._start(slot)
        self._changed()

    def _start(self, slot: Slot) -> None:
        lane = slot.lane
        if lane.suspect:
            lane.backlog.append(slot)
            if not self._isolation.active:
                self._isolation.begin()
                self._changed()
        elif self._isolation.active or lane.held:
            self._wait(slot)
        else:
            self._pool.add(slot)

    def _wait(self, slot: Slot) -> None:
        slot.lane.backlog.append(slot)
        if slot.lane.held:
            self._bounds.park(slot)

    async def _process(self, slot: Slot) -> None:
        lane = slot.lane
        delivery = slot.delivery
        if lane.closing:
            return
        if (
            not delivery.isolated
            and (self._isolation.active or lane.held)
            and lane.retry is not asyncio.current_task()
        ):
            self._wait(slot)
            return
        slot.running = True
        lane.running += 1
        self._running += 1
        try:
            outputs = await self._processor(delivery)
            if not outputs:
                raise FatalError("the processor returned nothing to publish: nothing is dropped")
            slot.outputs = outputs
        except DependencyUnavailable as error:
            if not lane.closing:
                self._outages.postpone(slot, error)
                self._bounds.park(slot)
                self._changed()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                self._fail(FatalError("the processor cancelled itself; nothing is lost"))
            raise
        except Exception as error:
            self._fail(error)
        finally:
            slot.running = False
            lane.running -= 1
            self._running -= 1
            if lane.dead:
                self._bounds.release(slot)
                self._changed()
            elif slot.outputs is not None:
                if lane.window.head is slot:
                    lane.ready.set()
                if self._bounds.decide(slot):
                    self._changed()
            self._signal.notify()

    def _restart(self, lane: Lane) -> None:
        """Start what waited in a lane that is no longer held."""
        waiting = sorted(lane.backlog, key=lambda slot: slot.offset)
        lane.backlog.clear()
        for slot in waiting:
            self._bounds.unpark(slot)
            self._start(slot)

    def _isolation_finished(self) -> None:
        for lane in list(self._lanes.values()):
            if not (lane.held or lane.closing or self._stopping):
                self._restart(lane)
        self._changed()

    def _changed(self) -> None:
        """Bring pauses in line with bounds, outages and isolation; wake whoever waits."""
        self._bounds.look(self._lanes.values())
        closed, isolating = self._bounds.closed, self._isolation.active
        wanted = {
            source
            for source, lane in self._lanes.items()
            if closed or lane.full or lane.held or (isolating and not lane.suspect)
        }
        if wanted != self._paused:
            before, self._paused = self._paused, wanted
            self._log.pause(wanted - before)
            self._log.resume(before - wanted)
        self._signal.notify()

    def _fail(self, error: BaseException) -> None:
        if self._fatal is None:
            if isinstance(error, FatalError):
                self._fatal = error
            else:
                self._fatal = FatalError(f"{type(error).__name__} in the stream; nothing is lost")
                self._fatal.__cause__ = error
            log.error("the stream must end: %s", Public(self._fatal))
        self._finish.set()
        self._signal.notify()

    async def _watch_lag(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # only a figure: polling tells what is wrong
                self._lag = dict(await self._log.lag())
            known = bool(self._lanes) and self._lanes.keys() <= self._lag.keys()
            await asyncio.sleep(LAG_EVERY_S if known else POLL_S)

    def status(self) -> StreamStatus:
        """What is going on right now; cheap, without a call to the log."""
        now, wall = self._clock.monotonic(), self._clock.time()
        lanes = list(self._lanes.values())
        heads = [lane.window.head for lane in lanes]
        return StreamStatus(
            assigned=self._assigned,
            stopping=self._stopping,
            fatal=str(self._fatal) if self._fatal else None,
            partitions=tuple(
                partition_status(lane, self._lag.get(lane.source, 0), wall) for lane in lanes
            ),
            inflight_events=self._bounds.events,
            inflight_bytes=self._bounds.bytes,
            running=self._running,
            events_committed=self._commits.events,
            last_progress_at=self._commits.last_at,
            oldest_inflight_s=max((now - head.since for head in heads if head), default=0.0),
            paused_dependencies=tuple(
                sorted({lane.dependency for lane in lanes if lane.dependency is not None})
            ),
        )


def _size(record: Record) -> int:
    size = len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"")
    return size


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
