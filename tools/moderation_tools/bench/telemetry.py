"""``python -m moderation_tools.bench.telemetry``: what telemetry costs one unsampled event.

Prints microseconds of CPU time per event, the least of several rounds: noise only ever adds.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from worker.accounting.event_log import canonical_line, log_event
from worker.contracts.verdict import ModelRef, PolicyRef, SideVerdict, SourceRef, Timings, Verdict
from worker.records import Header, Record
from worker.settings import Telemetry as TelemetrySettings
from worker.telemetry import instruments
from worker.telemetry.export import configure
from worker.telemetry.logs import JsonFormatter
from worker.telemetry.names import Attribute, Span
from worker.telemetry.tracing import (
    event_span,
    finished_span,
    kept_context,
    shared_span,
    stage,
    tracer,
)

ROUNDS = 7
EVENTS = 1000
LABELS = {Attribute.POLICY: "devtools", Attribute.OUTCOME: "safe"}
SPANS = "all spans, no producer context"
SPANS_TRACED = "all spans, producer context not kept"
SDK_SPAN = "for comparison: one span of the SDK"
METRICS = "three measurements"
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def record(traced: bool) -> Record:
    """An input record, with or without a producer's (unsampled) trace context."""
    return Record(
        topic="ide.conversations",
        partition=3,
        offset=4711,
        timestamp=1_700_000_000_000,
        key=b"c-1",
        value=b"{}",
        headers=((Header.TRACEPARENT, PARENT),) if traced else (),
    )


def verdict() -> Verdict:
    """An ordinary verdict."""
    return Verdict(
        verdict_id="0" * 32,
        event_id="e-1",
        conversation_id="c-1",
        tenant=None,
        source=SourceRef(topic="ide.conversations", partition=3, offset=4711, timestamp=0),
        outcome="safe",
        action="allow",
        user=SideVerdict(label="safe", score=0.01),
        response=None,
        policy=PolicyRef(name="devtools", version=3, sha256="0" * 64),
        model=ModelRef(
            id="tiny", revision="", adapter=None, template_sha256="0" * 64, numerics="float32"
        ),
        timings_ms=Timings(queue=1.0, judge=4.0, total=6.0),
        judged_at="2026-01-01T00:00:00Z",
    )


def spans(one: Record) -> None:
    """Every span of one event, in its order, as the pipeline makes them."""
    with event_span(one, "moderation-worker") as span:
        with stage(Span.DECODE):
            pass
        with stage(Span.FETCH):
            pass
        with stage(Span.JUDGE):
            context = kept_context()
            finished_span(Span.QUEUE, 0, 1)
            with shared_span(Span.JUDGE_BATCH, (context,)):
                pass
        with stage(Span.DECIDE):
            pass
        span.headers()


def measurements() -> None:
    """Every measurement that is taken once for one event without images."""
    instruments.events.add(1, LABELS)
    instruments.event_duration.record(0.006, LABELS)
    instruments.queue_duration.record(0.001)


def cheapest(works: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Microseconds of one call of each: CPU time, the least of rounds that take turns."""
    least = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            started = time.thread_time()
            for _ in range(EVENTS):
                work()
            took = (time.thread_time() - started) / EVENTS * 1e6
            least[name] = min(least[name], took)
    return least


def measure(sample_ratio: float = 0.0) -> dict[str, float]:
    """Microseconds per event of each part, and of the SDK's own parts beside them."""
    telemetry = configure(
        TelemetrySettings(sample_ratio=sample_ratio), "bench", span_exporter=InMemorySpanExporter()
    )
    plain, traced, judged = record(False), record(True), verdict()
    logger = logging.getLogger("bench.telemetry")
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False

    try:
        return cheapest(
            {
                SPANS: lambda: spans(plain),
                SPANS_TRACED: lambda: spans(traced),
                SDK_SPAN: lambda: tracer.start_span(Span.CONSUME),
                METRICS: measurements,
                "canonical line, built": lambda: canonical_line(judged),
                "canonical line, written": lambda: log_event(judged, logger=logger),
            }
        )
    finally:
        logger.removeHandler(handler)
        telemetry.shutdown()


def main() -> None:
    """Print the table as JSON."""
    figures = {name: round(value, 2) for name, value in measure().items()}
    sys.stdout.write(json.dumps({"microseconds_per_event": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
