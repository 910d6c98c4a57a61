"""Verdicts and quarantine records as they are written: CloudEvents, binary mode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from worker.contracts.cloudevents import output_headers
from worker.contracts.event import Event
from worker.contracts.verdict import SourceRef, Verdict
from worker.records import Headers, Output, Record

# Structs to JSON, the same bytes for the same value.

_encoder = msgspec.json.Encoder(order="deterministic")


def encode(value: msgspec.Struct) -> bytes:
    """Compact UTF-8 JSON: fields in the order of the type, keys of free objects sorted."""
    return _encoder.encode(value)


_OVERHEAD_BYTES = 512
"""Batch header, lengths and timestamps around one record, generously."""
_HEADER_OVERHEAD_BYTES = 10


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """The value of the input record, byte for byte, or what identifies it."""

    value: str | None
    """The value as it was produced; null where the record would outgrow the topic with it: read it
    from the input topic at ``source``, while it is kept there."""
    size: int
    """Bytes of the value."""
    sha256: str
    """Digest of the value's bytes."""


class QuarantineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Content held for a person, with everything needed to decide about it."""

    source: SourceRef
    """Where the event came from."""
    verdict: Verdict
    """The verdict as published on the verdict topic."""
    event: Event | None
    """The event as it was read: fields at fault are left out; null where the value is."""
    original: Original
    """The event as it was produced."""
    reasoning_traces: tuple[str, ...]
    """Every THINK trace, whole; the first is the one the verdict shortens."""
    traces_omitted: int
    """Traces left out because the record would have outgrown the topic even by reference."""
    needs_review: bool
    """Whether a person is to decide; false for content that was blocked and is kept as evidence."""
    held_at: str
    """When it was held, RFC 3339 in UTC."""


def verdict_output(verdict: Verdict, *, topic: str, trace_headers: Headers = ()) -> Output:
    """The verdict as a record: key is the conversation id, headers are CloudEvents and W3C trace.

    ``trace_headers`` are those of the span that decided, as ``worker.telemetry`` writes them.
    """
    return Output(
        topic=topic,
        key=verdict.conversation_id.encode(),
        value=encode(verdict),
        headers=_headers("verdict", verdict, verdict.judged_at) + trace_headers,
    )


def quarantine_output(
    record: Record,
    event: Event,
    verdict: Verdict,
    *,
    traces: Sequence[str],
    needs_review: bool,
    held_at: str,
    topic: str,
    max_bytes: int,
    trace_headers: Headers = (),
) -> Output:
    """Hold ``record`` for a person. ``record`` was decoded, so that its value is UTF-8.

    A record that would outgrow ``max_bytes`` refers to its input instead of repeating it; if that
    is not enough, traces are left out, the last first.
    """
    value = record.value or b""
    held = QuarantineRecord(
        source=verdict.source,
        verdict=verdict,
        event=event,
        original=Original(
            value=value.decode("utf-8"), size=len(value), sha256=hashlib.sha256(value).hexdigest()
        ),
        reasoning_traces=tuple(traces),
        traces_omitted=0,
        needs_review=needs_review,
        held_at=held_at,
    )
    key = verdict.conversation_id.encode()
    headers = _headers("quarantine", verdict, held_at) + trace_headers
    output = Output(topic=topic, key=key, value=encode(held), headers=headers)
    if record_size(output) > max_bytes:
        reference = msgspec.structs.replace(held.original, value=None)
        held = msgspec.structs.replace(held, event=None, original=reference)
        output = msgspec.structs.replace(output, value=encode(held))
    while record_size(output) > max_bytes and held.reasoning_traces:
        kept = held.reasoning_traces[:-1]
        omitted = held.traces_omitted + 1
        held = msgspec.structs.replace(held, reasoning_traces=kept, traces_omitted=omitted)
        output = msgspec.structs.replace(output, value=encode(held))
    return output


def record_size(record: Record | Output) -> int:
    """Bytes a record takes on the wire at most, uncompressed."""
    headers = sum(
        len(name.encode()) + len(content or b"") + _HEADER_OVERHEAD_BYTES
        for name, content in record.headers
    )
    return len(record.key or b"") + len(record.value or b"") + headers + _OVERHEAD_BYTES


def _headers(kind: str, verdict: Verdict, time: str) -> Headers:
    return output_headers(
        kind=kind,
        event_id=verdict.verdict_id,
        source=verdict.source.topic,
        subject=verdict.event_id,
        time=time,
        partition_key=verdict.conversation_id,
    )
