"""Promises of comparing two policies."""

from __future__ import annotations

from typing import Any

from tests.support.policies import make_policy
from worker.policy.diff import diff

TAXONOMY = [{"name": "A", "note": "x"}, {"name": "B"}]


def lines(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (change.kind, str(change)) for change in diff(make_policy(**before), make_policy(**after))
    ]


def test_equal_meaning_is_no_difference() -> None:
    """Spelled-out defaults and other spellings of a name do not show."""
    assert (
        lines(
            {"builtin": {"suppress": ["Malware", "s4"]}},
            {"builtin": {"suppress": ["Guns/Illegal Weapons", "malware"]}, "on_undecided": "hold"},
        )
        == []
    )


def test_changes_of_judging_come_before_paperwork() -> None:
    """A reviewer reads first what can change an outcome."""
    assert lines(
        {"version": 1, "think": {"when": "never"}},
        {"version": 2, "think": {"when": "unsafe"}, "thresholds": {"unsafe": 0.4}},
    ) == [
        ("judging", "think: + when unsafe, max_tokens 400, deadline_ms 5000"),
        ("judging", "threshold: 0.5 -> 0.4"),
        ("paperwork", "version: 1 -> 2"),
    ]


def test_lists_show_what_came_and_what_went() -> None:
    """Not two whole lists."""
    assert lines(
        {"custom": {"disallowed": ["a", "b"]}}, {"custom": {"disallowed": ["b", "c"]}}
    ) == [("judging", "custom.disallowed: - a"), ("judging", "custom.disallowed: + c")]


def test_a_new_order_shows_where_the_model_sees_it() -> None:
    """Free text is read in order."""
    assert lines(
        {"custom": {"disallowed": ["a", "b"]}}, {"custom": {"disallowed": ["b", "a"]}}
    ) == [("judging", "custom.disallowed (order): a, b -> b, a")]


def test_a_taxonomy_is_compared_by_category() -> None:
    """A changed note names its category."""
    assert lines(
        {"custom": {"taxonomy": TAXONOMY}},
        {"custom": {"taxonomy": [{"name": "A", "note": "y", "severity": "low"}, {"name": "B"}]}},
    ) == [
        ("judging", "custom.taxonomy.A.note: x -> y"),
        ("judging", "custom.taxonomy.A.severity: high -> low"),
    ]


def test_examples_are_paperwork() -> None:
    """They gate a policy and change no outcome."""
    assert lines({}, {"examples": [{"text": "hi", "expect": "safe"}]}) == [
        ("paperwork", "examples: + hi => safe")
    ]


def test_a_judging_difference_and_a_different_hash_are_the_same_thing() -> None:
    """``diff`` and ``sha256`` never disagree."""
    variants = [
        make_policy(),
        make_policy(version=2, owner="x"),
        make_policy(actions={"default": "flag"}),
        make_policy(custom={"taxonomy": TAXONOMY}),
        make_policy(custom={"taxonomy": TAXONOMY[::-1]}),
        make_policy(custom={"disallowed": ["a"]}),
    ]

    for one in variants:
        for two in variants:
            judging = any(change.kind == "judging" for change in diff(one, two))
            assert judging == (one.sha256 != two.sha256)
