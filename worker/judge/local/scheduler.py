"""Batches what waits and runs it on the one device thread; verdicts first, traces in between.

No artificial delay: whenever the device is free it takes what is queued. Between two verdict
batches at most one piece of one long context and one decoding step of the traces of one adapter are
run, so a verdict waits neither for a long event nor for a trace. Nothing here knows the model; see
``device.Device``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from opentelemetry.trace import SpanContext

from worker.clock import Clock
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, FatalError, Undecided, WorkerError
from worker.judge.local.device import (
    Device,
    DeviceLost,
    DeviceUnwell,
    Prefill,
    Traces,
    run_isolated,
)
from worker.judge.local.requests import Ask, Reading, TraceAsk
from worker.telemetry import instruments
from worker.telemetry.names import Attribute, Span
from worker.telemetry.tracing import kept_context, shared_span

# Which of the waiting contexts go to the device together. A pure choice, made when it is free.


class Waiting(Protocol):
    """What the choice looks at: the adapter it needs, and the tokens it costs."""

    @property
    def adapter(self) -> str | None: ...

    @property
    def tokens(self) -> int: ...


def pick_packed(waiting: Sequence[Waiting], max_rows: int, max_tokens: int) -> list[int]:
    """Indexes of the next batch among ``waiting`` (oldest first), for a device without padding.

    The oldest is always in it; the others follow in their order while they share its adapter and
    the sum of tokens stays within ``max_tokens``. A context longer than that goes alone.
    """
    chosen: list[int] = []
    tokens = 0
    for index, each in enumerate(waiting):
        if each.adapter != waiting[0].adapter:
            continue
        if chosen and (len(chosen) == max_rows or tokens + each.tokens > max_tokens):
            break
        chosen.append(index)
        tokens += each.tokens
    return chosen


def pick_padded(waiting: Sequence[Waiting], max_rows: int, max_tokens: int) -> list[int]:
    """The same for a device that pads every context to the longest.

    The oldest is always in it, so nothing starves; the rest share its adapter (policies mix
    freely) and are those nearest to it in length, while rows x the longest stays within
    ``max_tokens``. A context longer than that goes alone.
    """
    if not waiting:
        return []
    oldest = waiting[0]
    others = [i for i in range(1, len(waiting)) if waiting[i].adapter == oldest.adapter]
    others.sort(key=lambda index: abs(waiting[index].tokens - oldest.tokens))
    chosen, longest = [0], oldest.tokens
    for index in others:
        if len(chosen) == max_rows:
            break
        width = max(longest, waiting[index].tokens)
        if width * (len(chosen) + 1) <= max_tokens:
            chosen.append(index)
            longest = width
    return sorted(chosen)


# Work that waits for the device, and how its results get back to those who wait for them.

Chore = Callable[[], Iterator[object]]
"""Work of the judge's own, done step by step; called on the device thread as its steps are."""


@dataclass
class Timed:
    """A result, with the milliseconds it waited and was on the device."""

    result: Any
    queue_ms: float
    device_ms: float


@dataclass(eq=False)
class Ticket:
    """One piece of work that waits for the device."""

    ask: Ask | TraceAsk | None
    adapter: str | None
    future: asyncio.Future[Timed]
    loop: asyncio.AbstractEventLoop
    queued_at: float
    link: SpanContext | None
    tokens: int
    started_at: float = 0.0


@dataclass(eq=False)
class Lane:
    """The traces of one adapter that are being written, and who waits for each."""

    adapter: str | None
    traces: Traces
    waiting: dict[int, Ticket]


