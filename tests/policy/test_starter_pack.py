"""Promises of the policies that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.policy.model import Policy
from worker.policy.parse import load_policy
from worker.policy.passes import passes
from worker.policy.registry import PolicyRegistry

POLICIES = Path(__file__).parents[2] / "policies"
NAMES = (
    "childrens-education",
    "developer-tools",
    "financial-services",
    "general-community",
    "healthcare",
)


@pytest.fixture(params=NAMES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return load_policy(POLICIES / f"{request.param}.yaml")


def test_the_five_load_together_and_bind_their_topics() -> None:
    """The directory works as it is."""
    registry = PolicyRegistry(POLICIES)
    registry.load()

    registry.require()
    assert sorted(path.stem for path in POLICIES.glob("*.yaml")) == list(NAMES)
    assert len(registry.topics()) == 6


def test_a_file_is_named_after_its_policy(policy: Policy) -> None:
    """What a verdict names is found at once."""
    assert Path(policy.file).stem == policy.name


def test_each_says_who_owns_it_and_what_for(policy: Policy) -> None:
    """Owner and description are not placeholders."""
    assert "@" in policy.owner
    assert len(policy.description) > 20


def test_each_has_safe_and_unsafe_examples_for_the_real_checkpoint(policy: Policy) -> None:
    """Both outcomes are shown; the demonstration checkpoint has policies of its own words."""
    family = "nemotron-3.5-content-safety"
    expected = {each.expect for each in policy.examples if each.checkpoint == family}
    assert expected == {"safe", "unsafe"}


def test_together_they_show_every_kind_of_pass() -> None:
    """Stock, suppressed, two passes, and a taxonomy of one's own."""
    shapes = {
        name: tuple(
            (each.source, each.rubric.mode)
            for each in passes(load_policy(POLICIES / f"{name}.yaml"))
        )
        for name in NAMES
    }

    assert shapes == {
        "general-community": (("builtin", "builtin"),),
        "developer-tools": (("builtin", "taxonomy"),),
        "childrens-education": (("builtin", "builtin"), ("custom", "policy")),
        "financial-services": (("custom", "taxonomy"), ("floor", "builtin")),
        "healthcare": (("builtin", "taxonomy"), ("custom", "policy")),
    }


def test_together_they_show_every_choice() -> None:
    """THINK, failure policy and languages all occur."""
    pack = [load_policy(POLICIES / f"{name}.yaml") for name in NAMES]

    assert {each.think.when for each in pack} >= {"always", "unsafe", "uncertain"}
    assert {each.on_undecided for each in pack} == {"hold", "block", "pass"}
    assert all(each.actions.severity for each in pack)
    assert len({language for each in pack for language in each.languages}) == 12


def test_every_free_text_policy_allows_more_than_it_forbids() -> None:
    """Allowed lists do the work in a small model."""
    for name in NAMES:
        custom = load_policy(POLICIES / f"{name}.yaml").custom
        if custom is not None and custom.disallowed:
            assert len(custom.allowed) > len(custom.disallowed)
