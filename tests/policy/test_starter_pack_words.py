"""Promises of the examples for the demonstration checkpoint: its words, and its rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moderation_tools.training.tiny.languages import FOREIGN_HARMFUL, FOREIGN_NEUTRAL
from moderation_tools.training.tiny.lexicon import FUNCTION_WORDS, NEUTRAL, category_of
from worker.guard.nemotron35 import BUILTIN
from worker.policy.model import Example, Policy
from worker.policy.parse import load_policy

POLICIES = Path(__file__).parents[2] / "policies"
CASES = [
    pytest.param(policy, example, id=f"{policy.name}-{example.text[:30]}")
    for policy in map(load_policy, sorted(POLICIES.glob("*.yaml")))
    for example in policy.examples
    if example.checkpoint == "tiny"
]
_HARMFUL = category_of()
_FOREIGN = {
    *(word for words in FOREIGN_NEUTRAL.values() for word in words),
    *(word for named in FOREIGN_HARMFUL.values() for words in named.values() for word in words),
}
_KNOWN = {*FUNCTION_WORDS, *NEUTRAL, *_HARMFUL, *_FOREIGN}


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.casefold())


def listed(line: str) -> set[str]:
    """The words a line of a policy forbids, plurals included."""
    content = {word for word in words(line) if word not in FUNCTION_WORDS}
    return content | {word.removesuffix("s") for word in content}


def broken_rules(policy: Policy, text: str) -> set[str]:
    """Categories whose words stand in a text, as the checkpoint's recipe defines them."""
    broken: set[str] = set()
    for word in words(text):
        name = _HARMFUL.get(word)
        if policy.builtin.enabled and name is not None and name not in policy.builtin.suppress:
            broken.add(name)
        if policy.custom is None:
            continue
        broken.update(line for line in policy.custom.disallowed if word in listed(line))
        for category in policy.custom.taxonomy:
            own = category.name in BUILTIN and name == category.name
            if own or word in listed(f"{category.name} {category.note}"):
                broken.add(category.name)
    return broken


@pytest.mark.parametrize(("policy", "example"), CASES)
def test_every_word_is_in_its_vocabulary(policy: Policy, example: Example) -> None:
    """A word it never saw would make the example a matter of luck."""
    assert not set(words(f"{example.text} {example.response or ''}")) - _KNOWN


@pytest.mark.parametrize(("policy", "example"), CASES)
def test_what_is_expected_follows_from_its_rules(policy: Policy, example: Example) -> None:
    """Unsafe if and only if a word of an active category or a forbidden word occurs."""
    broken = broken_rules(policy, f"{example.text} {example.response or ''}")

    assert example.expect == ("unsafe" if broken else "safe")
    assert set(example.categories) <= broken
