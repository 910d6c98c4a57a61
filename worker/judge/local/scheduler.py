"""Batches what waits and runs it on the one device thread; verdicts first, traces in between.

No artificial delay: whenever the device is free it takes what is queued. Between two verdict
batches at most one chunk of one long context and one decoding step of the traces of one adapter are
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
    ReasoningLane,
    run_isolated,
)
from worker.judge.local.requests import ReasoningRequest, ScoreRequest, ScoreResult
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

ControlOperation = Callable[[], Iterator[object]]
"""Work of the judge's own, done step by step; called on the device thread as its steps are."""


@dataclass
class Timed:
    """A result, with the milliseconds it waited and was on the device."""

    result: Any
    queue_ms: float
    device_ms: float


@dataclass(eq=False)
class PendingRequest:
    """One piece of work that waits for the device."""

    request: ScoreRequest | ReasoningRequest | None
    adapter: str | None
    future: asyncio.Future[Timed]
    loop: asyncio.AbstractEventLoop
    queued_at: float
    link: SpanContext | None
    tokens: int
    started_at: float = 0.0


@dataclass(eq=False)
class OpenLane:
    """The traces of one adapter that are being written, and who waits for each."""

    adapter: str | None
    traces: ReasoningLane
    waiting: dict[int, PendingRequest]


