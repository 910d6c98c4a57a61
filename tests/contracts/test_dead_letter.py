"""A dead letter is the record as it came, and headers that say why; nothing of it is lost."""

from __future__ import annotations

import base64
import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import input_record
from worker.codes import DeadLetterCode as Code
from worker.contracts.dead_letter import (
    FIRST_BYTES,
    MAX_HISTORY,
    dead_letter_output,
    original,
    parse_dead_letter,
)
from worker.contracts.encode import record_size
from worker.contracts.verdict import SourceRef
from worker.errors import UnreadableRecord
from worker.records import Header, Headers, Output, Record

ERROR = UnreadableRecord(Code.MISSING_FIELD, field="id", detail="is missing")
TOPIC = "moderation.dead-letter"
NOW = 1_767_225_600.0

any_headers = st.lists(st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=20))).map(
    tuple
)


def dead(record: Record, error: UnreadableRecord = ERROR, max_bytes: int = 1 << 20) -> Output:
    return dead_letter_output(
        record, error, topic=TOPIC, max_bytes=max_bytes, worker_build="1.2.3", now=NOW
    )


def consumed(output: Output, offset: int = 0) -> Record:
    """The output as a tool reads it back."""
    return Record(
        topic=output.topic,
        partition=0,
        offset=offset,
        timestamp=1,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )


@given(st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=50), any_headers)
def test_key_value_and_headers_survive_a_dead_letter_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: Headers
) -> None:
    """Null, empty and repeated ones included: what went in can be produced again."""
    record = input_record(value, key=key, headers=headers)
    restored = original(consumed(dead(record)), topic="in")
    assert (restored.key, restored.value, restored.headers) == (key, value, headers)


def test_the_headers_say_why_where_and_when() -> None:
    """As text, behind the record's own headers."""
    record = input_record(b"{}", headers=(("own", b"1"),))
    output = dead(record)
    assert output.headers[0] == ("own", b"1")
    assert dict(output.headers[1:]) == {
        "moderation.dead-letter.code": b"missing_field",
        "moderation.dead-letter.field": b"id",
        "moderation.dead-letter.detail": b"is missing",
        "moderation.dead-letter.topic": b"in",
        "moderation.dead-letter.partition": b"2",
        "moderation.dead-letter.offset": b"7",
        "moderation.dead-letter.timestamp": b"1700000000123",
        "moderation.dead-letter.failed-at": b"2026-01-01T00:00:00.000Z",
        "moderation.dead-letter.worker-build": b"1.2.3",
    }


def test_every_header_of_a_dead_letter_stands_in_the_one_namespace() -> None:
    """Tools drop or keep them by one prefix."""
    output = dead(input_record(None), max_bytes=10)
    assert all(name.startswith(Header.DEAD_LETTER_PREFIX) for name, _ in output.headers)


def test_tools_read_back_what_was_written() -> None:
    """The description names the input record and the dead letter's own place."""
    letter = parse_dead_letter(consumed(dead(input_record(b"{}")), offset=33))
    assert (letter.code, letter.field, letter.detail) == ("missing_field", "id", "is missing")
    assert letter.source == SourceRef(
        topic="in", partition=2, offset=7, timestamp=1_700_000_000_123
    )
    assert letter.position == SourceRef(topic=TOPIC, partition=0, offset=33, timestamp=1)
    assert (letter.worker_build, letter.failed_at) == ("1.2.3", "2026-01-01T00:00:00.000Z")
    assert not letter.null_value
    assert letter.earlier == ()


def test_a_tombstone_is_an_empty_value_with_a_null_marker() -> None:
    """A null on a compacted topic would delete instead of tell."""
    output = dead(input_record(None), UnreadableRecord(Code.TOMBSTONE))
    assert output.value == b""
    assert parse_dead_letter(consumed(output)).null_value
    assert original(consumed(output), topic="in").value is None


def test_an_empty_value_is_not_taken_for_a_tombstone() -> None:
    """Null and empty stay apart."""
    output = dead(input_record(b""))
    assert not parse_dead_letter(consumed(output)).null_value
    assert original(consumed(output), topic="in").value == b""


