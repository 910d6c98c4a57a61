"""W3C Trace Context over Kafka record headers (https://www.w3.org/TR/trace-context/, level 1).

Read from an event's headers, written into its outputs' headers. Baggage is neither read nor handed
on: it can carry anything, and a verdict must not carry what nobody declared.
"""

from __future__ import annotations

import re

from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState

from worker.records import Header, Headers

MAX_TRACESTATE_BYTES = 512
"""Longer ones are dropped; the recommendation asks for at least this much to be kept."""

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NAMES = (Header.TRACEPARENT, Header.TRACESTATE)


def span_context(headers: Headers) -> SpanContext | None:
    """The producer's span, or None where the headers name none or name it wrongly.

    Names are matched without regard to case, and the last duplicate wins: a hop that appends its
    own headers stands nearer to us than the one before it.
    """
    parent: bytes | None = None
    state: bytes | None = None
    for name, value in headers:
        if len(name) == 11 and name.lower() == Header.TRACEPARENT:
            parent = value
        elif len(name) == 10 and name.lower() == Header.TRACESTATE:
            state = value
    if parent is None:
        return None
    match = _TRACEPARENT.fullmatch(parent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None):
        return None
    context = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & TraceFlags.SAMPLED),
        trace_state=_trace_state(state),
    )
    return context if context.is_valid else None


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
