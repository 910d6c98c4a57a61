"""Promises of the registry: what is live, what stays live, and what is said about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.registries import live, put, version_of
from worker.errors import ConfigurationError, PolicyError
from worker.policy.registry import PolicyRegistry


async def test_a_topic_has_the_policy_that_binds_it(tmp_path: Path) -> None:
    """Topic to policy, and nothing for other topics."""
    put(tmp_path, topics=["t", "u"])
    put(tmp_path, "b.yaml", name="b", topics=["v"])
    (tmp_path / "notes.txt").write_text("not a policy")

    registry = await live(tmp_path)

    named = {topic: registry.snapshot.by_topic[topic].name for topic in registry.topics()}
    assert named == {"t": "a", "u": "a", "v": "b"}
    assert registry.select("w") is None
    assert (registry.problems, registry.unready_topics()) == ((), ())


async def test_nothing_is_live_before_it_is_activated(tmp_path: Path) -> None:
    """Topics are known for subscribing, and unready until the examples ran."""
    put(tmp_path)
    registry = PolicyRegistry(tmp_path)
    registry.load()

    assert registry.topics() == registry.unready_topics() == ("t",)
    assert registry.select("t") is None


def test_a_bad_file_is_refused_at_start(tmp_path: Path) -> None:
    """A worker does not start on half of its policies."""
    put(tmp_path)
    put(tmp_path, "b.yaml", name="b", version=0)
    put(tmp_path, "c.yaml", name="c", owner=None)

    with pytest.raises(PolicyError) as caught:
        PolicyRegistry(tmp_path).load()

    assert len(caught.value.problems) == 2


def test_two_policies_on_one_topic_are_refused_and_both_named(tmp_path: Path) -> None:
    """Nobody has to guess which of the two judged an event."""
    put(tmp_path)
    put(tmp_path, "b.yaml", name="b")

    with pytest.raises(PolicyError, match=r"b\.yaml.*`t` is bound by .*a\.yaml"):
        PolicyRegistry(tmp_path).load()


def test_two_policies_of_one_name_are_refused(tmp_path: Path) -> None:
    """Names stand in verdicts and metrics."""
    put(tmp_path)
    put(tmp_path, "b.yaml", topics=["u"])

    with pytest.raises(PolicyError, match=r"`a` is the name of .*a\.yaml too"):
        PolicyRegistry(tmp_path).load()


def test_an_input_topic_without_a_policy_is_refused(tmp_path: Path) -> None:
    """The error names the topic and where to add it."""
    put(tmp_path)
    registry = PolicyRegistry(tmp_path)
    registry.load()

    registry.require(["t"])
    with pytest.raises(ConfigurationError, match="no policy for input topic u"):
        registry.require(["t", "u"])


def test_a_policy_on_an_output_topic_is_refused(tmp_path: Path) -> None:
    """Verdicts must not be judged again."""
    put(tmp_path)
    registry = PolicyRegistry(tmp_path)
    registry.load()

    with pytest.raises(ConfigurationError, match="cannot be an input"):
        registry.require(outputs=["t"])


def test_a_directory_that_binds_nothing_is_refused(tmp_path: Path) -> None:
    """A worker without topics would look healthy and do nothing."""
    registry = PolicyRegistry(tmp_path)
    registry.load()

    with pytest.raises(ConfigurationError, match="bound to a topic"):
        registry.require()


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The error names the setting."""
    with pytest.raises(PolicyError, match=r"policies\.directory"):
        PolicyRegistry(tmp_path / "none").load()


async def test_a_snapshot_taken_earlier_does_not_change(tmp_path: Path) -> None:
    """Work in flight keeps the policy it began with."""
    put(tmp_path)
    registry = await live(tmp_path)
    before = registry.snapshot
    put(tmp_path, version=2)
    await registry.reload()

    assert before.by_topic["t"].version == 1
    with pytest.raises(TypeError):
        before.by_topic["t"] = before.by_topic["t"]  # type: ignore[index]


async def test_a_candidate_is_no_live_policy(tmp_path: Path) -> None:
    """The next version lies beside the present one and binds nothing."""
    put(tmp_path, candidate={"version": 2, "file": "a-v2.yaml"})
    put(tmp_path, "a-v2.yaml", version=2)

    registry = await live(tmp_path)

    assert version_of(registry, "t") == 1
    assert registry.snapshot.candidates["a"].version == 2


@pytest.mark.parametrize(
    ("candidate", "fields", "problem"),
    [
        ({"version": 2, "file": "none.yaml"}, {}, "not a valid policy of this directory"),
        ({"version": 1, "file": "a.yaml"}, {}, "its own candidate"),
        ({"version": 3, "file": "b.yaml"}, {}, "is version 2, not 3"),
        ({"version": 2, "file": "b.yaml"}, {"name": "b"}, "is a version of `b`"),
    ],
)
def test_a_candidate_that_does_not_fit_is_refused(
    tmp_path: Path, candidate: dict[str, Any], fields: dict[str, Any], problem: str
) -> None:
    """A shadow that compares the wrong thing would mislead."""
    put(tmp_path, candidate=candidate)
    put(tmp_path, "b.yaml", version=2, **fields)

    with pytest.raises(PolicyError, match=problem):
        PolicyRegistry(tmp_path).load()