def test_a_record_too_large_to_copy_is_referred_to() -> None:
    """Coordinates, digest, size and first bytes stand in for the value."""
    value = bytes(range(256)) * 64
    output = dead(input_record(value, headers=(("own", b"1"),)), max_bytes=8192)
    assert record_size(output) <= 8192
    reference = json.loads(output.value or b"")
    assert reference["sha256"] == hashlib.sha256(value).hexdigest()
    assert reference["size"] == len(value)
    assert base64.b64decode(reference["first_bytes"]) == value[:FIRST_BYTES]
    assert reference["source"]["offset"] == 7
    assert (output.key, output.headers[0]) == (b"c-1", ("own", b"1"))
    assert parse_dead_letter(consumed(output)).by_reference


def test_a_record_whose_headers_are_too_large_is_referred_to_without_them() -> None:
    """No record can be too large to be dead-lettered."""
    record = input_record(b"{}", headers=(("own", b"x" * 9000),))
    output = dead(record, max_bytes=4096)
    assert record_size(output) <= 4096
    reference = json.loads(output.value or b"")
    assert (reference["headers_omitted"], reference["key_omitted"]) == (1, True)


def test_a_referred_record_cannot_be_restored_and_says_where_it_is() -> None:
    """The tool must read it from the input topic."""
    output = dead(input_record(b"x" * 9000), max_bytes=4096)
    with pytest.raises(UnreadableRecord, match="in, partition 2, offset 7"):
        original(consumed(output), topic="in")


def test_a_record_that_fails_again_keeps_its_first_failure() -> None:
    """Sent back by hand and unreadable once more: both stories are there."""
    first = consumed(dead(input_record(b"{}", headers=(("own", b"1"),))), offset=5)
    again = UnreadableRecord(Code.WRONG_TYPE, field="", detail="is an array, not an object")
    letter = parse_dead_letter(consumed(dead(first, again)))
    assert letter.code == "wrong_type"
    assert letter.source.topic == TOPIC
    assert [failure.code for failure in letter.earlier] == ["missing_field"]
    assert letter.earlier[0].source.topic == "in"


def test_a_long_history_keeps_the_first_failure_and_the_latest() -> None:
    """A loop must not grow a record without end; its own headers stay."""
    record = input_record(b"{}", headers=(("own", b"1"),))
    for turn in range(20):
        error = UnreadableRecord(Code.MISSING_FIELD, field=f"turn-{turn}")
        output = dead(record, error)
        record = msgspec.structs.replace(
            consumed(output), headers=(*output.headers, (f"hop-{turn}", b""))
        )
    letter = parse_dead_letter(record)
    fields = [failure.field for failure in (*letter.earlier, letter)]
    assert len(fields) == MAX_HISTORY
    assert fields[0] == "turn-0"
    assert fields[-3:] == ["turn-17", "turn-18", "turn-19"]
    own = [name for name, _ in record.headers if not name.startswith(Header.DEAD_LETTER_PREFIX)]
    assert own == ["own", *(f"hop-{turn}" for turn in range(20))]


def test_forged_headers_of_the_namespace_change_nothing() -> None:
    """A producer may not mark its record as null, nor hide the reason."""
    forged: Headers = (
        (Header.DEAD_LETTER_NULL_VALUE, b"true"),
        (Header.DEAD_LETTER_CODE, b"harmless"),
        (Header.DEAD_LETTER_BY_REFERENCE, b"true"),
    )
    output = dead(input_record(b"{}", headers=forged))
    letter = parse_dead_letter(consumed(output))
    assert (letter.code, letter.null_value, letter.by_reference) == ("missing_field", False, False)
    assert letter.earlier == ()
    assert original(consumed(output), topic="in").headers == forged


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (Header.DEAD_LETTER_CODE, None),
        (Header.DEAD_LETTER_OFFSET, b"seven"),
        (Header.DEAD_LETTER_FIELD, b"\xff"),
    ],
)
def test_a_record_that_is_no_dead_letter_is_refused_with_the_header(
    name: str, content: bytes | None
) -> None:
    """Tools say which header is at fault."""
    output = dead(input_record(b"{}"))
    headers = tuple((each, content if each == name else old) for each, old in output.headers)
    with pytest.raises(UnreadableRecord) as raised:
        parse_dead_letter(msgspec.structs.replace(consumed(output), headers=headers))
    assert raised.value.field == name
    with pytest.raises(UnreadableRecord):
        parse_dead_letter(input_record(b"{}"))
