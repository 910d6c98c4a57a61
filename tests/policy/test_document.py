"""Promises of reading YAML: safe, bounded, and with lines."""

from __future__ import annotations

import pytest

from worker.document import MAX_BYTES
from worker.errors import PolicyError
from worker.policy.parse import parse_policy

GOOD = "name: a\nversion: 1\nowner: me\ntopics: [t]\n"


def problem_of(text: str | bytes) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, file="a.yaml")
    return caught.value.problems[0]


def test_a_repeated_key_is_refused_at_its_second_line() -> None:
    """YAML keeps the last one silently; an author meant one of the two."""
    problem = problem_of(GOOD + "version: 2\n")

    assert (problem.line, problem.field) == (5, "version")
    assert "line 2" in problem.fix


def test_aliases_that_multiply_are_refused() -> None:
    """Nested aliases cannot make a small file large."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)
    ]

    assert "more than 20000 values" in problem_of("\n".join(lines)).problem


def test_an_alias_may_repeat_a_value() -> None:
    """Honest use of anchors works."""
    text = "name: a\nversion: 1\nowner: &me team\ntopics: [t]\ndescription: *me\n"

    assert parse_policy(text).description == "team"


def test_a_value_that_contains_itself_is_refused() -> None:
    """A cycle ends in an error, not in a loop."""
    assert problem_of("name: &a [*a]\n").problem


@pytest.mark.parametrize("text", ["[" * 3_000, "{a: " * 3_000, "- " * 3_000 + "x"])
def test_deep_nesting_is_refused(text: str) -> None:
    """Nesting is bounded before anything recursive sees it."""
    assert problem_of(text).problem


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!binary aGk=",
        "!!set {a, b}",
        "!own x",
    ],
)
def test_only_plain_values_are_read(value: str) -> None:
    """No tag constructs anything."""
    assert "is not allowed" in problem_of(GOOD + f"description: {value}\n").problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "just text",
        "- a\n- b\n",
        "a: b: c",
        "a: [",
        "--- a\n--- b\n",
        "\x00",
        "*x",
    ],
)
def test_what_is_no_policy_document_is_refused(text: str) -> None:
    """Empty files, lists, broken YAML and several documents are errors with a fix."""
    assert problem_of(text).fix


def test_a_merge_key_is_refused_by_name() -> None:
    """The reader does not merge, and says so."""
    assert "merge" in problem_of(GOOD + "<<: {}\n").problem


def test_bytes_that_are_not_utf8_are_refused_with_their_line() -> None:
    """Latin-1 files are common; the error says where."""
    problem = problem_of(GOOD.encode() + b"description: caf\xe9\n")

    assert (problem.problem, problem.line) == ("not UTF-8", 5)


def test_a_byte_order_mark_is_no_problem() -> None:
    """Some editors write one."""
    assert parse_policy(b"\xef\xbb\xbf" + GOOD.encode()).name == "a"


def test_a_file_over_the_limit_is_refused() -> None:
    """Policies are for people; half a megabyte is a mistake."""
    assert "larger" in problem_of(GOOD + "#" * MAX_BYTES).problem
