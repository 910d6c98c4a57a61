"""The span of one event, and the spans that many events share."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind

from worker.records import Header, Headers, Output, Record
from worker.telemetry import propagation
from worker.telemetry.names import Attribute, Span
from worker.telemetry.spans import NOTHING, Attributes, CurrentSpan, tracer

SYSTEM = "kafka"


_NO_PARENT = Context()
"""Not the current context: an event is no child of whatever polled it."""


def _context(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), _NO_PARENT)


class EventSpan:
    """Current from read to decided. Outputs carry its context on with ``headers``."""

    __slots__ = ("_current", "recording", "span")

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self.recording = span.is_recording()
        self._current = CurrentSpan(span)

    def set(self, attributes: Attributes) -> None:
        """Add attributes, where somebody will see them."""
        if self.recording:
            self.span.set_attributes(attributes)

    def headers(self, headers: Headers = ()) -> Headers:
        """``headers`` of an output, with this event's trace context for the next reader."""
        return propagation.with_context(headers, self.span.get_span_context())

    def __enter__(self) -> EventSpan:
        self._current.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._current.__exit__(kind, error, where)


def event_span(record: Record, group: str) -> EventSpan:
    """``with event_span(record, group) as span:`` around everything done for one record.

    Its parent is the producer's span, where the record's headers name one: a single message is
    processed, so the semantic conventions allow the parent in place of a link.
    """
    producer = propagation.span_context(record.headers)
    if producer is not None and not producer.trace_flags.sampled and tracer.follows_producer:
        # The sampler would say no: hand the producer's context on and ask nobody.
        return EventSpan(NonRecordingSpan(producer))
    if producer is None and tracer.roots is not None:
        dropped = tracer.roots.draw()
        if dropped is not None:
            return EventSpan(dropped)
    parent = _NO_PARENT if producer is None else _context(producer)
    span = tracer.start_span(Span.CONSUME, parent, SpanKind.CONSUMER)
    if span.is_recording():
        span.set_attributes(
            {
                Attribute.SYSTEM: SYSTEM,
                Attribute.OPERATION_NAME: "process",
                Attribute.OPERATION_TYPE: "process",
                Attribute.TOPIC: record.topic,
                Attribute.PARTITION: str(record.partition),
                Attribute.OFFSET: record.offset,
                Attribute.GROUP: group,
            }
        )
    return EventSpan(span)


def kept_context() -> SpanContext | None:
    """The current span's context where the trace is kept, to be linked from a shared span."""
    span = trace.get_current_span()
    return span.get_span_context() if span.is_recording() else None


def output_contexts(outputs: Iterable[Output]) -> list[SpanContext]:
    """The kept traces among ``outputs``, each once: what a publishing span links to."""
    found: dict[int, SpanContext] = {}
    for output in outputs:
        if not _names_a_kept_trace(output.headers):
            continue  # reading a context takes microseconds, and few are kept
        context = propagation.span_context(output.headers)
        if context is not None and context.trace_flags.sampled:
            found.setdefault(context.span_id, context)
    return list(found.values())


def _names_a_kept_trace(headers: Headers) -> bool:
    for name, value in reversed(headers):  # it was added last
        if name == Header.TRACEPARENT:
            return value is not None and value[-3:] != b"-00"
    return False


def shared_span(
    name: str,
    contexts: Iterable[SpanContext | None],
    attributes: Attributes | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> CurrentSpan:
    """A span around work for many events at once: one batch, one transaction.

    It links to every kept event. Its parent is the first of them: as a root of its own the sampler
    would drop it ninety-nine times in a hundred, and the events it serves would show a hole. With
    no kept event there is no span.
    """
    kept = [context for context in contexts if context is not None]
    if not kept:
        return NOTHING
    parent = _context(kept[0])
    span = tracer.start_span(name, parent, kind, [Link(context) for context in kept])
    if attributes and span.is_recording():
        span.set_attributes(attributes)
    return CurrentSpan(span)


def finished_span(
    name: str, start_ns: int, end_ns: int, attributes: Attributes | None = None
) -> None:
    """Record a stage of the current event after the fact; times are ns since the epoch."""
    if not trace.get_current_span().is_recording():
        return
    span = tracer.start_span(name, start_ns=start_ns)
    if attributes:
        span.set_attributes(attributes)
    span.end(end_ns)
