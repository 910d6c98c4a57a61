"""Spans that cost next to nothing when a trace is not kept.

The event's own span asks the sampler; every stage beneath it looks at that answer and is not made
at all when nobody will see it. Errors are recorded by class and code, never by message: a message
may quote what a user wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer

from worker.errors import WorkerError
from worker.telemetry.names import SCOPE, Attribute
from worker.telemetry.root_sampling import RootSampling

AttributeValue = str | bool | int | float
Attributes = Mapping[str, AttributeValue]


def failed(span: Span, error: BaseException) -> None:
    """Mark ``span`` as failed by the class of ``error``, or by its code if it is one of ours."""
    kind = str(error.code) if isinstance(error, WorkerError) else type(error).__qualname__
    span.set_attribute(Attribute.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR))


_kept: ContextVar[bool] = ContextVar("moderation_span_kept", default=False)
"""Whether the current span is recorded; the SDK takes five calls to say so, for every stage."""


class CurrentSpan:
    """A span that is current inside a ``with`` block, and ends with it.

    A span that is not kept is handed in with ``owned`` false: it is neither made current again nor
    ended, for it is the one around this block.
    """

    __slots__ = ("_kept", "_owned", "_token", "span")

    def __init__(self, span: Span, owned: bool = True) -> None:
        self.span = span
        self._owned = owned
        self._token: Token[Context] | None = None
        self._kept: Token[bool] | None = None

    def __enter__(self) -> Span:
        if self._owned:
            self._token = otel_context.attach(trace.set_span_in_context(self.span))
            self._kept = _kept.set(self.span.is_recording())
        return self.span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if not self._owned:
            return
        if error is not None and self.span.is_recording():
            failed(self.span, error)
        if self._token is not None and self._kept is not None:
            _kept.reset(self._kept)
            otel_context.detach(self._token)
        self.span.end()


NOTHING = CurrentSpan(trace.INVALID_SPAN, owned=False)
"""The stage of an event whose trace is not kept. It has no state, so everybody shares it."""


class StageTracer:
    """The tracer of the house. ``bind`` points it at a provider; None is the process's own."""

    def __init__(self) -> None:
        self._tracer: Tracer = trace.get_tracer(SCOPE)
        self.follows_producer = False
        self.roots: RootSampling | None = None

    def bind(
        self,
        provider: trace.TracerProvider | None,
        follows_producer: bool = False,
        roots: RootSampling | None = None,
    ) -> None:
        """Use ``provider``; ``follows_producer``: its sampler keeps nothing a producer did not.

        ``roots`` decides about traces that begin here, where the provider's sampler agrees with it.
        """
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=provider)
        self.follows_producer = follows_producer
        self.roots = roots

    def start_span(
        self,
        name: str,
        parent: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[Link] | None = None,
        start_ns: int | None = None,
    ) -> Span:
        """A span whether kept or not; the caller ends it."""
        return self._tracer.start_span(name, parent, kind, None, links, start_ns)

    def start_as_current_span(self, name: str, attributes: Attributes | None = None) -> CurrentSpan:
        """One stage of the event whose span is current; nothing where that one is not kept."""
        if not _kept.get():
            return NOTHING
        span = self._tracer.start_span(name)
        if attributes:
            span.set_attributes(attributes)
        return CurrentSpan(span)


tracer = StageTracer()


def stage(name: str, attributes: Attributes | None = None) -> CurrentSpan:
    """``with stage(Span.DECODE) as span:`` around one stage of an event."""
    return tracer.start_as_current_span(name, attributes)
