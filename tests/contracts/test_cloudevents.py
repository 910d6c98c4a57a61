"""CloudEvents 1.0 are read in binary and structured mode, and written in binary mode."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.support.records import event_document, input_record
from worker.codes import DeadLetterCode as Code
from worker.contracts.decode import Decoded, decode_event
from worker.errors import UnreadableRecord
from worker.records import Headers

MAX_BYTES = 1 << 20
TIME = "2026-01-01T00:00:00Z"
BINARY: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"ce-1"),
    ("ce_source", b"/chat"),
    ("ce_type", b"conversation"),
    ("ce_time", TIME.encode()),
    ("content-type", b"application/json; charset=utf-8"),
)
STRUCTURED: Headers = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def anonymous(**changes: Any) -> dict[str, Any]:
    """An event that leaves its identity to the envelope."""
    return {"messages": [{"role": "user", "text": "hello"}], **changes}


def envelope(**changes: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "ce-1",
        "source": "/chat",
        "type": "conversation",
        "time": TIME,
        "partitionkey": "room-9",
        "data": anonymous(),
        **changes,
    }


def decode(value: object, headers: Headers = (), key: bytes | None = b"key-1") -> Decoded:
    return decode_event(input_record(value, headers=headers, key=key), MAX_BYTES)


def failure(value: object, headers: Headers = (), key: bytes | None = b"key-1") -> UnreadableRecord:
    with pytest.raises(UnreadableRecord) as raised:
        decode(value, headers, key)
    return raised.value


def test_a_binary_event_takes_its_missing_identity_from_headers() -> None:
    """``ce_id`` and ``ce_time`` stand in for the event's own fields."""
    event = decode(anonymous(), (*BINARY, ("ce_partitionkey", b"room-9"))).event
    assert (event.id, event.conversation_id, event.time) == ("ce-1", "room-9", TIME)


def test_without_a_partition_key_the_record_key_names_the_conversation() -> None:
    """The Kafka binding makes the record key of it, so the key says the same."""
    assert decode(anonymous(), BINARY).event.conversation_id == "key-1"
    structured = envelope()
    del structured["partitionkey"]
    assert decode(structured, STRUCTURED).event.conversation_id == "key-1"


def test_the_events_own_fields_win_over_the_envelope() -> None:
    """The producer's application knows its ids better than its transport."""
    own = event_document(time="2025-05-05T05:05:05Z")
    for value, headers in ((own, BINARY), (envelope(data=own), STRUCTURED)):
        event = decode(value, headers).event
        assert (event.id, event.conversation_id) == ("e-1", "c-1")
        assert event.time == "2025-05-05T05:05:05Z"


@pytest.mark.parametrize("headers", [STRUCTURED, ()], ids=["by header", "by specversion"])
def test_a_structured_event_is_read_from_its_data(headers: Headers) -> None:
    """With the content type, or recognised by ``specversion`` alone."""
    event = decode(envelope(), headers).event
    assert (event.id, event.conversation_id, event.time) == ("ce-1", "room-9", TIME)
    assert event.messages[0].text == "hello"


def test_a_structured_event_may_carry_its_data_in_base64() -> None:
    """Some producers call every payload binary."""
    packed = base64.b64encode(json.dumps(event_document()).encode()).decode()
    document = envelope(data_base64=packed)
    del document["data"]
    assert decode(document).event.id == "e-1"


def test_faults_inside_an_envelope_are_named_from_its_root() -> None:
    """The path leads from the record as it was produced."""
    fault = decode(envelope(data=anonymous(messages=[{"role": "user", "text": 1}]))).fault
    assert fault is not None
    assert fault.field == "data.messages[0].text"


def test_the_record_key_is_no_conversation_id_outside_cloudevents() -> None:
    """A plain producer's key may be anything."""
    error = failure({"id": "e-1", **anonymous()})
    assert (error.code, error.field) == (Code.MISSING_FIELD, "conversation_id")


def test_header_names_are_read_in_any_case_and_the_last_of_a_name_counts() -> None:
    """As the trace headers are."""
    headers = (*BINARY, ("CE_ID", b"ce-2"), ("Content-Type", b"application/json"))
    assert decode(anonymous(), headers).event.id == "ce-2"


def replaced(name: str, content: bytes | None) -> Headers:
    return tuple((each, content if each == name else old) for each, old in BINARY)


@pytest.mark.parametrize(
    ("value", "headers", "field"),
    [
        (anonymous(), replaced("ce_specversion", b"0.3"), "ce_specversion"),
        (anonymous(), replaced("ce_specversion", None), "ce_specversion"),
        (anonymous(), replaced("ce_specversion", b"\xff"), "ce_specversion"),
        (anonymous(), replaced("ce_id", b"\xff"), "ce_id"),
        (anonymous(), replaced("content-type", b"application/avro"), "content-type"),
        (b"[]", (("content-type", b"application/cloudevents-batch+json"),), "content-type"),
        (b"\x01", (("content-type", b"application/cloudevents+avro"),), "content-type"),
        ([], STRUCTURED, ""),
        (event_document(), STRUCTURED, "specversion"),
        (envelope(specversion="2.0"), (), "specversion"),
        (envelope(specversion=1.0), (), "specversion"),
        (envelope(datacontenttype="text/plain"), (), "datacontenttype"),
        (envelope(data_base64="e30="), (), "data_base64"),
        (envelope(data=None, data_base64=None, datacontenttype=5), (), "datacontenttype"),
    ],
)
def test_a_cloudevent_that_is_not_supported_names_the_attribute(
    value: object, headers: Headers, field: str
) -> None:
    """Another version, another format, or two payloads at once."""
    error = failure(value, headers)
    assert (error.code, error.field) == (Code.UNSUPPORTED_CLOUDEVENT, field)


@pytest.mark.parametrize(
    ("value", "headers", "code", "field"),
    [
        (envelope(data="hello"), (), Code.WRONG_TYPE, "data"),
        (envelope(id=5), (), Code.WRONG_TYPE, "id"),
        (envelope(id=""), (), Code.INVALID_FIELD, "id"),
        (envelope(partitionkey="a\nb"), (), Code.INVALID_FIELD, "partitionkey"),
        (envelope(data=anonymous(id=5)), (), Code.WRONG_TYPE, "data.id"),
        (anonymous(), replaced("ce_id", b"\x00"), Code.INVALID_FIELD, "ce_id"),
        (b'{"specversion": "1.0", "id": "a"}', (), Code.MISSING_FIELD, "data"),
        (
            b'{"specversion": "1.0", "id": "a", "data": {}, "data": {}}',
            (),
            Code.DUPLICATE_KEY,
            "data",
        ),
    ],
)
def test_a_cloudevent_without_a_readable_event_names_the_field(
    value: object, headers: Headers, code: Code, field: str
) -> None:
    """Envelope and event are told apart by the path."""
    error = failure(value, headers)
    assert (error.code, error.field) == (code, field)


def test_an_envelope_without_a_key_leaves_the_conversation_missing() -> None:
    """Neither the event, nor ``partitionkey``, nor a record key that is text."""
    for key in (None, b"", b"\xff"):
        assert failure(anonymous(), BINARY, key).code == Code.MISSING_FIELD
