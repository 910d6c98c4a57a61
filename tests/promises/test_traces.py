"""One trace from the producer through the worker to whoever reads the verdict."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.images import encoded, plain
from tests.support.otlp import collector, is_named
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess
from worker.records import Header
from worker.telemetry.names import Span

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = (
    (Header.TRACEPARENT, f"00-{TRACE}-{PARENT}-01".encode()),
    (Header.TRACESTATE, b"vendor=1"),
)
STAGES = {Span.CONSUME, Span.DECODE, Span.FETCH, Span.JUDGE, Span.DECIDE, Span.PUBLISH}


async def test_a_producers_trace_goes_through_every_stage_and_on(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Spans of all stages carry the producer's trace id; verdict and quarantine hand it on."""
    picture = place.picture("a.png", encoded(plain()))
    with collector() as received:
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint}
        with WorkerProcess(place.config, tmp_path / "log", env=export) as worker:
            await asyncio.to_thread(worker.wait_ready)
            await place.write([said("a grenade", images=[{"uri": picture}], headers=HEADERS)])
            await place.until(1)
            assert await asyncio.to_thread(worker.terminate) == 0
        spans = [span for span in received.spans() if span.trace_id.hex() == TRACE]
    names = {span.name for span in spans}
    missing = [stage for stage in STAGES if not any(is_named(name, stage) for name in names)]
    assert not missing, names
    (consumed,) = [span for span in spans if is_named(span.name, Span.CONSUME)]
    assert consumed.parent_span_id.hex() == PARENT
    ours = {span.span_id for span in spans}
    assert all(span.parent_span_id in ours for span in spans if span is not consumed)
    names_of = place.settings.topics
    for topic in (names_of.verdicts, names_of.quarantine):
        (record,) = await place.read(topic)
        headers = dict(record.headers)
        handed = (headers[Header.TRACEPARENT] or b"").decode().split("-")
        assert handed == ["00", TRACE, consumed.span_id.hex(), "01"]
        assert headers[Header.TRACESTATE] == b"vendor=1"


async def test_a_trace_the_producer_did_not_keep_is_handed_on_unkept(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """The producer's sampling decision is followed, without a span."""
    with collector() as received:
        export = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.endpoint}
        with WorkerProcess(place.config, tmp_path / "log", env=export) as worker:
            await asyncio.to_thread(worker.wait_ready)
            unkept = ((Header.TRACEPARENT, f"00-{TRACE}-{PARENT}-00".encode()),)
            await place.write([said("hello", headers=unkept)])
            await place.until(1)
            assert await asyncio.to_thread(worker.terminate) == 0
        assert [span for span in received.spans() if span.trace_id.hex() == TRACE] == []
    (record,) = await place.read(place.settings.topics.verdicts)
    assert (dict(record.headers)[Header.TRACEPARENT] or b"").decode().split("-")[1] == TRACE
