"""What telemetry costs one event when its trace is not kept: ``python -m worker.bench.telemetry``.

Prints microseconds per event, the best of several rounds: noise only ever adds.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections.abc import Callable

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from worker.contracts.verdict import ModelRef, PolicyRef, SideVerdict, SourceRef, Timings, Verdict
from worker.settings import Telemetry as TelemetrySettings
from worker.stream.base import Record
from worker.telemetry import instruments
from worker.telemetry.canonical import canonical_line, log_event
from worker.telemetry.event_span import event_span, finished_span, kept_context, shared_span
from worker.telemetry.logs import JsonFormatter
from worker.telemetry.names import Attribute, Header, Span
from worker.telemetry.providers import configure
from worker.telemetry.spans import stage

ROUNDS = 7
EVENTS = 3000
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
    policy = {Attribute.POLICY: "devtools", Attribute.OUTCOME: "safe"}
    instruments.events.add(1, policy)
    instruments.event_duration.record(0.006, policy)
    instruments.queue_duration.record(0.001)


def best(work: Callable[[], None]) -> float:
    """Microseconds of one call."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(EVENTS):
            work()
        rounds.append((time.perf_counter() - started) / EVENTS * 1e6)
    return min(rounds)


def measure(sample_ratio: float = 0.0) -> dict[str, float]:
    """Microseconds per event of each part."""
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
        return {
            "spans, no producer context": best(lambda: spans(plain)),
            "spans, producer context not kept": best(lambda: spans(traced)),
            "metrics": best(measurements),
            "canonical line, built": best(lambda: _drop(canonical_line(judged))),
            "canonical line, written": best(lambda: log_event(judged, logger=logger)),
        }
    finally:
        logger.removeHandler(handler)
        telemetry.shutdown()
        instruments.clear()


def _drop(_: object) -> None:
    return


def main() -> None:
    """Print the table as JSON."""
    figures = {name: round(value, 2) for name, value in measure().items()}
    sys.stdout.write(json.dumps({"microseconds_per_event": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
