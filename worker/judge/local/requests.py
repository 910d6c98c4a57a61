"""What is asked of the model about one context, and what it answers. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from worker.judgement import CategoryScore, Rubric, Side, ThinkPlan

NEVER = ThinkPlan()


@dataclass(frozen=True)
class ScoreRequest:
    """One context to score. ``context`` is the judge's own prepared form of it, sized in tokens.

    ``response`` says whether a response is labelled too; ``threshold`` is the score (P(unsafe))
    from which a side counts as unsafe and is asked for its categories. ``known`` is what the device
    has computed of the context before; where ``think`` wants a trace, the result has it too.
    """

    context: Any
    response: bool
    rubric: Rubric
    threshold: float = 0.5
    category_budget: int = 48
    known: Any = None
    think: ThinkPlan = NEVER


class ScoreResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of one context (see ``base.Judgement``); ``tokens`` were decoded for it.

    ``known`` is the device's own: what a trace of the same event may go on from.
    """

    user: Side
    response: Side | None
    categories: tuple[CategoryScore, ...] = ()
    categories_complete: bool = True
    floor_score: float = 0.0
    floor_asked: bool = True
    tokens: int = 0
    known: Any = None


@dataclass(frozen=True)
class ReasoningRequest:
    """One reasoning trace to write behind ``context`` (its prompt asks for thinking).

    ``known`` is what the device computed for the same event's verdict.
    """

    context: Any
    budget: int
    known: Any = None


@dataclass(frozen=True)
class ReasoningResult:
    """A written trace: its token ids and text, how it ended, and what the device computed of it."""

    ids: tuple[int, ...]
    text: str
    ended: str
    known: Any = None
