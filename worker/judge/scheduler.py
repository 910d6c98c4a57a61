"""Batches what waits and runs it on the one device thread; verdicts first, traces in between.

No artificial delay: whenever the device is free it takes what is queued. Between two verdict
batches at most one decoding step of one group of traces is run, so a verdict never waits for a
whole trace. Nothing here knows the model; see ``device.Device``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.trace import SpanContext

from worker.clock import Clock
from worker.contracts.codes import UndecidedReason
from worker.errors import DependencyUnavailable, FatalError, Undecided, WorkerError
from worker.judge.batching import pick
from worker.judge.device import Device, DeviceLost, Traces, run_isolated
from worker.judge.reading import Ask, Reading, Trace, TraceAsk
from worker.telemetry import instruments
from worker.telemetry.event_span import kept_context, shared_span
from worker.telemetry.names import Attribute, Span

logger = logging.getLogger(__name__)

MAX_STREAMS = 4
"""Groups of traces written at a time; each waits for its longest, so new ones start beside it."""
MAX_LINKS = 128
"""Events a batch span links to."""


class LaneFull(Exception):
    """The THINK lane takes no more: the trace is shed, the verdict stands."""


@dataclass
class Timed:
    """A result, with the milliseconds it waited and was on the device."""

    result: Any
    queue_ms: float
    device_ms: float


@dataclass(eq=False)
class Ticket:
    """One piece of work that waits for the device."""

    ask: Ask | TraceAsk
    adapter: str | None
    future: asyncio.Future[Timed]
    loop: asyncio.AbstractEventLoop
    queued_at: float
    link: SpanContext | None
    started_at: float = 0.0

    @property
    def tokens(self) -> int:
        return len(self.ask.context)


@dataclass(eq=False)
class _Group:
    """Traces that are written together."""

    traces: Traces
    tickets: list[Ticket]
    open: set[int] = field(default_factory=set)


class Scheduler:
    """The queue in front of one device, and the thread that serves it."""

    def __init__(
        self,
        device: Device,
        *,
        max_batch: int,
        max_batch_tokens: int,
        think_lane: int,
        clock: Clock,
    ) -> None:
        self._device, self._clock = device, clock
        self._max_batch, self._max_tokens = max_batch, max_batch_tokens
        self._think_lane = think_lane
        self._wake = threading.Condition()
        self._verdicts: deque[Ticket] = deque()
        self._traces: deque[Ticket] = deque()
        self._groups: deque[_Group] = deque()
        self._thinking = 0
        self._busy_since: float | None = None
        self._refused: WorkerError | None = None
        self._thread = threading.Thread(target=self._serve, name="judge-device", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def read(self, ask: Ask, adapter: str | None) -> Timed:
        """A ``Reading``, in its turn.

        Raises:
            Undecided: this context cannot be read. DependencyUnavailable, FatalError: nothing can.
        """
        return await self._submit(self._verdicts, ask, adapter)

    async def think(self, ask: TraceAsk, adapter: str | None) -> Timed:
        """A ``Trace``, whenever the device has room between verdicts.

        Raises:
            LaneFull: as many traces as allowed wait or are being written.
            Undecided: this trace failed. DependencyUnavailable, FatalError: as ``read``.
        """
        if self._thinking >= self._think_lane:
            raise LaneFull
        self._thinking += 1
        try:
            return await self._submit(self._traces, ask, adapter)
        finally:
            self._thinking -= 1

    def waiting(self) -> int:
        """Contexts that wait for the device, traces not counted."""
        return len(self._verdicts)

    def stalled_s(self) -> float:
        """Seconds that the work on the device has been there; 0 when it is idle."""
        since = self._busy_since
        return 0.0 if since is None else max(0.0, self._clock.monotonic() - since)

    async def stop(self) -> None:
        """Let the device finish what it computes, refuse everything else, end the thread."""
        self._refuse(DependencyUnavailable("judge", "it is being stopped"))
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    async def _submit(
        self, queue: deque[Ticket], ask: Ask | TraceAsk, adapter: str | None
    ) -> Timed:
        loop = asyncio.get_running_loop()
        ticket = Ticket(
            ask=ask,
            adapter=adapter,
            future=loop.create_future(),
            loop=loop,
            queued_at=self._clock.monotonic(),
            link=kept_context(),
        )
        with self._wake:
            if self._refused is not None:
                raise self._refused
            queue.append(ticket)
            self._wake.notify()
        return await ticket.future

    # The device thread.

    def _serve(self) -> None:
        while True:
            with self._wake:
                while not (self._refused or self._verdicts or self._traces or self._groups):
                    self._wake.wait()
                if self._refused:
                    break
                batch = self._take(self._verdicts)
                starting = self._take(self._traces) if len(self._groups) < MAX_STREAMS else []
            try:
                if batch:
                    self._read(batch)
                if starting:
                    self._open(starting)
                elif self._groups:
                    self._step()
            except DeviceLost as lost:
                logger.error("the device is lost: %s", lost)
                self._refuse(FatalError("the device is lost; end this process and start another"))
            except Exception as error:  # a bug here must end the process, not hang its events
                logger.exception("the judge's device thread failed")
                fatal = FatalError(f"the device thread failed: {type(error).__name__}")
                self._refuse(fatal)
                self._answer([*batch, *starting], fatal)
        self._abandon()

    def _take(self, queue: deque[Ticket]) -> list[Ticket]:
        """The next batch of a lane, without those nobody waits for any more."""
        waiting = [ticket for ticket in queue if not ticket.future.done()]
        chosen = set(pick(waiting, self._max_batch, self._max_tokens))
        queue.clear()
        queue.extend(ticket for index, ticket in enumerate(waiting) if index not in chosen)
        return [waiting[index] for index in sorted(chosen)]

    def _read(self, batch: list[Ticket]) -> None:
        adapter = batch[0].adapter

        def read(tickets: Iterable[Ticket]) -> list[Reading | Undecided]:
            asks = [ticket.ask for ticket in tickets]
            return self._device.read(adapter, asks)  # type: ignore[arg-type]

        try:
            with self._on_device(batch, "no"):
                results = run_isolated(read, batch, self._device)
        except DeviceLost:
            self._answer(batch, DependencyUnavailable("judge", "the device was lost"))
            raise
        self._deliver(zip(batch, results, strict=True))

    def _open(self, tickets: list[Ticket]) -> None:
        with self._on_device(tickets, "yes"):
            try:
                traces = self._device.think(
                    tickets[0].adapter,
                    [ticket.ask for ticket in tickets],  # type: ignore[misc]
                )
            except Exception as error:
                self._trace_failed(tickets, error)
                return
        self._groups.append(_Group(traces, tickets, set(range(len(tickets)))))

    def _step(self) -> None:
        """One token for one group; the groups take turns."""
        group = self._groups.popleft()
        for index in [i for i in group.open if group.tickets[i].future.done()]:
            group.traces.drop(index)
            group.open.discard(index)
        open_tickets = [group.tickets[index] for index in sorted(group.open)]
        if not open_tickets:
            return
        self._busy_since = self._clock.monotonic()
        try:
            ended = group.traces.step()
        except Exception as error:
            self._trace_failed(open_tickets, error)
            return
        finally:
            self._busy_since = None
        done = [(index, trace) for index, trace in ended if index in group.open]
        group.open.difference_update(index for index, _ in done)
        self._deliver((group.tickets[index], trace) for index, trace in done)
        if group.open:
            self._groups.append(group)

    def _trace_failed(self, tickets: list[Ticket], error: Exception) -> None:
        """Traces can be shed: they fail together, and only a lost device is more than that."""
        lost = self._device.fault(error) == "lost" or not self._device.recover()
        logger.warning("traces failed: %s", type(error).__name__)
        if lost:
            self._answer(tickets, DependencyUnavailable("judge", "the device was lost"))
            raise DeviceLost(type(error).__name__)
        self._answer(tickets, LaneFull() if self._device.fault(error) == "memory" else _failed())

    @contextlib.contextmanager
    def _on_device(self, batch: list[Ticket], think: str) -> Any:
        """Mark the time on the device, as the watchdog, the metrics and the trace see it."""
        started = self._clock.monotonic()
        labels = {Attribute.THINK: think}
        tokens = len(batch) * max(ticket.tokens for ticket in batch)
        for ticket in batch:
            ticket.started_at = started
            instruments.queue_duration.record(started - ticket.queued_at, labels)
        links = [ticket.link for ticket in batch if ticket.link is not None][:MAX_LINKS]
        attributes: dict[str, str | bool | int | float] = {
            Attribute.BATCH_SIZE: len(batch),
            Attribute.TOKENS: tokens,
        }
        self._busy_since = started
        try:
            with shared_span(Span.JUDGE_BATCH, links, attributes):
                yield
        finally:
            self._busy_since = None
            instruments.batch_duration.record(self._clock.monotonic() - started, labels)
            instruments.batch_contexts.record(len(batch), labels)
            instruments.batch_tokens.record(tokens, labels)

    # Answers, and the end.

    def _deliver(
        self, results: Iterable[tuple[Ticket, Reading | Trace | WorkerError | LaneFull]]
    ) -> None:
        """Hand results to the event loops that wait for them, one call for each loop."""
        now = self._clock.monotonic()
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Timed], Any]]] = {}
        for ticket, result in results:
            if not isinstance(result, Exception):
                timed = Timed(
                    result,
                    (ticket.started_at - ticket.queued_at) * 1e3,
                    (now - ticket.started_at) * 1e3,
                )
                by_loop.setdefault(ticket.loop, []).append((ticket.future, timed))
            else:
                by_loop.setdefault(ticket.loop, []).append((ticket.future, result))
        for loop, answers in by_loop.items():
            # A loop that is closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, answers)

    def _answer(self, tickets: Iterable[Ticket], error: WorkerError | LaneFull) -> None:
        self._deliver((ticket, error) for ticket in tickets)

    def _refuse(self, error: WorkerError) -> None:
        with self._wake:
            self._refused = self._refused or error
            self._wake.notify()

    def _abandon(self) -> None:
        """Answer everything that still waits with the reason why nothing comes any more."""
        with self._wake:
            waiting = [*self._verdicts, *self._traces]
            for group in self._groups:
                waiting += [group.tickets[index] for index in group.open]
            self._verdicts.clear()
            self._traces.clear()
            self._groups.clear()
        assert self._refused is not None
        self._answer(waiting, self._refused)


def _settle(answers: list[tuple[asyncio.Future[Timed], Any]]) -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _failed() -> Undecided:
    return Undecided(UndecidedReason.INTERNAL_ERROR, detail="the trace failed")
