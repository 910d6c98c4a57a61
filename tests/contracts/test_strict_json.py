"""The reader bounds the shape of a document before it parses, and sees one meaning only."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.codes import DeadLetterCode as Code
from worker.contracts.limits import MAX_DEPTH
from worker.contracts.strict_json import OUT_OF_RANGE, TWICE, read_json
from worker.errors import UnreadableRecord

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=50,
)


def nested(depth: int, inside: bytes = b"") -> bytes:
    return b"[" * depth + inside + b"]" * depth


def code_of(data: bytes) -> str:
    with pytest.raises(UnreadableRecord) as raised:
        read_json(data)
    return raised.value.code


@given(json_values)
def test_valid_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    """Being strict must not change what a good document means."""
    document = read_json(json.dumps(value).encode())
    assert (document.root, document.flawed) == (value, False)


def test_nesting_is_accepted_up_to_the_bound_and_not_beyond() -> None:
    """The bound is exact, and holds where the count of brackets alone could not tell."""
    wide = b"[" + b"[]," * 100
    assert read_json(wide + nested(MAX_DEPTH - 1) + b"]").flawed is False
    assert code_of(wide + nested(MAX_DEPTH) + b"]") == Code.TOO_DEEP


@pytest.mark.parametrize("text", ["[" * 200, '\\"' + "{" * 200, '"[' * 80, "\\\\" * 9 + "[" * 99])
def test_brackets_inside_strings_are_no_nesting(text: str) -> None:
    """User text may be full of brackets, quotes and backslashes."""
    data = json.dumps({"text": text, "more": [text]}).encode()
    assert read_json(data).root["text"] == text


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"[" * 10_000_000, id="open for ever"),
        pytest.param(b'{"a":' * 2_000_000, id="objects for ever"),
        pytest.param(b'"' + b"\\" * 5_000_000 + b"[" * 5_000_000, id="a string that never ends"),
        pytest.param(b"[" + b"[]," * 3_000_000, id="a flat crowd"),
        pytest.param(b"[1" + b",1" * 5_000_000, id="a flat list without end"),
    ],
)
def test_ten_hostile_megabytes_cost_little_time(hostile: bytes) -> None:
    """Less than two seconds of CPU; on an idle machine each takes less than half a second."""
    started = time.process_time()
    code_of(hostile)
    assert time.process_time() - started < 2.0


def test_a_name_given_twice_is_marked_in_place() -> None:
    """The rest of the document stays readable."""
    document = read_json(b'{"a": {"b": 1, "c": 2, "b": 1}, "d": 3}')
    assert document.flawed
    assert document.root == {"a": {"b": TWICE, "c": 2}, "d": 3}


def test_a_number_out_of_range_is_marked_in_place() -> None:
    """Infinity by the back door, and integers too long to convert in linear time."""
    document = read_json(b'{"a": 1e999, "b": -1e999, "c": ' + b"9" * 5000 + b', "d": 1e308}')
    assert document.flawed
    assert document.root == {"a": OUT_OF_RANGE, "b": OUT_OF_RANGE, "c": OUT_OF_RANGE, "d": 1e308}


def test_a_flaw_of_one_document_does_not_mark_the_next() -> None:
    """The mark belongs to the document it was found in."""
    assert read_json(b'{"a": 1, "a": 2}').flawed
    assert not read_json(b'{"a": 1}').flawed
