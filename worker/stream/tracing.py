"""Spans over batches of records: cheap unless sampled, linked to the records' own traces."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.trace import Span, SpanKind

from worker.stream.base import Record
from worker.telemetry.names import Attribute
from worker.telemetry.propagation import span_context
from worker.telemetry.spans import tracer

MAX_LINKS = 128
"""The SDK drops further links of a span (OTEL_SPAN_LINK_COUNT_LIMIT)."""


def batch_span(
    name: str,
    operation: str,
    records: Iterable[Record],
    count: int,
    started: float | None = None,
) -> Span:
    """Start a CLIENT span over ``count`` records; links are made only where it is recorded.

    ``started`` is seconds since the epoch; now where it is left out.
    """
    start_ns = None if started is None else int(started * 1e9)
    span = tracer.start_span(name, kind=SpanKind.CLIENT, start_ns=start_ns)
    if span.is_recording():
        span.set_attributes(
            {
                Attribute.SYSTEM: "kafka",
                Attribute.OPERATION_TYPE: operation,
                Attribute.BATCH_SIZE: count,
            }
        )
        links = 0
        for record in records:
            context = span_context(record.headers)
            if context is not None:
                span.add_link(context)
                links += 1
                if links == MAX_LINKS:
                    break
    return span
