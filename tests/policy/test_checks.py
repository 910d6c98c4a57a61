"""Promises of running a policy's examples."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.policies import make_policy
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, Undecided
from worker.policy.examples import CONCURRENCY, ExampleOutcome, check_examples
from worker.policy.model import Example, Policy


async def by_word(policy: Policy, example: Example) -> ExampleOutcome:
    """Says unsafe to texts with ``bad`` in them; ``lost`` cannot be judged."""
    if "lost" in example.text:
        raise Undecided(UndecidedReason.IMAGE_MISSING)
    if "bad" in example.text:
        return ExampleOutcome(outcome="unsafe", categories=("Malware", "Threat"))
    return ExampleOutcome(outcome="safe")


async def run(*examples: dict[str, Any], checkpoint: str | None = None) -> list[tuple[str, str]]:
    policy = make_policy(examples=list(examples))
    results = await check_examples(policy, by_word, checkpoint=checkpoint)
    assert [result.number for result in results] == list(range(1, len(examples) + 1))
    return [(result.status, result.problem) for result in results]


async def test_an_example_holds_when_outcome_and_categories_agree() -> None:
    """More categories than expected are fine, in any spelling."""
    assert (
        await run(
            {"text": "good", "expect": "safe"},
            {"text": "bad", "expect": "unsafe"},
            {"text": "bad", "expect": "unsafe", "categories": ["s17"]},
        )
        == [("held", "")] * 3
    )


async def test_a_different_outcome_fails_and_says_what_came() -> None:
    """An author sees expected and got."""
    assert await run({"text": "bad", "expect": "safe"}) == [
        ("failed", "expected safe, got unsafe (Malware, Threat)")
    ]


async def test_a_missing_category_fails() -> None:
    """Unsafe for the wrong reason does not hold."""
    example = {"text": "bad", "expect": "unsafe", "categories": ["Violence", "Threat"]}

    assert await run(example) == [("failed", "expected category Violence, got Malware, Threat")]


async def test_undecided_is_an_outcome_like_others() -> None:
    """It can be expected; where it is not, the reason is shown, and it is never safe."""
    assert await run(
        {"text": "lost", "expect": "undecided"}, {"text": "lost", "expect": "safe"}
    ) == [("held", ""), ("failed", "expected safe, got undecided (image_missing)")]


async def test_examples_of_another_checkpoint_are_skipped_aloud() -> None:
    """A skipped example is no held example."""
    examples = (
        {"text": "bad", "expect": "safe", "checkpoint": "large"},
        {"text": "good", "expect": "safe", "checkpoint": "tiny"},
        {"text": "good", "expect": "safe"},
    )

    tiny = await run(*examples, checkpoint="tiny")
    unknown = await run(*examples, checkpoint=None)

    assert [status for status, _ in tiny] == ["skipped", "held", "held"]
    assert tiny[0][1] == "holds for large, not for tiny"
    assert [status for status, _ in unknown] == ["skipped", "skipped", "held"]


async def test_a_judge_that_is_away_is_no_failed_example() -> None:
    """An outage blames no policy."""

    async def away(policy: Policy, example: Example) -> ExampleOutcome:
        raise DependencyUnavailable("judge")

    policy = make_policy(examples=[{"text": "a", "expect": "safe"}])

    with pytest.raises(DependencyUnavailable):
        await check_examples(policy, away, checkpoint=None)


async def test_examples_are_judged_side_by_side_within_a_bound() -> None:
    """The judge can batch them, and a large policy does not flood it."""
    running = 0
    most = 0

    async def slow(policy: Policy, example: Example) -> ExampleOutcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return ExampleOutcome(outcome="safe")

    examples = [{"text": f"{number}", "expect": "safe"} for number in range(100)]
    await check_examples(make_policy(examples=examples), slow, checkpoint=None)

    assert most == CONCURRENCY
