"""What is asked of a judge and what it answers. Values alone: no model, no policy, no torch."""

from __future__ import annotations

from typing import Literal

import msgspec

from worker.contracts.verdict import ContextUse, Label
from worker.images import JudgeImage

RubricMode = Literal["builtin", "taxonomy", "policy"]
"""Stock taxonomy, replaced taxonomy (``custom_taxonomy``), free policy (``custom_policy``)."""


class Rubric(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass judges against: the text in front of the model and the names it may answer.

    ``text`` is None for the stock taxonomy. ``categories`` are the legal category names, without
    the suppressed ones; in free-policy mode the policy's phrases. ``sha256`` is of mode and text.
    """

    mode: RubricMode
    text: str | None
    categories: tuple[str, ...]
    sha256: str


class ThinkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """When this pass thinks: ``threshold`` and ``band`` are scores, P(unsafe) from 0 to 1."""

    when: Literal["never", "always", "unsafe", "uncertain"] = "never"
    threshold: float = 0.5
    band: tuple[float, float] = (0.35, 0.65)
    max_tokens: int = 400
    deadline_s: float = 5.0


class JudgeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over one event: at most one image, one rubric, one context.

    ``cache`` says whether an answer to an equal request may stand in for a new one.
    """

    user: str
    response: str | None
    earlier: tuple[tuple[str, str], ...] = ()
    image: JudgeImage | None = None
    rubric: Rubric
    adapter: str | None = None
    think: ThinkPlan = ThinkPlan()
    cache: bool = True


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side as the model would label it greedily; ``score`` is P(unsafe), 0 to 1."""

    label: Label
    score: float


class CategoryScore(msgspec.Struct, frozen=True, kw_only=True):
    """A category the model named; ``score`` is the probability of its name, where it is known."""

    name: str
    score: float | None = None


class Thought(msgspec.Struct, frozen=True, kw_only=True):
    """A finished or failed THINK pass. ``skipped`` is a SkippedReasoning code, or None.

    ``user``, ``response`` and what follows are what the trace concluded, as in ``Judgement``; they
    are None or empty where it concluded nothing.
    """

    trace: str
    user: Side | None = None
    response: Side | None = None
    categories: tuple[CategoryScore, ...] = ()
    categories_complete: bool = True
    floor_score: float = 0.0
    skipped: str | None = None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The judge's answer to one pass; ``thought`` stands beside the no-think answer, never over it.

    ``floor_score`` is P(unsafe) times the probability of the floor category's full name, for a safe
    side too; ``floor_asked`` is False where it could not be found out, and the score is then only
    what is known. ``categories_complete`` is False where the category line was cut off by its
    budget. Times are milliseconds; tokens count the whole context and everything decoded.
    ``cached`` marks the answer to an earlier equal request: no time was spent and no token was read
    for this one.
    """

    user: Side
    response: Side | None
    categories: tuple[CategoryScore, ...] = ()
    categories_complete: bool = True
    floor_score: float = 0.0
    floor_asked: bool = True
    thought: Thought | None = None
    neutralised: tuple[str, ...] = ()
    context: ContextUse = ContextUse()
    input_tokens: int = 0
    output_tokens: int = 0
    queue_ms: float = 0.0
    judge_ms: float = 0.0
    cached: bool = False
