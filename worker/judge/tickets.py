"""Work that waits for the device, and how its results get back to those who wait for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import SpanContext

from worker.judge.device import Traces
from worker.judge.reading import Ask, TraceAsk

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
