"""The service between log and processor: bounded intake, commits in order of key, clean ends.

The log is a dependency like the others: where it goes away it is closed and opened again in here,
with growing waits, while the judge stays warm. The process ends for settings that cannot work, or
for a bug.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from worker.clock import Clock, SystemClock
from worker.concurrency import Signal, asked_to_cancel, bounded
from worker.errors import DependencyUnavailable, FatalError
from worker.log import status as gauges
from worker.log.backpressure import Backpressure
from worker.log.base import Assignment, Log, PartitionLost, Processor
from worker.log.commit import CANCELLED_ITSELF, Commits
from worker.log.fair_queue import FairQueue
from worker.log.isolation import Isolation
from worker.log.outage import Outages
from worker.log.partition import InFlight, PartitionState
from worker.log.status import StreamStatus, partition_status
from worker.records import Record, TopicPartition
from worker.settings import Stream
from worker.telemetry import instruments
from worker.telemetry.names import Attribute
from worker.telemetry.redact import Public
from worker.telemetry.tracing import poll_span

log = logging.getLogger(__name__)

POLL_S = 0.2
"""Longest wait of one poll, and until a resumed partition is looked at."""
POLL_RECORDS = 500
LAG_EVERY_S = 5.0
LEAVE_S = 15.0
"""Longest a broken log may take to close before it is left as it is."""
LOG_RETRY_MAX_S = 2.0
"""Longest wait before the log is tried again: a verdict is wanted soon after it is back."""
LAST_WORD_S = 2.0
"""Longest wait to tell a log that is away that nothing is in flight any more."""
LOG = "log"
"""The log's name among the dependencies."""