def deliver(results: Iterable[tuple[PendingRequest, Any]], now: float) -> None:
    """Hand results (or exceptions) to the event loops that wait for them, one call for each loop.

    ``now`` is the judge's clock when they were there.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Timed], Any]]] = {}
    for one, result in results:
        answer = result
        if not isinstance(result, Exception):
            waited = (one.started_at - one.queued_at) * 1e3
            answer = Timed(result, waited, (now - one.started_at) * 1e3)
        by_loop.setdefault(one.loop, []).append((one.future, answer))
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

LONG_CONTEXTS = 2
"""Long contexts that take turns, a chunk each, so that no more of them hold keys."""
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
        self._verdicts: deque[PendingRequest] = deque()
        self._traces: deque[PendingRequest] = deque()
        self._lanes: deque[OpenLane] = deque()
        self._long: deque[tuple[PendingRequest, Prefill]] = deque()
        self._operations: deque[tuple[ControlOperation, PendingRequest]] = deque()
        self._in_flight: list[
            PendingRequest
        ] = []  # taken off their queues in this turn of the thread
        self._canary: tuple[ScoreRequest, str | None] | None = None
        self._pick = pick_packed if device.packed else pick_padded
        self._thinking = 0
        self._busy_since: float | None = None
        self._refused: WorkerError | None = None
        self._thread = threading.Thread(target=self._serve, name="judge-device", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def read(self, request: ScoreRequest, adapter: str | None) -> Timed:
        """A ``ScoreResult``, in its turn.

        Raises:
            Undecided: this context cannot be read. DependencyUnavailable, FatalError: nothing can.
        """
        return await self._submit(self._verdicts, request, adapter)

    async def think(self, request: ReasoningRequest, adapter: str | None) -> Timed:
        """A ``Trace``, whenever the device has room between verdicts.

        Raises:
            LaneFull: as many traces as allowed wait or are being written.
            Undecided: this trace failed. DependencyUnavailable, FatalError: as ``read``.
        """
        if self._thinking >= self._think_lane:
            raise LaneFull
        self._thinking += 1
        try:
            return await self._submit(self._traces, request, adapter)
        finally:
            self._thinking -= 1

    async def run(self, operation: ControlOperation) -> None:
        """Run something on the device thread, a step of it in front of each batch.

        Raises:
            DependencyUnavailable, FatalError: as ``read``; else what the operation raises.
        """
        one = self._made(None, None, 0)
        with self._wake:
            if self._refused is not None:
                raise self._refused
            self._operations.append((operation, one))
            self._wake.notify()
        await one.future

    def trust(self, request: ScoreRequest, adapter: str | None) -> None:
        """A request that was read well: where it fails, the device is at fault and no event."""
        self._canary = (request, adapter)

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
        self,
        queue: deque[PendingRequest],
        request: ScoreRequest | ReasoningRequest,
        adapter: str | None,
    ) -> Timed:
        if isinstance(request, ScoreRequest):
            tokens = self._device.cost(request)
        else:
            tokens = len(request.context)
        one = self._made(request, adapter, tokens)
        with self._wake:
            if self._refused is not None:
                raise self._refused
            queue.append(one)
            self._wake.notify()
        return await one.future

    def _made(
        self, request: ScoreRequest | ReasoningRequest | None, adapter: str | None, tokens: int
    ) -> PendingRequest:
        loop = asyncio.get_running_loop()
        return PendingRequest(
            request=request,
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
                self._in_flight = []
        except DeviceLost as lost:
            logger.error("the device is lost: %s", lost)
            self._refuse(FatalError("the device is lost; end this process and start another"))
        except Exception as error:  # a bug here must end the process, not hang its events
            logger.exception("the judge's device thread failed")
            self._refuse(FatalError(f"the device thread failed: {type(error).__name__}"))
        self._abandon()

    def _turn(self) -> bool:
        """What waits now, once round all lanes; False where nothing may run any more."""
        queues = (self._verdicts, self._traces, self._lanes, self._long, self._operations)
        with self._wake:
            while not (self._refused or any(queues)):
                self._wake.wait()
            if self._refused:
                return False
            operation = self._operations.popleft() if self._operations else None
            self._in_flight += [operation[1]] if operation else []
            batch = self._take(self._verdicts)
            starting = self._take(self._traces)
        if operation:
            self._do(*operation)
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

    def _do(self, operation: ControlOperation, one: PendingRequest) -> None:
        """One step of a operation; it goes on in the next turn, before other operations."""
        one.started_at = self._busy_since = self._clock.monotonic()
        try:
            steps = operation()
            done = next(steps, self) is self
        except Exception as error:
            unavailable = DependencyUnavailable("judge", f"{type(error).__name__} on the device")
            self._answer([one], unavailable)
            if self._device.fault(error) == "lost" or not self._device.recover():
                raise DeviceLost(type(error).__name__) from error
        else:
            if done:
                self._deliver([(one, None)])
            else:
                with self._wake:
                    self._operations.appendleft((lambda: steps, one))
        finally:
            self._busy_since = None

    def _set_apart(self, batch: list[PendingRequest]) -> list[PendingRequest]:
        """Move contexts that are computed piece by piece out of the batch."""
        short = []
        for one in batch:
            assert isinstance(one.request, ScoreRequest)
            prefill = self._device.prefill(one.adapter, one.request)
            if prefill is None:
                short.append(one)
            else:
                self._long.append((one, prefill))
        return short

    def _prefill(self) -> None:
        """One chunk of one long context; the first ``LONG_CONTEXTS`` of them take turns."""
        one, prefill = self._long.popleft()
        if one.future.done():
            return
        self._in_flight.append(one)
        with self._on_device([one], "no"):
            (request,) = self._isolated(lambda _: [prefill.step()], [one])
        if isinstance(request, WorkerError):
            self._answer([one], request)
        elif request is None:
            self._long.insert(LONG_CONTEXTS - 1, (one, prefill))
        else:
            one.request, one.tokens = request, self._device.cost(request)
            with self._wake:
                self._verdicts.appendleft(one)

    def _take(self, queue: deque[PendingRequest]) -> list[PendingRequest]:
        """The next batch of a lane, without those nobody waits for any more."""
        waiting = [one for one in queue if not one.future.done()]
        chosen = set(self._pick(waiting, self._max_batch, self._max_tokens))
        queue.clear()
        queue.extend(one for index, one in enumerate(waiting) if index not in chosen)
        taken = [waiting[index] for index in sorted(chosen)]
        self._in_flight += taken
        return taken

    def _read(self, batch: list[PendingRequest]) -> None:
        adapter = batch[0].adapter

        def read(pending: Sequence[PendingRequest]) -> list[ScoreResult | Undecided]:
            requests = [one.request for one in pending]
            return self._device.read(adapter, requests)  # type: ignore[arg-type]

        with self._on_device(batch, "no"):
            results = self._isolated(read, batch)
            if any(_no_number(result) for result in results) and not self._healthy():
                results = self._again(batch, "its numbers are none")
        self._deliver(zip(batch, results, strict=True))

    def _isolated(
        self, run: Callable[[Sequence[PendingRequest]], list[Any]], pending: list[PendingRequest]
    ) -> list[Any]:
        """``run_isolated``; where the device is at fault, everybody is told to come again."""
        try:
            return run_isolated(run, pending, self._device, self._healthy)
        except DeviceUnwell as error:
            return self._again(pending, str(error))
        except DeviceLost:
            self._answer(pending, DependencyUnavailable("judge", "the device was lost"))
            raise

    def _again(self, pending: Sequence[PendingRequest], why: str) -> list[Any]:
        logger.warning("the device judges nothing at the moment: %s", why)
        again = DependencyUnavailable("judge", "the device judges nothing at the moment")
        return [again] * len(pending)

    def _healthy(self) -> bool:
        if self._canary is None:
            return True
        request, adapter = self._canary
        try:
            return isinstance(self._device.read(adapter, [request])[0], ScoreResult)
        except Exception:
            self._device.recover()
            return False

    def _open(self, pending: list[PendingRequest]) -> None:
        adapter = pending[0].adapter
        lane = next((one for one in self._lanes if one.adapter == adapter), None)
        with self._on_device(pending, "yes"):
            try:
                if lane is None:
                    lane = OpenLane(adapter, self._device.reasoning(adapter), {})
                requests = [one.request for one in pending]
                numbers = lane.traces.add(requests)  # type: ignore[arg-type]
            except Exception as error:
                self._trace_failed(pending, error)
                return
        lane.waiting.update(zip(numbers, pending, strict=True))
        if lane not in self._lanes:
            self._lanes.append(lane)

    def _step(self) -> None:
        """One token for the traces of one adapter; adapters take turns."""
        lane = self._lanes.popleft()
        self._in_flight += lane.waiting.values()
        for number in [n for n, one in lane.waiting.items() if one.future.done()]:
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

    def _trace_failed(self, pending: list[PendingRequest], error: Exception) -> None:
        """Traces can be shed: they fail together, and only a lost device is more than that."""
        lost = self._device.fault(error) == "lost" or not self._device.recover()
        logger.warning("traces failed: %s", type(error).__name__)
        if lost:
            self._answer(pending, DependencyUnavailable("judge", "the device was lost"))
            raise DeviceLost(type(error).__name__)
        self._answer(pending, LaneFull() if self._device.fault(error) == "memory" else _failed())

    @contextlib.contextmanager
    def _on_device(self, batch: list[PendingRequest], think: str) -> Any:
        """Mark the time on the device, as the watchdog, the metrics and the trace see it."""
        started = self._clock.monotonic()
        labels = {Attribute.THINK: think}
        costs = [one.tokens for one in batch]
        tokens = sum(costs) if self._device.packed else len(batch) * max(costs)
        for one in batch:
            one.started_at = started
            instruments.queue_duration.record(started - one.queued_at, labels)
        links = [one.link for one in batch if one.link is not None][:MAX_LINKS]
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

    def _deliver(self, results: Iterable[tuple[PendingRequest, Any]]) -> None:
        deliver(results, self._clock.monotonic())

    def _answer(self, pending: Iterable[PendingRequest], error: WorkerError | LaneFull) -> None:
        self._deliver((one, error) for one in pending)

    def _refuse(self, error: WorkerError) -> None:
        with self._wake:
            self._refused = self._refused or error
            self._wake.notify()

    def _abandon(self) -> None:
        """Answer everything that still waits with the reason why nothing comes any more."""
        with self._wake:
            waiting = [*self._in_flight, *self._verdicts, *self._traces]
            waiting += [one for one, _ in self._long]
            waiting += [one for _, one in self._operations]
            for lane in self._lanes:
                waiting += lane.waiting.values()
            for queue in (self._verdicts, self._traces, self._long, self._operations, self._lanes):
                queue.clear()
        assert self._refused is not None
        self._answer(waiting, self._refused)


def _no_number(result: object) -> bool:
    return isinstance(result, Undecided) and result.reason is UndecidedReason.NOT_FINITE


def _failed() -> Undecided:
    return Undecided(UndecidedReason.INTERNAL_ERROR, detail="the trace failed")
