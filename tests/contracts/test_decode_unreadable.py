"""Records without a readable identity become dead letters, with a code and the field at fault."""

from __future__ import annotations

import json

import pytest

from tests.support.records import event_document, input_record
from worker.codes import DeadLetterCode as Code
from worker.contracts.decode import decode_event
from worker.errors import UnreadableRecord

MAX_BYTES = 10 * 1024 * 1024


def failure(value: object, max_bytes: int = MAX_BYTES) -> UnreadableRecord:
    with pytest.raises(UnreadableRecord) as raised:
        decode_event(input_record(value), max_bytes)
    return raised.value


def without(name: str) -> dict[str, object]:
    document = event_document()
    del document[name]
    return document


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(None, Code.TOMBSTONE, id="null"),
        pytest.param(b"", Code.NOT_JSON, id="empty"),
        pytest.param(b"   ", Code.NOT_JSON, id="blank"),
        pytest.param(b"hello", Code.NOT_JSON, id="text"),
        pytest.param(b'{"id": "e-1",', Code.NOT_JSON, id="cut off"),
        pytest.param(b'{"id": "e-1"} {}', Code.NOT_JSON, id="two documents"),
        pytest.param(b"{'id': 'e-1'}", Code.NOT_JSON, id="single quotes"),
        pytest.param(b'{"id": "e-1", "x": NaN}', Code.NOT_JSON, id="NaN"),
        pytest.param(b'{"id": "e-1", "x": -Infinity}', Code.NOT_JSON, id="-Infinity"),
        pytest.param(b'{"id": "e\x00"}', Code.NOT_JSON, id="bare control character"),
        pytest.param(b'{"id": "\xff"}', Code.NOT_UTF8, id="a byte that is not UTF-8"),
        pytest.param('{"id": "e-1"}'.encode("utf-16"), Code.NOT_UTF8, id="UTF-16"),
        pytest.param(b'{"id": "\xed\xa0\x80"}', Code.NOT_UTF8, id="an encoded surrogate"),
        pytest.param(b'\x00\x00\x00\x00\x2a{"id": "e-1"}', Code.SCHEMA_REGISTRY_FRAMED, id="frame"),
        pytest.param(b"[" * 100, Code.TOO_DEEP, id="deep"),
        pytest.param(b"[1]", Code.WRONG_TYPE, id="an array"),
        pytest.param(b'"e-1"', Code.WRONG_TYPE, id="a string"),
        pytest.param(b"null", Code.WRONG_TYPE, id="JSON null"),
    ],
)
def test_a_value_that_is_no_json_object_is_a_dead_letter_with_its_code(
    value: bytes | None, code: Code
) -> None:
    """Each way of not being one JSON object has a code of its own."""
    assert failure(value).code == code


@pytest.mark.parametrize("name", ["id", "conversation_id"])
@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(None, Code.MISSING_FIELD, id="null"),
        pytest.param(7, Code.WRONG_TYPE, id="number"),
        pytest.param(["e-1"], Code.WRONG_TYPE, id="array"),
        pytest.param("", Code.INVALID_FIELD, id="empty"),
        pytest.param("x" * 257, Code.INVALID_FIELD, id="257 characters"),
        pytest.param("a\x00b", Code.INVALID_FIELD, id="NUL"),
        pytest.param("a\nb", Code.INVALID_FIELD, id="line feed"),
        pytest.param("a\x85b", Code.INVALID_FIELD, id="C1 control"),
        pytest.param("\ud800", Code.INVALID_FIELD, id="half a surrogate pair"),
    ],
)
def test_an_id_that_cannot_be_used_is_a_dead_letter_that_names_it(
    name: str, value: object, code: Code
) -> None:
    """Without both ids there is nothing a verdict could be about."""
    error = failure(event_document(**{name: value}))
    assert (error.code, error.field) == (code, name)


@pytest.mark.parametrize("name", ["id", "conversation_id"])
def test_a_missing_id_is_a_dead_letter_that_names_it(name: str) -> None:
    """Absent is said to be missing, not of a wrong type."""
    error = failure(without(name))
    assert (error.code, error.field) == (Code.MISSING_FIELD, name)


@pytest.mark.parametrize("second", ['"id"', '"\\u0069d"'], ids=["same spelling", "escaped"])
def test_an_id_given_twice_is_a_dead_letter(second: str) -> None:
    """Two readers could see two ids, however the name is spelt."""
    error = failure(f'{{"id": "e-1", "conversation_id": "c-1", {second}: "e-2"}}'.encode())
    assert (error.code, error.field) == (Code.DUPLICATE_KEY, "id")


def test_an_id_of_256_characters_is_accepted() -> None:
    """The bound itself is inside, counted in characters and not in bytes."""
    decoded = decode_event(input_record(event_document(id="ä" * 256)), MAX_BYTES)
    assert decoded.event.id == "ä" * 256


def test_a_value_over_the_bound_is_too_large_without_being_parsed() -> None:
    """The bound stands before the parser: even nonsense is only measured."""
    error = failure(b"{" * 101, max_bytes=100)
    assert error.code == Code.TOO_LARGE
    assert "101 bytes" in error.detail


def test_a_value_of_exactly_the_bound_is_read() -> None:
    """The bound itself is inside."""
    raw = json.dumps(event_document()).encode()
    assert decode_event(input_record(raw), len(raw)).fault is None


def test_a_crowd_of_containers_is_too_large() -> None:
    """What would take thirty times its size in memory is refused by its shape."""
    error = failure(b"[" + b"[]," * 150_000 + b"[]]")
    assert error.code == Code.TOO_LARGE


def test_details_never_repeat_what_the_record_says() -> None:
    """Dead letters are shown in tools and logs; the user's words must not be."""
    secret = "correct-horse"
    values: list[object] = [
        f'{{"{secret}"'.encode(),
        f'{{"id": "e-1", "x": {secret}}}'.encode(),
        event_document(id=secret + "\n"),
        event_document(id={secret: secret}),
        [secret],
    ]
    for value in values:
        error = failure(value)
        assert secret not in f"{error} {error.field} {error.detail}"
