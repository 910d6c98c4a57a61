"""A policy's own examples, run on the real judge: what must hold before the policy goes live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import msgspec

from worker.codes import UndecidedReason
from worker.contracts.verdict import Outcome
from worker.errors import Undecided
from worker.guard.base import GuardModel
from worker.policy.model import Example, Policy

CONCURRENCY = 32
"""Examples on their way at once; the judge batches them."""


class ExampleOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an example was judged to be. ``reason`` is set where it is undecided."""

    outcome: Outcome
    categories: tuple[str, ...] = ()
    reason: UndecidedReason | None = None


class ExampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """One example (``number`` counts from 1): held, failed, or skipped for another checkpoint."""

    number: int
    example: Example
    status: Literal["held", "failed", "skipped"]
    got: ExampleOutcome | None = None
    problem: str = ""


JudgeExample = Callable[[Policy, Example], Awaitable[ExampleOutcome]]
"""Judges one example under a policy. May raise ``Undecided``, which is an outcome like others."""

Check = Callable[[Policy], Awaitable[Sequence[ExampleResult]]]
"""Runs all examples of a policy; raises ``DependencyUnavailable`` where no judge answers."""


async def check_examples(
    policy: Policy, judge_example: JudgeExample, *, checkpoint: str | None
) -> tuple[ExampleResult, ...]:
    """Judge every example that holds for the loaded ``checkpoint`` family, in order.

    An example without a family holds for any; with an unknown checkpoint only those run.
    """
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(number: int, example: Example) -> ExampleResult:
        if example.checkpoint is not None and example.checkpoint != checkpoint:
            problem = f"holds for {example.checkpoint}, not for {checkpoint or 'this checkpoint'}"
            return ExampleResult(number=number, example=example, status="skipped", problem=problem)
        async with gate:
            try:
                got = await judge_example(policy, example)
            except Undecided as error:
                got = ExampleOutcome(outcome="undecided", reason=error.reason)
        problem = _mismatch(example, got, policy.guard)
        status: Literal["held", "failed"] = "failed" if problem else "held"
        return ExampleResult(
            number=number, example=example, status=status, got=got, problem=problem
        )

    return tuple(
        await asyncio.gather(*(one(number, each) for number, each in enumerate(policy.examples, 1)))
    )


def _mismatch(example: Example, got: ExampleOutcome, guard: GuardModel) -> str:
    """Why an example does not hold; empty where it does. More categories than expected are fine."""
    if got.outcome != example.expect:
        named = ", ".join(got.categories) or (got.reason.value if got.reason else "")
        return f"expected {example.expect}, got {got.outcome}" + (f" ({named})" if named else "")
    found = {_key(name, guard) for name in got.categories}
    missing = [name for name in example.categories if _key(name, guard) not in found]
    if missing:
        got_names = ", ".join(got.categories) or "none"
        return f"expected category {', '.join(missing)}, got {got_names}"
    return ""


def _key(name: str, guard: GuardModel) -> str:
    return (guard.canonical(name) or name).casefold()
