"""One reader for settings and policies: lines, carets, hints by cause, and no secrets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.document import MAX_BYTES, read_document

SECRET = "hunter2-is-a-secret"


@pytest.mark.parametrize(
    ("text", "line", "problem", "fix"),
    [
        ("a: 1\n\tb: 2\n", 2, "a tab", "Indent with spaces"),
        ("a:\n  b: 1\n   c: 2\n", 3, "indented too far", "line the field up"),
        ("a:\n  - b\n c: 1\n", 3, "the indentation", "Line it up"),
        ("a: 1\nb: 'open\nc: 2\n", 2, "a quote is opened", "Close the quote of line 2"),
        ('a: 1\nb: "open\n', 2, "a quote is opened", "Close the quote of line 2"),
        ("a: 1\n---\nb: 2\n", 2, "a second document", "remove `---`"),
        ("a: [1, 2\nb: 3\n", 1, "a bracket is opened", "with `]`"),
        ("a: {b: 1\n", 1, "a bracket is opened", "with `}`"),
        ("a: *star\n", 1, "mean aliases", "in quotes"),
        ("a: @home\n", 1, "cannot begin with `@`", "in quotes"),
        ("a: see: this\n", 1, "a second `: `", "in quotes"),
        ('a: "C:\\data"\n', 1, "a backslash", "single quotes"),
        ("a: 1\nb\n", 2, "without a colon", "name: value"),
        ("a: 1\na: 2\n", 2, "given twice", "line 1"),
        ("a: !tag x\n", 1, "YAML tag", "lists and mappings"),
        ("- a\n", 1, "not a mapping", "name: value"),
        ("a: \x07\n", 1, "a character", "Remove it"),
        ('a: "\\ud83d"\n', 1, "half a character", "both escapes"),
    ],
)
@pytest.mark.parametrize("secret", [False, True])
def test_a_fault_is_told_by_its_cause_with_line_and_fix(
    text: str, line: int, problem: str, fix: str, secret: bool
) -> None:
    """A parser's own words help those who wrote the parser."""
    (fault, *_) = read_document(text, secret=secret).faults
    assert fault.line == line
    assert problem in fault.problem
    assert fix in fault.fix


def test_an_excerpt_shows_the_line_and_points_at_the_fault() -> None:
    """What is wrong is seen without opening the file."""
    (fault,) = read_document("name: a\nowner: see: this\n").faults
    assert fault.excerpt == "    2 | owner: see: this\n                  ^"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.integers(0, 8))
def test_no_text_raises_and_no_secret_is_shown(noise: str, at: int) -> None:
    """Whatever stands in a settings file, values stay in it."""
    lines = ["kafka:", "  security:", f"    password: {SECRET}", noise]
    lines.insert(at % len(lines), f"x: {noise}")
    for fault in read_document("\n".join(lines), secret=True).faults:
        assert SECRET not in "".join(map(str, fault))


@pytest.mark.parametrize(
    "row",
    [
        f"password: [{SECRET}",
        f"password: '{SECRET}",
        f"password: *{SECRET}",
        f"- {SECRET}: [",
        f"{SECRET} @: [",
        f"password: {{a: {SECRET}: b}}",
    ],
)
def test_an_excerpt_of_settings_shows_names_alone(row: str) -> None:
    """A password may stand on the very line that is wrong."""
    faults = read_document(f"kafka: 1\n{row}\n", secret=True).faults
    assert faults
    assert all(SECRET not in fault.problem + fault.fix + fault.excerpt for fault in faults)


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=10), max_size=5))
def test_json_is_read_as_json_reads_it(values: dict[str, str]) -> None:
    """Policies are written by programs too: an emoji comes as two escapes, and is one character."""
    text = json.dumps(values)
    expected = json.loads(text)
    document = read_document(text)
    if not document.faults:
        assert document.values == expected
    else:
        assert all("half a character" in each.problem for each in document.faults)


def test_an_emoji_of_json_is_one_character() -> None:
    """Two halves passed every check, and ended the worker when the policy was hashed."""
    document = read_document(json.dumps({"name": "a \U0001f600 b"}))
    assert document.faults == []
    assert document.values == {"name": "a \U0001f600 b"}


def test_size_is_bounded() -> None:
    """Half a megabyte of settings is a mistake."""
    (fault,) = read_document("#" * (MAX_BYTES + 1)).faults
    assert "larger" in fault.problem
