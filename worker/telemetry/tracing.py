"""Traces: the span of one event and of its stages, spans that events share, W3C trace context.

What a span costs when its trace is not kept is the sampler's question alone: the event's own span
asks it, and a stage beneath a span that nobody will see is not made. Errors are recorded by class
and code, never by message: a message may quote what a user wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

from opentelemetry import context as current
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
)
from opentelemetry.trace.span import TraceState

from worker.errors import WorkerError
from worker.records import Header, Headers, Output, Record
from worker.telemetry.names import SCOPE, Attribute, Span, named

Attributes = Mapping[str, str | bool | int | float]

SYSTEM = "kafka"
MAX_TRACESTATE_BYTES = 512
"""Longer ones are dropped; the recommendation asks for at least this much to be kept."""

# W3C Trace Context in record headers (https://www.w3.org/TR/trace-context/, level 1): read from an
# event's, written into its outputs'. Baggage is neither read nor handed on: it can carry anything,
# and a verdict must not carry what nobody declared. The SDK's propagator reads HTTP headers: it
# takes the first of two and accepts a line break at the end.

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NAMES = (Header.TRACEPARENT, Header.TRACESTATE)
_CLOUDEVENTS = "ce_"
"""Prefix of CloudEvents' own attributes: the distributed tracing extension carries the context so.
https://github.com/cloudevents/spec/blob/main/cloudevents/extensions/distributed-tracing.md"""


def span_context(headers: Headers) -> SpanContext | None:
    """The producer's span, or None where the headers name none or name it wrongly.

    Names are matched without regard to case, and the last duplicate wins: a hop that appends its
    own headers stands nearer to us than the one before it. CloudEvents' ``ce_traceparent`` counts
    where there is no ``traceparent``: whoever sends the record stands nearer than who made it.
    """
    found: dict[str, bytes | None] = {}
    for name, value in headers:
        if len(name) <= 14 and name.lower().endswith(_NAMES):
            found[name.lower()] = value
    for prefix in ("", _CLOUDEVENTS):
        parent = found.get(prefix + Header.TRACEPARENT)
        if parent is not None:
            return _read(parent, found.get(prefix + Header.TRACESTATE))
    return None


def _read(parent: bytes, state: bytes | None) -> SpanContext | None:
    match = _TRACEPARENT.fullmatch(parent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    found = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & TraceFlags.SAMPLED),
        trace_state=_trace_state(state),
    )
    return found if found.is_valid else None


def _trace_state(value: bytes | None) -> TraceState | None:
    if not value or len(value) > MAX_TRACESTATE_BYTES:
        return None
    try:
        return TraceState.from_header([value.decode("ascii")])
    except ValueError:
        return None


def traceparent(context: SpanContext) -> bytes:
    """``context`` as the value of a traceparent header."""
    flags = context.trace_flags & TraceFlags.SAMPLED
    return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, flags)


def with_context(headers: Headers, context: SpanContext | None) -> Headers:
    """``headers`` with ``context`` in place of any trace context they carried."""
    kept = tuple([each for each in headers if each[0].lower() not in _NAMES]) if headers else ()
    if context is None or not context.is_valid:
        return kept
    added: Headers = ((Header.TRACEPARENT, traceparent(context)),)
    if context.trace_state:
        added += ((Header.TRACESTATE, context.trace_state.to_header().encode("ascii")),)
    return kept + added


# Spans.


class HouseTracer:
    """The tracer of the house. ``bind`` points it at a provider; None is the process's own."""

    def __init__(self) -> None:
        self.bind(None)

    def bind(self, provider: trace.TracerProvider | None) -> None:
        """Make spans with ``provider`` from now on."""
        self._tracer: Tracer = trace.get_tracer(SCOPE, tracer_provider=provider)

    def start_span(
        self,
        name: str,
        parent: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] | None = None,
        start_ns: int | None = None,
        attributes: Attributes | None = None,
    ) -> trace.Span:
        """A span, whether kept or not; the caller ends it. ``parent`` None is the current span."""
        return self._tracer.start_span(name, parent, kind, attributes, links, start_ns)


tracer = HouseTracer()

_NO_PARENT = Context()
"""Not the current context: an event is no child of whatever polled it."""


def _context(parent: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(parent), _NO_PARENT)


def failed(span: trace.Span, error: BaseException) -> None:
    """Mark ``span`` as failed by the class of ``error``, or by its code if it is one of ours."""
    kind = str(error.code) if isinstance(error, WorkerError) else type(error).__qualname__
    span.set_attribute(Attribute.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR))


class CurrentSpan:
    """A span that is current inside a ``with`` block, and ends with it."""

    __slots__ = ("_token", "span")

    def __init__(self, span: trace.Span) -> None:
        self.span = span

    def __enter__(self) -> trace.Span:
        self._token = current.attach(trace.set_span_in_context(self.span))
        return self.span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if error is not None:
            failed(self.span, error)
        current.detach(self._token)
        self.span.end()


_NOT_KEPT: AbstractContextManager[trace.Span] = nullcontext(INVALID_SPAN)