def deliver(results: Iterable[tuple[Ticket, Any]], now: float) -> None:
    """Hand results (or exceptions) to the event loops that wait for them, one call for each loop.

    ``now`` is the judge's clock when they were there.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Timed], Any]]] = {}
    for ticket, result in results:
        answer = result
        if not isinstance(result, Exception):
            waited = (ticket.started_at - ticket.queued_at) * 1e3
            answer = Timed(result, waited, (now - ticket.started_at) * 1e3)
        by_loop.setdefault(ticket.loop, []).append((ticket.future, answer))
    for loop, answers in by_loop.items():
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: list[tuple[asyncio.Future[Timed], Any]]) -> None:
    for future, answer in answers:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


logger = logging.getLogger(__name__)

MAX_LINKS = 128
"""Events a batch span links to."""


class LaneFull(Exception):
    """The THINK lane takes no more: the trace is shed, the verdict stands."""


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
        self._lanes: deque[Lane] = deque()
        self._long: deque[tuple[Ticket, Prefill]] = deque()
        self._chores: deque[tuple[Chore, Ticket]] = deque()
        self._in_hand: list[Ticket] = []  # taken off their queues in this turn of the thread
        self._canary: tuple[Ask, str | None] | None = None
        self._pick = pick_packed if device.packed else pick_padded
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

    async def run(self, chore: Chore) -> None:
        """Run something on the device thread, a step of it in front of each batch.

        Raises:
            DependencyUnavailable, FatalError: as ``read``; else what the chore raises.
        """
        ticket = self._ticket(None, None, 0)
        with self._wake:
            if self._refused is not None:
                raise self._refused
            self._chores.append((chore, ticket))
            self._wake.notify()
        await ticket.future

    def trust(self, ask: Ask, adapter: str | None) -> None:
        """An ask that was read well: where it fails, the device is at fault and no event."""
        self._canary = (ask, adapter)

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
        tokens = self._device.cost(ask) if isinstance(ask, Ask) else len(ask.context)
        ticket = self._ticket(ask, adapter, tokens)
        with self._wake:
            if self._refused is not None:
                raise self._refused
            queue.append(ticket)
            self._wake.notify()
        return await ticket.future

    def _ticket(self, ask: Ask | TraceAsk | None, adapter: str | None, tokens: int) -> Ticket:
        loop = asyncio.get_running_loop()
        return Ticket(
            ask=ask,
            adapter=adapter,
            future=loop.create_future(),
            loop=loop,
            queued_at=self._clock.monotonic(),
            link=kept_context(),
            tokens=tokens,
        )

    # The device thread.

    def _serve(self) -> None:
        """Serve the queues until nothing may run any more; whatever ends it, nobody is left."""
        try:
            while self._turn():
                self._in_hand = []
        except DeviceLost as lost:
            logger.error("the device is lost: %s", lost)
            self._refuse(FatalError("the device is lost; end this process and start another"))
        except Exception as error:  # a bug here must end the process, not hang its events
            logger.exception("the judge's device thread failed")
            self._refuse(FatalError(f"the device thread failed: {type(error).__name__}"))
        self._abandon()

    def _turn(self) -> bool:
        """What waits now, once round all lanes; False where nothing may run any more."""
        queues = (self._verdicts, self._traces, self._lanes, self._long, self._chores)
        with self._wake:
            while not (self._refused or any(queues)):
                self._wake.wait()
            if self._refused:
                return False
            chore = self._chores.popleft() if self._chores else None
            self._in_hand += [chore[1]] if chore else []
            batch = self._take(self._verdicts)
            starting = self._take(self._traces)
        if chore:
            self._do(*chore)
        batch = self._set_apart(batch)
        if batch:
            self._read(batch)
        if self._long:
            self._prefill()
        if starting:
            self._open(starting)
        elif self._lanes:
            self._step()
        return True

    def _do(self, chore: Chore, ticket: Ticket) -> None:
        """One step of a chore; it goes on in the next turn, before other chores."""
        ticket.started_at = self._busy_since = self._clock.monotonic()
        try:
            steps = chore()
            done = next(steps, self) is self
        except Exception as error:
            unavailable = DependencyUnavailable("judge", f"{type(error).__name__} on the device")
            self._answer([ticket], unavailable)
            if self._device.fault(error) == "lost" or not self._device.recover():
                raise DeviceLost(type(error).__name__) from error
        else:
            if done:
                self._deliver([(ticket, None)])
            else:
                with self._wake:
                    self._chores.appendleft((lambda: steps, ticket))
        finally:
            self._busy_since = None

    def _set_apart(self, batch: list[Ticket]) -> list[Ticket]:
        """Move contexts that are computed piece by piece out of the batch."""
        short = []
        for ticket in batch:
            assert isinstance(ticket.ask, Ask)
            prefill = self._device.prefill(ticket.adapter, ticket.ask)
            if prefill is None:
                short.append(ticket)
            else:
                self._long.append((ticket, prefill))
        return short

    def _prefill(self) -> None:
        """One piece of one long context. Two take turns, so no more than two hold keys."""
        ticket, prefill = self._long.popleft()
        if ticket.future.done():
            return
        self._in_hand.append(ticket)
        with self._on_device([ticket], "no"):
            (ask,) = self._isolated(lambda _: [prefill.step()], [ticket])
        if isinstance(ask, WorkerError):
            self._answer([ticket], ask)
        elif ask is None:
            self._long.insert(1, (ticket, prefill))
        else:
            ticket.ask, ticket.tokens = ask, self._device.cost(ask)
            with self._wake:
                self._verdicts.appendleft(ticket)

    def _take(self, queue: deque[Ticket]) -> list[Ticket]:
        """The next batch of a lane, without those nobody waits for any more."""
        waiting = [ticket for ticket in queue if not ticket.future.done()]
        chosen = set(self._pick(waiting, self._max_batch, self._max_tokens))
        queue.clear()
        queue.extend(ticket for index, ticket in enumerate(waiting) if index not in chosen)
        taken = [waiting[index] for index in sorted(chosen)]
        self._in_hand += taken
        return taken

    def _read(self, batch: list[Ticket]) -> None:
        adapter = batch[0].adapter

        def read(tickets: Sequence[Ticket]) -> list[Reading | Undecided]:
            asks = [ticket.ask for ticket in tickets]
            return self._device.read(adapter, asks)  # type: ignore[arg-type]

        with self._on_device(batch, "no"):
            results = self._isolated(read, batch)
            if any(_no_number(result) for result in results) and not self._healthy():
                results = self._again(batch, "its numbers are none")
        self._deliver(zip(batch, results, strict=True))

    def _isolated(
        self, run: Callable[[Sequence[Ticket]], list[Any]], tickets: list[Ticket]
    ) -> list[Any]:
        """``run_isolated``; where the device is at fault, everybody is told to come again."""
        try:
            return run_isolated(run, tickets, self._device, self._healthy)
        except DeviceUnwell as error:
            return self._again(tickets, str(error))
        except DeviceLost:
            self._answer(tickets, DependencyUnavailable("judge", "the device was lost"))
            raise

    def _again(self, tickets: Sequence[Ticket], why: str) -> list[Any]:
        logger.warning("the device judges nothing at the moment: %s", why)
        again = DependencyUnavailable("judge", "the device judges nothing at the moment")
        return [again] * len(tickets)

    def _healthy(self) -> bool:
        if self._canary is None:
            return True
        ask, adapter = self._canary
        try:
            return isinstance(self._device.read(adapter, [ask])[0], Reading)
        except Exception:
            self._device.recover()
            return False

    def _open(self, tickets: list[Ticket]) -> None:
        adapter = tickets[0].adapter
        lane = next((one for one in self._lanes if one.adapter == adapter), None)
        with self._on_device(tickets, "yes"):
            try:
                if lane is None:
                    lane = Lane(adapter, self._device.traces(adapter), {})
                asks = [ticket.ask for ticket in tickets]
                numbers = lane.traces.add(asks)  # type: ignore[arg-type]
            except Exception as error:
                self._trace_failed(tickets, error)
                return
        lane.waiting.update(zip(numbers, tickets, strict=True))
        if lane not in self._lanes:
            self._lanes.append(lane)

    def _step(self) -> None:
        """One token for the traces of one adapter; adapters take turns."""
        lane = self._lanes.popleft()
        self._in_hand += lane.waiting.values()
        for number in [n for n, ticket in lane.waiting.items() if ticket.future.done()]:
            lane.traces.drop(number)
            del lane.waiting[number]
        if not lane.waiting:
            return
        self._busy_since = self._clock.monotonic()
        try:
            ended = lane.traces.step()
        except Exception as error:
            self._trace_failed(list(lane.waiting.values()), error)
            return
        finally:
            self._busy_since = None
        self._deliver((lane.waiting.pop(n), trace) for n, trace in ended if n in lane.waiting)
        if lane.waiting:
            self._lanes.append(lane)

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
        costs = [ticket.tokens for ticket in batch]
        tokens = sum(costs) if self._device.packed else len(batch) * max(costs)
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

    def _deliver(self, results: Iterable[tuple[Ticket, Any]]) -> None:
        deliver(results, self._clock.monotonic())

    def _answer(self, tickets: Iterable[Ticket], error: WorkerError | LaneFull) -> None:
        self._deliver((ticket, error) for ticket in tickets)

    def _refuse(self, error: WorkerError) -> None:
        with self._wake:
            self._refused = self._refused or error
            self._wake.notify()

    def _abandon(self) -> None:
        """Answer everything that still waits with the reason why nothing comes any more."""
        with self._wake:
            waiting = [*self._in_hand, *self._verdicts, *self._traces]
            waiting += [ticket for ticket, _ in self._long]
            waiting += [ticket for _, ticket in self._chores]
            for lane in self._lanes:
                waiting += lane.waiting.values()
            for queue in (self._verdicts, self._traces, self._long, self._chores, self._lanes):
                queue.clear()
        assert self._refused is not None
        self._answer(waiting, self._refused)


def _no_number(result: object) -> bool:
    return isinstance(result, Undecided) and result.reason is UndecidedReason.NOT_FINITE


def _failed() -> Undecided:
    return Undecided(UndecidedReason.INTERNAL_ERROR, detail="the trace failed")
