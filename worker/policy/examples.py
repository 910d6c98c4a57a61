"""A policy's own examples, run on the real judge: what must hold before the policy goes live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import msgspec

from worker.codes import SkippedReasoning, UndecidedReason
from worker.contracts.verdict import Outcome
from worker.errors import Undecided
from worker.guard.taxonomy import canonical_category
from worker.policy.model import Example, Policy

CONCURRENCY = 32
"""Examples on their way at once; the judge batches them."""
_SHED = frozenset({SkippedReasoning.DEADLINE, SkippedReasoning.OVERLOAD, SkippedReasoning.FAILED})
"""Why a trace may be missing that is there the next time."""


class ExampleOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an example was judged to be, by which score (P(unsafe) of the worse side, if any).

    ``reason`` is set where it is undecided, ``shed`` where a trace that was called for is missing.
    """

    outcome: Outcome
    categories: tuple[str, ...] = ()
    reason: UndecidedReason | None = None
    score: float | None = None
    shed: str | None = None


class ExampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """One example (``number`` counts from 1) and what came of it.

    It held, failed, or was skipped because it holds for another checkpoint. ``passing`` says that
    another try may end otherwise: it was undecided, or its trace was shed.
    """

    number: int
    example: Example
    status: Literal["held", "failed", "skipped"]
    passing: bool = False
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
    loaded = family(checkpoint) if checkpoint else None

    async def one(number: int, example: Example) -> ExampleResult:
        if example.checkpoint is not None and family(example.checkpoint) != loaded:
            problem = f"holds for {example.checkpoint}, not for {checkpoint or 'this checkpoint'}"
            return ExampleResult(number=number, example=example, status="skipped", problem=problem)
        async with gate:
            try:
                got = await judge_example(policy, example)
            except Undecided as error:
                got = ExampleOutcome(outcome="undecided", reason=error.reason)
        problem = _mismatch(example, got, policy.thresholds.unsafe)
        status: Literal["held", "failed"] = "failed" if problem else "held"
        passing = bool(problem) and (got.outcome == "undecided" or got.shed in _SHED)
        return ExampleResult(
            number=number,
            example=example,
            status=status,
            passing=passing,
            got=got,
            problem=problem,
        )

    return tuple(
        await asyncio.gather(*(one(number, each) for number, each in enumerate(policy.examples, 1)))
    )


def family(name: str) -> str:
    """A checkpoint's name as it is compared: its last part, without case and signs."""
    last = name.rstrip("/").rpartition("/")[2]
    return "".join(each for each in last.casefold() if each.isalnum())


def _mismatch(example: Example, got: ExampleOutcome, threshold: float) -> str:
    """Why an example does not hold; empty where it does. More categories than expected are fine."""
    if got.outcome != example.expect:
        facts = [", ".join(got.categories) or (got.reason.value if got.reason else "")]
        if got.score is not None:
            facts.append(f"score {got.score:.3f}, threshold {threshold:g}")
        if got.shed:
            facts.append(f"trace: {got.shed}")
        known = "; ".join(fact for fact in facts if fact)
        return f"expected {example.expect}, got {got.outcome}" + (f" ({known})" if known else "")
    found = {_key(name) for name in got.categories}
    missing = [name for name in example.categories if _key(name) not in found]
    if missing:
        got_names = ", ".join(got.categories) or "none"
        return f"expected category {', '.join(missing)}, got {got_names}"
    return ""


def _key(name: str) -> str:
    return (canonical_category(name) or name).casefold()
