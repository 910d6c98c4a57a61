"""What the stream tells: spans with bounded links, gauges that follow the work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.log.conformance import eventually
from tests.support.log_backends import LocalBackend, create, write
from tests.support.measured import measured
from tests.support.otlp import is_named
from worker.log.base import Delivery
from worker.log.factory import open_log
from worker.log.runner import StreamRunner
from worker.records import Output
from worker.telemetry.names import Attribute, Metric, Span
from worker.telemetry.tracing import tracer


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer.bind(provider)
    yield exporter
    tracer.bind(None)
    provider.shutdown()


def of(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if is_named(span.name, name)]


async def test_batches_link_to_the_records_traces_up_to_a_bound(
    tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    """Poll and publish spans carry the batch size and link to the traces of their records."""
    backend = LocalBackend(tmp_path)
    await create(backend, partitions=1)
    await write(
        backend,
        [
            Output(
                topic=backend.topic, key=b"k", value=b"v",
                headers=(("traceparent", b"00-%032x-%016x-01" % (number, number)),),
            )
            for number in range(1, 301)
        ],
    )  # fmt: skip

    async def judge(delivery: Delivery) -> Sequence[Output]:
        topic, headers = backend.settings.topics.verdicts, delivery.record.headers
        return [Output(topic=topic, key=b"k", value=b"v", headers=headers)]

    log = open_log(backend.settings)
    runner = StreamRunner(log, judge, [backend.topic], backend.settings.stream)
    task = asyncio.create_task(runner.run())

    async def done() -> bool:
        return runner.status().events_committed == 300

    await eventually(done)
    await runner.stop()
    await task
    for name in (Span.POLL, Span.PUBLISH):
        batches = of(spans, name)
        assert sum((span.attributes or {})[Attribute.BATCH_SIZE] for span in batches) == 300  # type: ignore[misc]
        linked = [len(span.links) for span in batches]
        assert max(linked) <= 128  # the SDK's limit, unless raised
        if name == Span.POLL:
            assert max(linked) == 128
        assert min(linked) > 0
    assert of(spans, Span.POLL)[0].links[0].context.trace_id == 1
    published = of(spans, Span.PUBLISH)[0]
    assert published.context.trace_id == 1, "a kept trace has no hole where it is published"


async def test_gauges_follow_the_work_and_end_with_it(tmp_path: Path) -> None:
    """Records in flight and lag are seen while they last; a revoked partition has none."""
    backend = LocalBackend(tmp_path)
    await create(backend, partitions=1)
    await write(backend, [Output(topic=backend.topic, key=b"k", value=b"12345")] * 3)
    release = asyncio.Event()

    async def judge(delivery: Delivery) -> Sequence[Output]:
        await release.wait()
        return [Output(topic=backend.settings.topics.verdicts, key=b"k", value=b"v")]

    log = open_log(backend.settings)
    runner = StreamRunner(log, judge, [backend.topic], backend.settings.stream)
    task = asyncio.create_task(runner.run())

    async def in_flight() -> bool:
        return runner.status().inflight_events == 3

    await eventually(in_flight)
    with measured() as found:
        assert list(found.series(Metric.INFLIGHT_EVENTS).values()) == [3.0]
        assert found.total(Metric.INFLIGHT_BYTES) >= 15.0
    status = runner.status()
    assert status.partitions[0].position == 3
    release.set()
    await runner.stop()
    await task
    assert runner.status().partitions == ()