class StreamRunner:
    """Runs ``processor`` over ``topics`` of ``log`` until ``stop`` or a fatal error.

    Every record is delivered at least once and committed once, in input order per key (or per
    partition, ``stream.order``); what was not committed when the process ends is delivered again
    elsewhere. ``conversation`` tells whose a record is before it is judged, where that is easy: a
    record of which nobody knows holds up all behind it until the processor says so.
    """

    def __init__(
        self,
        log: Log,
        processor: Processor,
        topics: Sequence[str],
        settings: Stream | None = None,
        *,
        clock: Clock | None = None,
        conversation: Callable[[Record], bytes | None] | None = None,
    ) -> None:
        self._log = log
        self._conversation = conversation
        self._processor = processor
        self._topics = tuple(topics)
        self._settings = settings or Stream()
        self._clock = clock or SystemClock()
        self._incarnation = uuid.uuid4().hex[:12]
        self._partitions: dict[TopicPartition, PartitionState] = {}
        self._signal = Signal()
        self._backpressure = Backpressure(self._settings)
        self._queue = FairQueue(self._process, self._settings.max_events)
        self._commits = Commits(
            log,
            self._clock,
            self._backpressure.release,
            self._committed,
            self._lost,
            self._fail,
        )
        self._outages = Outages(
            self._settings,
            self._signal,
            lambda: self._isolation.active,
            self._process,
            self._restart,
            self._changed,
        )
        self._isolation = Isolation(
            self._partitions,
            self._commits,
            self._settings,
            self._clock,
            self._signal,
            lambda: self._running == 0 and all(one.quiet for one in self._partitions.values()),
            self._process,
            self._restart_all,
            self._lost,
            self._fail,
        )
        self._paused: set[TopicPartition] = set()
        self._running = 0
        self._assigned = False
        self._started = False
        self._stopping = False
        self._finish = asyncio.Event()
        self._ended = asyncio.Event()
        self._fatal: FatalError | None = None
        self._away: DependencyUnavailable | None = None
        self._away_since: float | None = None
        self._trouble = ""
        self._recoveries = 0
        self._lag: dict[TopicPartition, int] = {}
        self._lag_at: float | None = None
        gauges.observe(self)

    async def run(self) -> None:
        """Work until ``stop``; wait for the log wherever it is away.

        Raises:
            FatalError: the process must end; nothing that was read is lost.
        """
        self._started = True
        try:
            await self._run()
        except asyncio.CancelledError as error:
            if asked_to_cancel():
                raise
            # Nobody asked for it: some library's cancellation got out. A process that goes on
            # without its stream would look alive and do nothing.
            self._fail(FatalError("the stream was cancelled from within; nothing is lost"))
            self._fatal_cause(error)
        finally:
            self._ended.set()
        if self._fatal is not None:
            raise self._fatal
        if not self._stopping:
            raise FatalError("the stream ended although nobody stopped it; nothing is lost")

    def _fatal_cause(self, error: BaseException) -> None:
        if self._fatal is not None and self._fatal.__cause__ is None:
            self._fatal.__cause__ = error

    async def connect(self) -> None:
        """Reach the log before there is anything to judge with; wait where it is away.

        Raises:
            FatalError: a topic is missing, or the log refuses us for good.
        """
        await self._patiently(lambda: self._log.connect(self._topics))

    async def _run(self) -> None:
        delays = _delays(self._settings)
        while not self._stopping:
            self._away = None
            try:
                await self._work()
            except DependencyUnavailable as error:
                self._note_away(error)
            except Exception as error:
                self._fail(error)
            if self._away is not None and self._fatal is None and not self._stopping:
                self._note_away(self._away)
            began = self._clock.monotonic()
            await self._close(orderly=self._away is None)
            if self._fatal is not None or self._stopping:
                return
            if self._committed_since(began - LEAVE_S):
                delays = _delays(self._settings)
            self._recoveries += 1
            instruments.retries.add(1, {Attribute.DEPENDENCY: LOG})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(next(delays)):
                    await self._finish.wait()

    def _committed_since(self, moment: float) -> bool:
        return self._commits.events > 0 and self._commits.last_at >= moment

    async def _patiently(self, reach: Callable[[], Coroutine[Any, Any, None]]) -> None:
        delays = _delays(self._settings)
        while not self._stopping:
            try:
                await self._unless_finished(reach())
            except DependencyUnavailable as error:
                self._note_away(error)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(next(delays)):
                        await self._finish.wait()
            else:
                self._note_back()
                return

    def _note_away(self, error: DependencyUnavailable) -> None:
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
        if self._trouble != error.detail:
            self._trouble = error.detail
            log.warning(
                "the log is away, it is tried again: %s",
                Public(error.detail),
                extra={"dependency": Public(LOG)},
            )

    def _note_back(self) -> None:
        if self._away_since is not None:
            away = self._clock.monotonic() - self._away_since
            log.info("the log is back after %.1f s", away)
        self._away_since, self._trouble = None, ""

    async def _work(self) -> None:
        """One connection of the log, until ``stop``, its end, or a fault."""
        tasks: list[asyncio.Task[None]] = []
        try:
            if not await self._unless_finished(self._log.start(self._topics, self)):
                return
            tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._watch_lag())]
            await self._finish.wait()
        finally:
            await _cancel(tasks)
        if self._fatal is None and self._away is None:
            await self._drain(list(self._partitions.values()))

    async def _unless_finished(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do ``work`` until it is done, or until nobody needs it any more: then False."""
        doing = asyncio.create_task(work)
        finishing = asyncio.create_task(self._finish.wait())
        try:
            await asyncio.wait({doing, finishing}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                return False
            if doing.cancelled():
                raise CANCELLED_ITSELF
            await doing
            return True
        finally:
            await _cancel([doing])
            finishing.cancel()

    async def stop(self) -> None:
        """Take nothing in any more, drain for at most ``drain_s``, commit, leave; then return."""
        self._stopping = True
        for state in self._partitions.values():
            state.closing = True
        self._finish.set()
        self._signal.notify()
        if self._started:
            await self._ended.wait()

    async def _close(self, *, orderly: bool) -> None:
        """Drop what is left and close the log, whatever it takes."""
        self._assigned = False
        try:
            await self._isolation.stop()
            states = list(self._partitions.values())
            for state in states:
                state.closing = True
            # Most ends have a word: that counts for no record, whoever comes next.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(LEAVE_S if orderly else LAST_WORD_S):
                    await asyncio.gather(
                        *(self._rest(one) for one in states), return_exceptions=True
                    )
            for state in states:
                await self._drop(state)
            await self._queue.stop()
            await bounded(self._log.stop(), LEAVE_S)
        except Exception as error:  # everything is committed or will be delivered again
            log.warning(
                "the log was not left in order", extra={"error": Public(type(error).__name__)}
            )
        if not self._stopping:
            self._finish.clear()

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        """Take over partitions; what will be started is committed before a record is seen."""
        if self._finish.is_set():
            return
        settings = self._settings
        states = [
            PartitionState(
                assignment,
                incarnation=self._incarnation,
                isolate_after=settings.poison_isolate_after,
                slack=max(16, settings.max_events // 8),
                order=settings.order,
                now=self._clock.monotonic(),
            )
            for assignment in assignments
        ]
        declared = await asyncio.gather(
            *(self._commits.declare(state) for state in states), return_exceptions=True
        )
        for outcome in declared:
            if isinstance(outcome, BaseException) and not isinstance(outcome, PartitionLost):
                raise outcome
        ours = [
            state
            for state, outcome in zip(states, declared, strict=True)
            if not isinstance(outcome, BaseException)
        ]
        if self._finish.is_set():  # meanwhile: nobody would end what is begun now
            await asyncio.gather(*(self._rest(state) for state in ours))
            return
        for state in ours:
            self._partitions[state.source] = state
            state.committer = asyncio.create_task(self._commits.loop(state))
        self._commits.last_at = self._clock.monotonic()
        self._assigned = True
        self._note_back()
        self._changed()

    async def revoked(self, sources: Iterable[TopicPartition]) -> None:
        """Drop partitions that went to somebody else."""
        for source in list(sources):
            state = self._partitions.get(source)
            if state is not None:
                await self._drop(state)

    async def _drain(self, states: Sequence[PartitionState]) -> None:
        """Finish what is running, commit it, and leave no suspicion behind."""
        for state in states:
            state.closing = True
        self._signal.notify()
        drained = await self._signal.until(
            lambda: (
                self._fatal is not None
                or self._away is not None
                or all(state.quiet or state.dead for state in states)
            ),
            self._settings.drain_s,
        )
        if not drained:
            log.warning("drain deadline passed, unfinished records will be delivered again")

    async def _rest(self, state: PartitionState) -> None:
        """Say that nothing is in flight here any more, if that can still be said."""
        if not state.dead:
            with contextlib.suppress(PartitionLost, DependencyUnavailable, FatalError):
                await self._commits.rest(state)

    def _lost(self, state: PartitionState, error: PartitionLost) -> None:
        if not state.dead:
            log.warning(
                "partition lost: %s",
                Public(error),
                extra={"topic": state.source.topic, "partition": state.source.partition},
            )
            self._bury(state)

    async def _drop(self, state: PartitionState) -> None:
        tasks = self._bury(state)
        await _cancel(tasks)

    def _bury(self, state: PartitionState) -> list[asyncio.Task[None]]:
        state.closing = state.dead = True
        if self._partitions.get(state.source) is state:
            del self._partitions[state.source]
            self._paused.discard(state.source)
            self._log.resume([state.source])
        current = asyncio.current_task()
        tasks = [task for task in (state.committer, state.retry) if task not in (None, current)]
        for task in tasks:
            if task is not None:
                task.cancel()
        for record in state.unfinished:
            if not record.running:
                self._backpressure.release(record)
        self._changed()
        return [task for task in tasks if task is not None]

    async def _poll(self) -> None:
        try:
            while not self._finish.is_set():  # a cancellation may be lost on the way in
                started = self._clock.time()
                most = max(1, min(self._backpressure.room, POLL_RECORDS))  # 0: all are paused
                records = await self._log.poll(most, POLL_S)
                if records:
                    poll_span(records, started)
                    self._admit(records)
                elif not self._backpressure.events:
                    self._commits.last_at = self._clock.monotonic()
        except asyncio.CancelledError:
            if not asked_to_cancel():
                self._fail(CANCELLED_ITSELF)
            raise
        except Exception as error:
            self._fail(error)

    def _admit(self, records: Sequence[Record]) -> None:
        for record in records:
            state = self._partitions.get(record.source)
            if state is None or state.closing or state.unfinished.skips(record.offset):
                continue
            attempts = state.attempts + 1 if record.offset < state.until else 1
            one = InFlight(record, state, _size(record), attempts)
            if self._conversation is not None:
                one.conversation = self._conversation(record)
                one.identified = one.conversation is not None
            state.unfinished.add(one)
            self._backpressure.take(one)
            self._start(one)
        self._changed()

    def _start(self, record: InFlight) -> None:
        state = record.partition
        if state.is_suspect(record.offset):
            state.suspected.append(record)
            self._isolation.begin()
        elif self._isolation.active or state.held:
            self._wait(record)
        else:
            self._queue.add(record)

    def _wait(self, record: InFlight) -> None:
        record.partition.backlog.append(record)
        if record.partition.held:
            self._backpressure.park(record)

    async def _process(self, record: InFlight) -> None:
        state = record.partition
        delivery = record.delivery
        if state.closing:
            return
        if (
            not delivery.isolated
            and (self._isolation.active or state.held)
            and state.retry is not asyncio.current_task()
        ):
            self._wait(record)
            return
        if record.offset >= state.bound and not delivery.isolated:
            self._wait(record)  # the log is told first
            state.ready.set()
            return
        state.started = max(state.started, record.offset + 1)
        record.running = True
        state.running += 1
        self._running += 1
        try:
            outputs = await self._processor(delivery)
            if not outputs:
                raise FatalError("the processor returned nothing to publish: nothing is dropped")
            record.outputs = outputs
        except DependencyUnavailable as error:
            if not state.closing:
                self._outages.postpone(record, error)
                self._backpressure.park(record)
                self._changed()
        except asyncio.CancelledError:
            if not asked_to_cancel():
                self._fail(FatalError("the processor cancelled itself; nothing is lost"))
            raise
        except Exception as error:
            self._fail(error)
        finally:
            record.running = False
            state.running -= 1
            self._running -= 1
            if state.dead:
                self._backpressure.release(record)
                self._changed()
            elif record.outputs is not None:
                state.ready.set()
            self._signal.notify()

    def _restart(self, state: PartitionState) -> None:
        """Start what waited in a partition that is no longer held."""
        waiting = sorted(state.backlog, key=lambda record: record.offset)
        state.backlog.clear()
        for record in waiting:
            self._backpressure.unpark(record)
            self._start(record)

    def _restart_all(self) -> None:
        for state in list(self._partitions.values()):
            if not (state.held or state.closing or self._stopping):
                self._restart(state)
        self._changed()

    def _committed(self, state: PartitionState) -> None:
        """A commit went through: there may be a further bound, and room."""
        if (
            state.backlog
            and state.backlog[0].offset < state.bound
            and not (state.held or state.closing or self._isolation.active)
        ):
            self._restart(state)
        self._changed()

    def _changed(self) -> None:
        """Bring pauses in line with bounds and outages; wake whoever waits."""
        self._backpressure.look(self._partitions.values())
        closed = self._backpressure.closed
        wanted = {
            source
            for source, state in self._partitions.items()
            if closed or state.full or state.held or state.stretched
        }
        if wanted != self._paused:
            before, self._paused = self._paused, wanted
            self._log.pause(wanted - before)
            self._log.resume(before - wanted)
        self._signal.notify()

    def _fail(self, error: BaseException) -> None:
        """The log is away and is opened again; anything else ends the process."""
        if isinstance(error, DependencyUnavailable):
            self._away = self._away or error
        elif self._fatal is None:
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
                self._lag_at = self._clock.monotonic()
            known = bool(self._partitions) and self._partitions.keys() <= self._lag.keys()
            await asyncio.sleep(LAG_EVERY_S if known else POLL_S)

    def status(self) -> StreamStatus:
        """What is going on right now; cheap, without a call to the log."""
        now, wall = self._clock.monotonic(), self._clock.time()
        states = list(self._partitions.values())
        activity = self._log.activity()
        trouble = self._trouble or activity.trouble
        paused = {state.dependency for state in states if state.dependency is not None}
        if trouble:
            paused.add(LOG)
        return StreamStatus(
            assigned=self._assigned,
            stopping=self._stopping,
            fatal=str(self._fatal) if self._fatal else None,
            partitions=tuple(
                partition_status(state, self._lag.get(state.source, 0), wall, now)
                for state in states
            ),
            inflight_events=self._backpressure.events,
            inflight_bytes=self._backpressure.bytes,
            running=self._running,
            events_committed=self._commits.events,
            last_progress_at=self._commits.last_at,
            paused_dependencies=tuple(sorted(paused)),
            log=activity,
            log_away_since=self._away_since,
            log_trouble=trouble,
            recoveries=self._recoveries,
            lag_at=self._lag_at,
        )


def _delays(settings: Stream) -> Iterator[float]:
    """Waits that double, each up to a half longer by chance: many workers recover at once."""
    delay = settings.retry_initial_s
    while True:
        yield delay * random.uniform(1.0, 1.5)  # noqa: S311 - spreads load, guards nothing
        delay = min(2 * delay, settings.retry_max_s, LOG_RETRY_MAX_S)


def _size(record: Record) -> int:
    size = len(record.value or b"") + len(record.key or b"")
    for name, value in record.headers:
        size += len(name) + len(value or b"")
    return size


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