def stage(
    name: str, attributes: Attributes | None = None, kind: SpanKind = SpanKind.INTERNAL
) -> AbstractContextManager[trace.Span]:
    """``with stage(Span.DECODE) as span:`` around one stage of an event.

    No span is made where that of the event is not kept.
    """
    if not trace.get_current_span().is_recording():
        return _NOT_KEPT
    return CurrentSpan(tracer.start_span(name, None, kind, attributes=attributes))


class EventSpan(CurrentSpan):
    """The span of one event. Outputs carry its context on with ``headers``."""

    __slots__ = ("recording",)

    def __init__(self, span: trace.Span) -> None:
        super().__init__(span)
        self.recording = span.is_recording()

    def __enter__(self) -> EventSpan:  # type: ignore[override]
        super().__enter__()
        return self

    def set(self, attributes: Attributes) -> None:
        """Add attributes, where somebody will see them."""
        if self.recording:
            self.span.set_attributes(attributes)

    def headers(self, headers: Headers = ()) -> Headers:
        """``headers`` of an output, with this event's trace context for the next reader."""
        return with_context(headers, self.span.get_span_context())


def event_span(record: Record, group: str) -> EventSpan:
    """``with event_span(record, group) as span:`` around everything done for one record.

    Its parent is the producer's span, where the record's headers name one: a single message is
    processed, so the semantic conventions allow the parent in place of a link.
    """
    producer = span_context(record.headers)
    span = tracer.start_span(
        named(Span.CONSUME, record.topic),
        _NO_PARENT if producer is None else _context(producer),
        SpanKind.CONSUMER,
    )
    found = EventSpan(span)
    if found.recording:
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
    return found


def kept_context() -> SpanContext | None:
    """The current span's context where the trace is kept, to be linked from a shared span."""
    span = trace.get_current_span()
    return span.get_span_context() if span.is_recording() else None


def _kept(value: bytes | None) -> bool:
    return value is not None and not value.endswith(b"-00")


def output_contexts(outputs: Iterable[Output]) -> list[SpanContext]:
    """The kept traces among ``outputs``, each once: what a publishing span links to."""
    found: dict[int, SpanContext] = {}
    for output in outputs:
        if not any(name == Header.TRACEPARENT and _kept(value) for name, value in output.headers):
            continue  # reading a context takes microseconds, and few are kept
        context = span_context(output.headers)
        if context is not None and context.trace_flags.sampled:
            found.setdefault(context.span_id, context)
    return list(found.values())


def shared_span(
    name: str,
    contexts: Iterable[SpanContext | None],
    attributes: Attributes | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> AbstractContextManager[trace.Span]:
    """A span around work for many events at once: one batch, one transaction.

    It links to every kept event. Its parent is the first of them: as a root of its own the sampler
    would drop it ninety-nine times in a hundred, and the events it serves would show a hole. With
    no kept event there is no span.
    """
    kept = [context for context in contexts if context is not None]
    if not kept:
        return _NOT_KEPT
    links = [Link(each) for each in kept]
    span = tracer.start_span(name, _context(kept[0]), kind, links, attributes=attributes)
    return CurrentSpan(span)


def poll_span(records: Sequence[Record], started: float) -> None:
    """Record one poll that brought ``records`` and began at ``started`` (seconds, the epoch).

    It links to their producers, as many as the SDK lets a span have; links are made only where the
    span is kept.
    """
    topics = {record.topic for record in records}
    topic = topics.pop() if len(topics) == 1 else ""
    name = named(Span.POLL, topic)
    span = tracer.start_span(name, kind=SpanKind.CLIENT, start_ns=int(started * 1e9))
    if span.is_recording():
        span.set_attributes(_messaging("poll", "receive", topic, len(records)))
        for record in records:
            context = span_context(record.headers)
            if context is not None:
                span.add_link(context)
    span.end()


def send_span(outputs: Sequence[Sequence[Output]]) -> AbstractContextManager[trace.Span]:
    """The span of one transaction that publishes ``outputs``, one sequence an event."""
    topics = {output.topic for each in outputs for output in each}
    topic = topics.pop() if len(topics) == 1 else ""
    return shared_span(
        named(Span.PUBLISH, topic),
        output_contexts(each[0] for each in outputs),
        _messaging("send", "send", topic, sum(map(len, outputs))),
        SpanKind.CLIENT,
    )


def _messaging(name: str, kind: str, topic: str, count: int) -> Attributes:
    found: dict[str, str | int] = {
        Attribute.SYSTEM: SYSTEM,
        Attribute.OPERATION_NAME: name,
        Attribute.OPERATION_TYPE: kind,
        Attribute.BATCH_SIZE: count,
    }
    return {**found, Attribute.TOPIC: topic} if topic else found


def finished_span(
    name: str, start_ns: int, end_ns: int, attributes: Attributes | None = None
) -> None:
    """Record a stage of the current event after the fact; times are ns since the epoch."""
    if trace.get_current_span().is_recording():
        tracer.start_span(name, start_ns=start_ns, attributes=attributes).end(end_ns)
