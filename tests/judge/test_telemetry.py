"""A batch is one span that every kept event in it can find, and four measurements."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.judge.conformance import request
from tests.support.measured import measured
from worker.judge.local.requests import ScoreRequest
from worker.records import Record
from worker.telemetry.names import Attribute, Metric, Span
from worker.telemetry.tracing import event_span, kept_context, tracer

Open = Callable[..., Awaitable[Any]]
CANARY = "canaryphrase"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer.bind(provider)
    yield exporter
    tracer.bind(None)
    provider.shutdown()


async def judge_in_span(rig: Any, offset: int) -> int:
    """Judge one event inside its own span; returns that span's id."""
    record = Record(topic="t", partition=0, offset=offset, timestamp=0, key=None, value=b"{}")
    with event_span(record, "group"):
        context = kept_context()
        assert context is not None
        await rig.judge.judge(request(f"{CANARY} {offset}"))
        return context.span_id


async def test_a_batch_span_links_to_every_event_in_it(
    open_rig: Open, spans: InMemorySpanExporter
) -> None:
    """Three events that wait together: one batch span, three links, three queue spans."""
    rig = await open_rig()
    entered, release = threading.Event(), threading.Event()

    def before(_: Sequence[ScoreRequest]) -> None:
        entered.set()
        release.wait(30.0)

    rig.device.before = before
    first = asyncio.ensure_future(rig.judge.judge(request()))
    assert await asyncio.to_thread(entered.wait, 20.0)
    events = [asyncio.ensure_future(judge_in_span(rig, offset)) for offset in range(3)]
    deadline = time.monotonic() + 20.0
    while rig.judge.waiting() < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    release.set()
    await first
    ids = set(await asyncio.gather(*events))
    finished = spans.get_finished_spans()
    batches = [span for span in finished if span.name == Span.JUDGE_BATCH]
    assert len(batches) == 1
    assert {link.context.span_id for link in batches[0].links} == ids
    assert batches[0].attributes is not None
    assert batches[0].attributes[Attribute.BATCH_SIZE] == 3
    queued = [span for span in finished if span.name == Span.QUEUE]
    assert {span.parent.span_id for span in queued if span.parent} == ids
    assert CANARY not in "".join(span.to_json() for span in finished)


async def test_a_batch_is_measured(open_rig: Open) -> None:
    """How long it waited and took, how many contexts and tokens it had."""
    with measured() as found:
        rig = await open_rig()
        await asyncio.gather(*(rig.judge.judge(request(f"n {n}")) for n in range(5)))
        names = {name for name, _ in found.points()}
    assert {
        Metric.QUEUE_DURATION,
        Metric.BATCH_DURATION,
        Metric.BATCH_CONTEXTS,
        Metric.BATCH_TOKENS,
    } <= names
