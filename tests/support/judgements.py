"""Short ways to say what a judge answered, for tests of what follows from it."""

from __future__ import annotations

from worker.contracts.verdict import ContextUse
from worker.judgement import CategoryScore, Judgement, Side, Thought
from worker.policy.model import Policy


def side(score: float) -> Side:
    return Side(label="unsafe" if score >= 0.5 else "safe", score=score)


def judgement(
    user: float = 0.01,
    *categories: str,
    response: float | None = None,
    floor: float = 0.0,
    complete: bool = True,
    thought: Thought | None = None,
    cached: bool = False,
    context: ContextUse | None = None,
    neutralised: tuple[str, ...] = (),
) -> Judgement:
    """A judgement by scores (P(unsafe)) and named categories."""
    return Judgement(
        user=side(user),
        response=None if response is None else side(response),
        categories=tuple(CategoryScore(name=name, score=0.9) for name in categories),
        categories_complete=complete,
        floor_score=floor,
        thought=thought,
        cached=cached,
        context=context or ContextUse(),
        neutralised=neutralised,
    )


def thought(
    user: float | None, *categories: str, floor: float = 0.0, skipped: str | None = None
) -> Thought:
    return Thought(
        trace="One. Two. Three. Four.",
        user=None if user is None else side(user),
        categories=tuple(CategoryScore(name=name) for name in categories),
        floor_score=floor,
        skipped=skipped,
    )


def policy(**fields: object) -> Policy:
    """A policy with the given fields over plain defaults."""
    base: dict[str, object] = {
        "name": "test",
        "version": 1,
        "owner": "owner@example.com",
        "topics": ("input",),
        "sha256": "0" * 64,
    }
    return Policy(**{**base, **fields})  # type: ignore[arg-type]
