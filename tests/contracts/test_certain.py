"""The short way of reading says the same as the careful one, or nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import event_document, input_record
from worker.contracts import decode
from worker.contracts.certain import certain_event
from worker.contracts.event import Event

MOST_IMAGES = 3


class Pairs(list[tuple[str, Any]]):
    """An object as it is written: names may repeat."""


texts = st.sampled_from(
    ["a", 'say "x": 1', "\\", "é\u2028", "\ud800", "\x00", "", " : ", '":', "::"]
)
values = st.recursive(
    st.none() | st.booleans() | texts | st.integers() | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.lists(st.tuples(texts, inner), max_size=3).map(Pairs)
    ),
    max_leaves=4,
)


def image() -> st.SearchStrategy[Pairs]:
    return shuffled({"uri": texts, "sha256": texts, "version_id": values})


def message() -> st.SearchStrategy[Pairs]:
    role = st.sampled_from(["user", "assistant", "system"])
    return shuffled({"role": role, "text": texts | values, "images": st.lists(image(), max_size=2)})


def shuffled(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Pairs]:
    """Some of the fields, in any order, some of them twice, and one that nobody knows."""
    pairs = [st.tuples(st.just(name), value) for name, value in fields.items()]
    some = st.lists(st.one_of(*pairs), max_size=len(fields) + 1)
    once = st.tuples(*pairs).map(list)
    extra = st.lists(st.tuples(st.just("other"), values), max_size=1)
    return st.tuples(once | some, extra).flatmap(
        lambda parts: st.permutations([*parts[0], *parts[1]]).map(Pairs)
    )


documents = shuffled(
    {
        "id": texts,
        "conversation_id": texts,
        "time": st.sampled_from(["2026-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "now"]),
        "tenant": texts,
        "locale": texts,
        "messages": st.lists(message(), max_size=3),
        "metadata": values,
    }
)
spaces = st.sampled_from(["", "", "", " ", "\n", "\t ", "\r"])


def written(value: Any, draw: Any) -> str:
    """JSON of ``value`` with spaces wherever they are allowed, and non-ASCII escaped or not."""

    def gap() -> str:
        return str(draw(spaces))

    if isinstance(value, Pairs):
        members = [
            f"{gap()}{written(name, draw)}{gap()}:{gap()}{written(each, draw)}{gap()}"
            for name, each in value
        ]
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(f"{gap()}{written(each, draw)}{gap()}" for each in value) + "]"
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@given(documents, st.data())
def test_what_is_certain_is_what_the_careful_way_reads(
    document: Pairs, data: st.DataObject
) -> None:
    """Twice-given names, escapes, odd spaces and wrong types never make the two ways differ."""
    value = written(document, data.draw).encode("utf-8", "surrogatepass")
    check(value)


@given(st.integers(0, 400), st.integers(0, 255))
def test_one_byte_replaced_makes_no_difference_either(place: int, byte: int) -> None:
    """The careful way judges what a flipped bit made of a record that was certain before."""
    raw = bytearray(json.dumps(event_document(metadata={"a": {"b": 1}}, tenant="t")).encode())
    raw[place % len(raw)] = byte
    check(bytes(raw))


def check(value: bytes) -> None:
    record = input_record(value)
    event = certain_event(record, value, MOST_IMAGES)
    if event is not None:
        careful = decode._read_carefully(record, value, MOST_IMAGES)
        assert careful.fault is None
        assert careful.event == event


@pytest.mark.parametrize("compact", [True, False])
def test_ordinary_events_are_certain(compact: bool) -> None:
    """As the usual libraries write them, or the short way would be of no use."""
    document = event_document(
        time="2026-01-01T00:00:00Z", tenant="t", locale="en", metadata={"client": {"name": "web"}}
    )
    document["messages"].append({"role": "assistant", "text": 'she said "hi: you"'})
    document["messages"].append({"role": "user", "text": "x", "images": [{"uri": "s3://b/k"}]})
    value = json.dumps(document, separators=(",", ":") if compact else None).encode()
    traced = input_record(value, headers=(("traceparent", b"00-0-0-00"),))
    assert certain_event(traced, value, MOST_IMAGES) == msgspec.convert(document, Event)


@pytest.mark.parametrize(
    "value",
    [
        b'{"id":"a","id" :"b","conversation_id":"c","messages":[{"role":"user","text":"x"}]}',
        b'{"id":"a","conversation_id":"c","messages":[{"role":"user","text":"x","text":"y"}]}',
        b'{"id":"a","conversation_id":"c","messages":[{"role":"user","text":"x"}],"specversion":1}',
        b'{"id":"a","conversation_id":"c\\u003ac","messages":[{"role":"user","text":"x"}],"z":1}',
        b'{"id":"a:","id":"b\\u003a","conversation_id":"c","messages":[{"role":"user","text":"x"}]}',
        b'{"id":"a\\n","conversation_id":"c","messages":[{"role":"user","text":"x"}]}',
        b'{"id":"a","conversation_id":"c","messages":[{"role":"assistant","text":"x"}]}',
    ],
)
def test_a_doubtful_record_goes_the_careful_way(value: bytes) -> None:
    """A name given twice, an envelope, a control character, nothing to judge."""
    record = input_record(value)
    assert certain_event(record, value, MOST_IMAGES) is None
