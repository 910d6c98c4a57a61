"""Promises of the content hash: equal hashes judge alike, different judging differs."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.policies import make_policy, policy_values
from worker.policy.dump import dump_policy
from worker.policy.model import Policy
from worker.policy.parse import parse_policy

FULL: dict[str, Any] = policy_values(
    builtin={
        "suppress": ["Violence", "Profanity", "Malware"],
        "severity": {"Threat": "critical", "Other": "low", "Sexual": "medium"},
    },
    custom={"disallowed": ["one", "two"], "allowed": ["three", "four"], "severity": "medium"},
    think={"when": "uncertain", "band": [0.3, 0.6], "max_tokens": 200, "deadline_ms": 900},
    thresholds={"unsafe": 0.4},
    actions={"default": "flag", "severity": {"low": "allow", "critical": "block"}},
    on_undecided="block",
    languages=["en", "de"],
    examples=[{"text": "hi", "expect": "safe", "checkpoint": "tiny"}],
)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same mappings with their keys in another order."""
    if not isinstance(value, dict):
        return [shuffled(each, rng) for each in value] if isinstance(value, list) else value
    names = list(value)
    rng.shuffle(names)
    return {name: shuffled(value[name], rng) for name in names}


@given(st.randoms(use_true_random=False), st.booleans(), st.integers(0, 30))
def test_key_order_layout_and_comments_do_not_matter(
    rng: random.Random, flow: bool, comments: int
) -> None:
    """Reformatting a policy is no change."""
    text = yaml.safe_dump(shuffled(FULL, rng), sort_keys=False, default_flow_style=flow, width=4000)
    lines = text.split("\n")
    for number in range(comments):
        lines.insert(0 if flow else rng.randint(0, len(lines)), f"# note {number}")

    policy = parse_policy("\n".join(lines))

    assert policy.sha256 == parse_policy(yaml.safe_dump(FULL)).sha256


@given(st.permutations(["Violence", "Profanity", "Malware"]))
def test_the_order_of_suppressed_categories_does_not_matter(names: list[str]) -> None:
    """Suppression is a set."""
    assert make_policy(builtin={"suppress": names}).sha256 == (
        make_policy(builtin={"suppress": ["Malware", "Profanity", "Violence"]}).sha256
    )


@pytest.mark.parametrize(
    "spelled",
    [
        {"builtin": {"enabled": True, "suppress": [], "severity": {}}},
        {"builtin": {"severity": {"Malware": "high"}}},
        {"think": {"when": "never", "max_tokens": 99}},
        {"thresholds": {"unsafe": 0.5}},
        {"actions": {"default": "hold", "severity": {"low": "hold"}}},
        {"on_undecided": "hold"},
        {"examples": [{"text": "a", "expect": "safe"}]},
        {"languages": ["en"]},
        {"owner": "someone else"},
        {"version": 9},
        {"topics": ["another"]},
        {"description": "Said in another way."},
    ],
)
def test_what_neither_reaches_the_model_nor_decides_is_not_hashed(spelled: dict[str, Any]) -> None:
    """Defaults spelled out, paperwork and examples change nothing that was judged."""
    assert make_policy(**spelled).sha256 == make_policy().sha256


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "another"},
        {"builtin": {"suppress": ["Malware"]}},
        {"builtin": {"severity": {"Malware": "low"}}},
        {"custom": {"disallowed": ["a"]}},
        {"think": {"when": "unsafe"}},
        {"think": {"when": "uncertain"}},
        {"think": {"when": "uncertain", "band": [0.1, 0.2]}},
        {"think": {"when": "unsafe", "max_tokens": 99}},
        {"thresholds": {"unsafe": 0.51}},
        {"actions": {"default": "flag"}},
        {"actions": {"severity": {"low": "flag"}}},
        {"on_undecided": "pass"},
    ],
)
def test_what_decides_is_hashed(changed: dict[str, Any]) -> None:
    """No change of judging hides behind an equal hash."""
    hashes = {make_policy().sha256, make_policy(**changed).sha256}

    assert len(hashes) == 2


def test_list_order_matters_where_the_model_reads_it() -> None:
    """Free text and taxonomy are rendered in order."""
    one = make_policy(custom={"disallowed": ["a", "b"]})
    two = make_policy(custom={"disallowed": ["b", "a"]})

    assert one.sha256 != two.sha256


def test_a_rendered_description_is_hashed() -> None:
    """Free text shows the description to the model."""
    custom = {"disallowed": ["a"]}
    one = make_policy(custom=custom, description="one")
    two = make_policy(custom=custom, description="two")

    assert one.sha256 != two.sha256


def test_the_hash_is_the_same_tomorrow() -> None:
    """Verdicts are compared over years: the canonical form is pinned."""
    pinned = "e18b3d803c4f"

    assert parse_policy(yaml.safe_dump(FULL)).sha256.startswith(pinned)


_LINES = st.lists(
    st.text(alphabet="abcdefg hij", min_size=3, max_size=12).filter(lambda line: line.strip()),
    min_size=1,
    max_size=4,
    unique_by=lambda line: " ".join(line.split()),
)


@given(
    disallowed=_LINES,
    level=st.sampled_from(["low", "medium", "high", "critical"]),
    when=st.sampled_from(["never", "always", "unsafe", "uncertain"]),
    unsafe=st.floats(0.01, 0.99),
    undecided=st.sampled_from(["hold", "block", "pass"]),
)
def test_a_dumped_policy_reads_back_equal(
    disallowed: list[str], level: str, when: str, unsafe: float, undecided: str
) -> None:
    """YAML that the worker writes means what the policy meant."""
    policy = make_policy(
        custom={"disallowed": disallowed, "severity": level},
        think={"when": when},
        thresholds={"unsafe": unsafe},
        on_undecided=undecided,
    )

    assert parse_policy(dump_policy(policy), file=policy.file) == policy


def test_every_section_survives_a_dump() -> None:
    """Nothing but defaults is left out."""
    policy = parse_policy(yaml.safe_dump(FULL))
    again: Policy = parse_policy(dump_policy(policy))

    assert msgspec.to_builtins(again) == msgspec.to_builtins(policy)
