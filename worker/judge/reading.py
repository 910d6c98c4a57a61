"""What is asked of the model about one context, and what is read from it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from worker.judge.base import CategoryScore, Rubric, Side


@dataclass(frozen=True)
class Ask:
    """One context to read. ``context`` is the judge's own prepared form of it, sized in tokens.

    ``response`` says whether a response is labelled too; ``threshold`` is the score (P(unsafe))
    from which a side counts as unsafe and is asked for its categories.
    """

    context: Any
    response: bool
    rubric: Rubric
    threshold: float = 0.5
    category_budget: int = 48


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What is read from one context (see ``base.Judgement``); ``tokens`` were decoded for it."""

    user: Side
    response: Side | None
    categories: tuple[CategoryScore, ...] = ()
    categories_complete: bool = True
    floor_score: float = 0.0
    tokens: int = 0


@dataclass(frozen=True)
class TraceAsk:
    """One reasoning trace to write behind ``context`` (its prompt asks for thinking)."""

    context: Any
    budget: int


@dataclass(frozen=True)
class Trace:
    """A written trace: its token ids and text, and whether it ended by itself."""

    ids: tuple[int, ...]
    text: str
    ended: str
