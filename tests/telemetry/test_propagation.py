"""Trace context in record headers, well and badly written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.records import Header, Headers
from worker.telemetry.tracing import span_context, traceparent, with_context

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def headers(value: bytes | None, state: bytes | None = None) -> Headers:
    return ((Header.TRACEPARENT, value), (Header.TRACESTATE, state))


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"hello",
        f"00-{TRACE}-{SPAN}".encode(),
        f"00-{TRACE}-{SPAN}-01-extra".encode(),
        f"ff-{TRACE}-{SPAN}-01".encode(),
        f"00-{'0' * 32}-{SPAN}-01".encode(),
        f"00-{TRACE}-{'0' * 16}-01".encode(),
        f"00-{TRACE.upper()}-{SPAN}-01".encode(),
        f" 00-{TRACE}-{SPAN}-01".encode(),
        f"00-{TRACE}-{SPAN}-01\n".encode(),
        b"\xff\xfe",
    ],
)
def test_an_invalid_traceparent_is_ignored(value: bytes | None) -> None:
    """A producer's mistake costs the connection, never the event."""
    assert span_context(headers(value)) is None


def test_a_later_version_is_read_by_what_is_known() -> None:
    """The recommendation asks a reader to take the first fields of versions it does not know."""
    context = span_context(headers(f"cc-{TRACE}-{SPAN}-01-what-the-future-holds".encode()))
    assert context is not None
    assert context.trace_flags.sampled


def test_the_last_duplicate_wins_in_any_case() -> None:
    """A hop that appends stands nearer than the one before it; header names vary in case."""
    first = f"00-{'1' * 32}-{'1' * 16}-01".encode()
    last = f"00-{TRACE}-{SPAN}-00".encode()
    context = span_context(((Header.TRACEPARENT, first), ("TraceParent", last)))
    assert context is not None
    assert format(context.trace_id, "032x") == TRACE


def test_a_cloudevents_context_counts_where_there_is_no_other() -> None:
    """Producers of CloudEvents carry it as an attribute; whoever sends the record stands nearer."""
    event = f"00-{'1' * 32}-{'1' * 16}-01".encode()
    own = f"00-{TRACE}-{SPAN}-01".encode()
    carried: Headers = (("ce_traceparent", event), ("ce_tracestate", b"a=b"))
    context = span_context(carried)
    assert context is not None
    assert format(context.trace_id, "032x") == "1" * 32
    assert context.trace_state.to_header() == "a=b"
    nearer = span_context((*carried, (Header.TRACEPARENT, own)))
    assert nearer is not None
    assert format(nearer.trace_id, "032x") == TRACE


def test_tracestate_travels_and_a_bad_one_is_dropped_alone() -> None:
    """Vendors' state is handed on; an oversized one does not cost the trace."""
    valid = f"00-{TRACE}-{SPAN}-01".encode()
    context = span_context(headers(valid, b"vendor=1,other=2"))
    assert context is not None
    assert dict(with_context((), context))[Header.TRACESTATE] == b"vendor=1,other=2"
    for bad in (b"\xff", b"x" * 10_000, b"", b"no pair"):
        context = span_context(headers(valid, bad))
        assert context is not None
        assert Header.TRACESTATE not in dict(with_context((), context))


def test_writing_replaces_what_was_there() -> None:
    """An output never carries two contexts, and baggage of nobody's making is not added."""
    context = span_context(headers(f"00-{TRACE}-{SPAN}-01".encode()))
    old: Headers = (("TRACEPARENT", b"old"), ("k", b"v"), (Header.TRACESTATE, b"a=b"))
    written = with_context(old, context)
    assert written == (("k", b"v"), (Header.TRACEPARENT, f"00-{TRACE}-{SPAN}-01".encode()))
    assert with_context(old, None) == (("k", b"v"),)


@given(st.binary(max_size=80))
def test_no_bytes_raise(value: bytes) -> None:
    """Headers are written by anybody."""
    span_context(headers(value, value))


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_what_is_written_is_read_back(trace_id: int, span_id: int, kept: bool) -> None:
    """Writing and reading are each other's inverse."""
    value = b"00-%032x-%016x-%02x" % (trace_id, span_id, kept)
    context = span_context(headers(value))
    assert context is not None
    assert traceparent(context) == value
