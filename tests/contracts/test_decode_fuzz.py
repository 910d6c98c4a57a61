"""Whatever bytes come, a record ends as an event or as a dead letter, never as a crash."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import input_record
from worker.contracts.decode import Decoded, decode_event
from worker.contracts.encode import encode
from worker.contracts.event import Event, ImageRef, Message
from worker.errors import UnreadableRecord
from worker.records import Headers

MAX_BYTES = 1 << 20
header_names = st.sampled_from(
    ["content-type", "ce_specversion", "ce_id", "ce_time", "ce_partitionkey", "traceparent"]
)
header_values = (
    st.none()
    | st.binary(max_size=20)
    | st.sampled_from([b"1.0", b"application/json", b"application/cloudevents+json"])
)
any_headers = st.lists(st.tuples(header_names, header_values), max_size=6).map(tuple)

plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | plain_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=8,
)
images = st.builds(
    ImageRef, uri=ids, version_id=st.none() | plain_text, sha256=st.none() | plain_text
)
messages = st.builds(
    Message,
    role=st.sampled_from(["user", "assistant"]),
    text=plain_text,
    images=st.lists(images, max_size=2).map(tuple),
)
events = st.builds(
    Event,
    id=ids,
    conversation_id=ids,
    time=st.none() | st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    tenant=st.none() | ids,
    locale=st.none() | st.sampled_from(["en", "ar-EG", "zh-Hant"]),
    messages=st.lists(messages, max_size=4).map(tuple),
    metadata=st.dictionaries(plain_text, json_values, max_size=3),
)


def outcome(value: bytes, headers: Headers = ()) -> Decoded | UnreadableRecord:
    try:
        return decode_event(input_record(value, headers=headers), MAX_BYTES)
    except UnreadableRecord as error:
        return error


@given(st.binary(max_size=200), any_headers)
def test_arbitrary_bytes_are_an_event_or_a_dead_letter(value: bytes, headers: Headers) -> None:
    """No third ending, whatever the headers claim the bytes are."""
    assert isinstance(outcome(value, headers), Decoded | UnreadableRecord)


@given(json_values, any_headers)
def test_arbitrary_json_is_an_event_or_a_dead_letter(value: object, headers: Headers) -> None:
    """Every type may stand in every place."""
    raw = json.dumps(value).encode()
    assert isinstance(outcome(raw, headers), Decoded | UnreadableRecord)


@given(events)
def test_what_is_encoded_is_decoded_again(event: Event) -> None:
    """A round trip through the wire changes nothing."""
    decoded = outcome(encode(event))
    assert isinstance(decoded, Decoded)
    assert decoded.event == event


@given(events, st.data())
def test_a_valid_event_with_one_value_replaced_still_gets_a_verdict(
    event: Event, data: st.DataObject
) -> None:
    """As long as both ids are untouched, the result is an event that can be written out."""
    document = msgspec.to_builtins(event)
    names = ["time", "tenant", "locale", "messages", "metadata"]
    document[data.draw(st.sampled_from(names))] = data.draw(json_values)
    decoded = outcome(json.dumps(document).encode())
    assert isinstance(decoded, Decoded)
    assert (decoded.event.id, decoded.event.conversation_id) == (event.id, event.conversation_id)
    assert msgspec.json.decode(encode(decoded.event), type=Event) == decoded.event


@given(events, st.data())
def test_a_valid_event_with_a_message_replaced_still_gets_a_verdict(
    event: Event, data: st.DataObject
) -> None:
    """Deep inside, as at the top."""
    document: dict[str, Any] = msgspec.to_builtins(event)
    wrong = st.fixed_dictionaries(
        {}, optional={"role": json_values, "text": json_values, "images": json_values}
    )
    document["messages"] = [*document.get("messages", ()), data.draw(wrong)]
    assert isinstance(outcome(json.dumps(document).encode()), Decoded)


@given(events, st.integers(0, 400), st.integers(0, 255))
def test_a_valid_event_with_one_byte_replaced_never_crashes(
    event: Event, place: int, byte: int
) -> None:
    """Bits flip, disks lie."""
    raw = bytearray(encode(event))
    raw[place % len(raw)] = byte
    assert isinstance(outcome(bytes(raw)), Decoded | UnreadableRecord)
