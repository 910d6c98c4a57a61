"""Verdicts and quarantine records as they are produced."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest

from tests.support.records import input_record
from worker.contracts.encode import (
    QuarantineRecord,
    encode,
    quarantine_output,
    record_size,
    verdict_output,
)
from worker.contracts.event import Event
from worker.contracts.samples import EVENT, RECORD, SOURCE, VERDICT
from worker.contracts.verdict import Verdict
from worker.records import Headers, Output

TRACE: Headers = (("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),)
AT = "2026-01-01T00:00:00.000Z"


def held(
    *, max_bytes: int = 1 << 20, traces: tuple[str, ...] = ("because",), value: bytes | None = None
) -> Output:
    record = RECORD if value is None else msgspec.structs.replace(RECORD, value=value)
    return quarantine_output(
        record,
        EVENT,
        VERDICT,
        traces=traces,
        needs_review=True,
        held_at=AT,
        topic="moderation.quarantine",
        max_bytes=max_bytes,
        trace_headers=TRACE,
    )


def read(output: Output) -> QuarantineRecord:
    return msgspec.json.decode(output.value or b"", type=QuarantineRecord)


def test_a_verdict_is_keyed_by_its_conversation_and_decodes_again() -> None:
    """Verdicts of one conversation stay in order for whoever reacts to them."""
    output = verdict_output(VERDICT, topic="moderation.verdicts")
    assert (output.topic, output.key) == ("moderation.verdicts", b"conv-42")
    assert msgspec.json.decode(output.value or b"", type=Verdict) == VERDICT


@pytest.mark.parametrize("kind", ["verdict", "quarantine"])
def test_outputs_are_cloudevents_in_binary_mode_with_trace_context(kind: str) -> None:
    """Attributes as headers, the producer's trace continued."""
    if kind == "verdict":
        output = verdict_output(VERDICT, topic="t", trace_headers=TRACE)
    else:
        output = held()
    assert output.headers[-1:] == TRACE
    assert dict(output.headers[:-1]) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_id": VERDICT.verdict_id.encode(),
        "ce_source": f"/moderation-worker/{kind}/community.conversations".encode(),
        "ce_type": f"moderation.{kind}.v1".encode(),
        "ce_time": AT.encode(),
        "ce_subject": b"evt-0001",
        "ce_partitionkey": b"conv-42",
        "ce_dataschema": f"urn:moderation-worker:schema:{kind}:v1".encode(),
    }


def test_a_quarantine_record_holds_everything_a_person_needs() -> None:
    """The event untouched, the verdict, whole traces, and where it came from."""
    record = read(held(traces=("one", "two")))
    assert record.original.value is not None
    assert record.original.value.encode() == RECORD.value
    assert (record.event, record.verdict, record.source) == (EVENT, VERDICT, SOURCE)
    assert record.reasoning_traces == ("one", "two")
    assert record.needs_review
    assert record.held_at == AT


def test_the_original_survives_byte_for_byte_even_where_it_is_odd() -> None:
    """A byte order mark, white space and half a surrogate pair make no invalid JSON downstream."""
    odd = b'\xef\xbb\xbf {"id":\t"e",\r\n "text": "\\ud800", "id": "e"} '
    output = held(value=odd)
    document = json.loads(output.value or b"")
    assert document["original"]["value"].encode() == odd


def test_a_quarantine_record_that_would_outgrow_the_topic_refers_to_its_input() -> None:
    """By digest and coordinates; the verdict and the traces stay whole."""
    big = b'{"text": "' + b"x" * 50_000 + b'"}'
    output = held(max_bytes=20_000, value=big)
    assert record_size(output) <= 20_000
    record = read(output)
    assert (record.event, record.original.value) == (None, None)
    assert record.original.size == len(big)
    assert record.original.sha256 == hashlib.sha256(big).hexdigest()
    assert (record.source, record.reasoning_traces) == (SOURCE, ("because",))


def test_traces_that_would_outgrow_the_topic_are_counted_instead() -> None:
    """A record is never a reason to stop: the trace of the verdict stays to the last."""
    output = held(max_bytes=16_000, traces=("a" * 9_000, "b" * 9_000, "c" * 9_000))
    assert record_size(output) <= 16_000
    record = read(output)
    assert record.reasoning_traces == ("a" * 9_000,)
    assert record.traces_omitted == 2


def test_equal_values_are_encoded_to_equal_bytes() -> None:
    """Whatever order a producer writes free objects in."""
    one = Event(id="e", conversation_id="c", metadata={"a": 1, "b": {"x": 1, "y": 2}})
    other = Event(id="e", conversation_id="c", metadata={"b": {"y": 2, "x": 1}, "a": 1})
    assert encode(one) == encode(other)


def test_the_size_of_a_record_counts_key_value_and_headers() -> None:
    """What the broker's limit is compared with must not be underestimated."""
    record = input_record(b"v" * 1000, key=b"k" * 100, headers=(("n" * 10, b"h" * 50),))
    assert record_size(record) >= 1160
