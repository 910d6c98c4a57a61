"""What came back for one event: one result per pass, and the per-pass reading of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from worker.codes import SkippedReasoning, UndecidedReason
from worker.guard.base import GuardModel
from worker.judgement import CategoryScore, Judgement, Side, Thought
from worker.policy.floor import FLOOR_THRESHOLD
from worker.policy.model import Policy

PassSource = Literal["builtin", "custom"]


class PassResult(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the event: a judgement, or the reason why there is none.

    ``image`` is the index of the image it saw (None: no image).
    """

    source: PassSource
    image: int | None = None
    judgement: Judgement | None = None
    fault: UndecidedReason | None = None
    detail: str = ""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One judgement read under a policy: labels after threshold, THINK, suppression and floor."""

    source: PassSource
    image: int | None
    user: Side
    response: Side | None
    categories: tuple[CategoryScore, ...]
    suppressed: tuple[str, ...]
    floor: bool
    skipped: str | None
    floor_asked: bool = True

    @property
    def unsafe(self) -> bool:
        return self.user.label == "unsafe" or (
            self.response is not None and self.response.label == "unsafe"
        )


def read(result: PassResult, policy: Policy) -> Reading:
    """Read one judged pass. ``result.judgement`` must be set.

    Order: the threshold decides each side, THINK refines it, suppression clears it, and the floor,
    which nothing above may lower, has the last word.
    """
    judgement = result.judgement
    assert judgement is not None
    threshold = policy.thresholds.unsafe
    user = _at(judgement.user, threshold)
    response = _at(judgement.response, threshold) if judgement.response else None
    categories, complete = judgement.categories, judgement.categories_complete
    floor_score = judgement.floor_score
    skipped = None
    if judgement.thought is not None:
        thought = _thresholded(judgement.thought, threshold)
        user, response, categories, skipped = _refine(
            thought, policy.think.when, user, response, categories
        )
        if skipped is None:
            complete = complete and thought.categories_complete
            floor_score = max(floor_score, thought.floor_score)
    floor = floor_score >= FLOOR_THRESHOLD or any(
        policy.guard.is_floor(each.name) for each in (*judgement.categories, *categories)
    )
    kept, suppressed = _suppress(result.source, policy, categories) if categories else ((), ())
    reading = Reading(
        source=result.source,
        image=result.image,
        user=user,
        response=response,
        categories=kept,
        suppressed=suppressed,
        floor=floor,
        floor_asked=judgement.floor_asked,
        skipped=skipped,
    )
    if floor:
        return _raise_to_floor(reading, judgement, floor_score, policy.guard)
    if reading.unsafe and suppressed and not kept and complete:
        if policy.think.when == "unsafe":
            # The score has decided, by names of its own: what a trace says instead clears nothing.
            own = _suppress(result.source, policy, judgement.categories)[0]
            if own or not judgement.categories:
                return msgspec.structs.replace(reading, categories=own)
        return _cleared(reading)
    return reading


def _at(side: Side, threshold: float) -> Side:
    return Side(label="unsafe" if side.score >= threshold else "safe", score=side.score)


def _thresholded(thought: Thought, threshold: float) -> Thought:
    """A trace's labels by the policy's threshold, as those of the score in front of it."""
    return msgspec.structs.replace(
        thought,
        user=_at(thought.user, threshold) if thought.user else None,
        response=_at(thought.response, threshold) if thought.response else None,
    )


def _refine(
    thought: Thought,
    when: str,
    user: Side,
    response: Side | None,
    categories: tuple[CategoryScore, ...],
) -> tuple[Side, Side | None, tuple[CategoryScore, ...], str | None]:
    """What a trace changes: everything under ``always`` and ``uncertain`` (whose scores decide
    nothing), but only the categories under ``unsafe``, where the score has already decided.
    """
    if thought.skipped is not None or thought.user is None:
        return user, response, categories, thought.skipped or SkippedReasoning.FAILED
    if response is not None and thought.response is None:
        return user, response, categories, SkippedReasoning.CONTRADICTORY
    if when == "unsafe":
        lowered = (user.label, thought.user.label) == ("unsafe", "safe") or (
            response is not None
            and thought.response is not None
            and (response.label, thought.response.label) == ("unsafe", "safe")
        )
        if lowered:
            return user, response, categories, SkippedReasoning.CONTRADICTORY
        return user, response, thought.categories or categories, None
    kept_response = thought.response if response is not None else None
    return thought.user, kept_response, thought.categories, None


def _suppress(
    source: PassSource, policy: Policy, categories: tuple[CategoryScore, ...]
) -> tuple[tuple[CategoryScore, ...], tuple[str, ...]]:
    suppress = set(policy.builtin.suppress) if source == "builtin" else set()
    kept = tuple(category for category in categories if category.name not in suppress)
    dropped = tuple(category.name for category in categories if category.name in suppress)
    return kept, dropped


def _raise_to_floor(
    reading: Reading, judgement: Judgement, floor_score: float, guard: GuardModel
) -> Reading:
    """The floor makes its pass unsafe, on the side that the model thought worse of."""
    categories = reading.categories
    if not any(guard.is_floor(each.name) for each in categories):
        floor = CategoryScore(name=guard.floor, score=floor_score)
        categories = (*categories, floor)
    if reading.unsafe:
        return msgspec.structs.replace(reading, categories=categories)
    response = judgement.response
    if response is not None and response.score > judgement.user.score:
        raised = Side(label="unsafe", score=response.score)
        return msgspec.structs.replace(reading, response=raised, categories=categories)
    raised = Side(label="unsafe", score=judgement.user.score)
    return msgspec.structs.replace(reading, user=raised, categories=categories)


def _cleared(reading: Reading) -> Reading:
    """Every category named is a suppressed one: safe, with the scores left as they were."""
    response = reading.response
    return msgspec.structs.replace(
        reading,
        user=Side(label="safe", score=reading.user.score),
        response=Side(label="safe", score=response.score) if response else None,
    )
