"""What came back for one event: one result per pass, and the per-pass reading of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from worker.codes import SkippedReasoning, UndecidedReason
from worker.guard.taxonomy import FLOOR
from worker.judgement import CategoryScore, Judgement, Side
from worker.policy.floor import FLOOR_THRESHOLD, means_floor
from worker.policy.model import Policy

PassSource = Literal["builtin", "custom", "floor"]
"""Which pass: the model's taxonomy, the policy's own words, or the floor alone."""


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
    """One judgement read under a policy: labels after threshold, THINK, suppression and floor.

    ``graded`` is False where something unsafe has no category, or not all of them were read.
    ``raised`` says that nothing but the floor made the pass unsafe.
    """

    source: PassSource
    image: int | None
    user: Side
    response: Side | None
    categories: tuple[CategoryScore, ...] = ()
    suppressed: tuple[str, ...] = ()
    graded: bool = True
    floor: bool = False
    raised: bool = False
    skipped: str | None = None

    @property
    def unsafe(self) -> bool:
        return _unsafe(self.user, self.response)


class _Answer(NamedTuple):
    """One answer of the model, the score's or a trace's, after threshold and suppression."""

    user: Side
    response: Side | None
    named: tuple[CategoryScore, ...]
    suppressed: tuple[str, ...]
    graded: bool


def read(result: PassResult, policy: Policy) -> Reading:
    """Read one judged pass. ``result.judgement`` must be set.

    The threshold decides each side, suppression clears what is named by suppressed categories
    alone. A trace is read by the same rules, and of the two the worse counts: what the score found
    is never lowered, and what the trace finds is added. The floor, in either, has the last word.
    """
    judgement = result.judgement
    assert judgement is not None
    thought = judgement.thought
    floor_score = max(judgement.floor_score, thought.floor_score if thought else 0.0)
    named = (*judgement.categories, *(thought.categories if thought else ()))
    floor = floor_score >= FLOOR_THRESHOLD or any(means_floor(each.name) for each in named)
    if result.source == "floor":
        reading = Reading(
            source=result.source,
            image=result.image,
            user=Side(label="safe", score=judgement.user.score),
            response=_safe(judgement.response),
        )
    else:
        reading = _read(result, policy, judgement)
    return _raise_to_floor(reading, floor_score) if floor else reading


def _read(result: PassResult, policy: Policy, judgement: Judgement) -> Reading:
    threshold, source = policy.thresholds.unsafe, result.source
    user = _at(judgement.user, threshold)
    response = _at(judgement.response, threshold) if judgement.response else None
    complete = judgement.categories_complete
    found = _suppress(source, policy, user, response, judgement.categories, complete)
    thought, skipped = judgement.thought, None
    if thought is not None:
        skipped = thought.skipped
        if thought.user is None:
            skipped = skipped or SkippedReasoning.FAILED
        elif skipped in (None, SkippedReasoning.CONTRADICTORY):
            behind = _at(thought.user, threshold)
            answered = _at(thought.response, threshold) if response and thought.response else None
            if _milder(behind, user) or (response and _milder(answered, response)):
                skipped = SkippedReasoning.CONTRADICTORY
            complete = thought.categories_complete
            later = _suppress(source, policy, behind, answered, thought.categories, complete)
            found = _worse(found, later)
    return Reading(
        source=source,
        image=result.image,
        user=found.user,
        response=found.response,
        categories=found.named,
        suppressed=found.suppressed,
        graded=found.graded,
        skipped=skipped,
    )


def _at(side: Side, threshold: float) -> Side:
    return Side(label="unsafe" if side.score >= threshold else "safe", score=side.score)


def _unsafe(user: Side, response: Side | None) -> bool:
    return user.label == "unsafe" or (response is not None and response.label == "unsafe")


def _milder(trace: Side | None, score: Side) -> bool:
    """Whether a trace forgets a side, or calls safe what the score called unsafe."""
    return trace is None or (score.label == "unsafe" and trace.label == "safe")


def _suppress(
    source: PassSource,
    policy: Policy,
    user: Side,
    response: Side | None,
    categories: tuple[CategoryScore, ...],
    complete: bool,
) -> _Answer:
    """Without suppressed categories; safe, the scores left as they were, if all it names are."""
    if not _unsafe(user, response):
        return _Answer(user, response, (), (), True)
    suppress = policy.builtin.suppress if source == "builtin" else ()
    named = tuple(category for category in categories if category.name not in suppress)
    dropped = tuple(category.name for category in categories if category.name in suppress)
    if dropped and not named and complete:
        return _Answer(Side(label="safe", score=user.score), _safe(response), (), dropped, True)
    return _Answer(user, response, named, dropped, bool(named) and complete)


def _worse(first: _Answer, second: _Answer) -> _Answer:
    """Of two answers on each side the worse one, and everything that either names."""
    response = first.response
    if response is not None and second.response is not None:
        response = worst((response, second.response))
    names = {category.name for category in first.named}
    added = tuple(category for category in second.named if category.name not in names)
    return _Answer(
        worst((first.user, second.user)),
        response,
        (*first.named, *added),
        tuple(dict.fromkeys((*first.suppressed, *second.suppressed))),
        first.graded and second.graded,
    )


def worst(sides: tuple[Side, ...]) -> Side:
    """Unsafe before safe, then the higher score."""
    return max(sides, key=lambda side: (side.label == "unsafe", side.score))


def _safe(side: Side | None) -> Side | None:
    return Side(label="safe", score=side.score) if side is not None else None


def _raise_to_floor(reading: Reading, floor_score: float) -> Reading:
    """The floor makes its pass unsafe, on the side that the model thought worse of."""
    categories = reading.categories
    if not any(means_floor(category.name) for category in categories):
        categories = (*categories, CategoryScore(name=FLOOR, score=floor_score))
    if reading.unsafe:
        return msgspec.structs.replace(reading, categories=categories, floor=True)
    response = reading.response
    if response is not None and response.score > reading.user.score:
        raised = Side(label="unsafe", score=response.score)
        return msgspec.structs.replace(
            reading, response=raised, categories=categories, floor=True, raised=True
        )
    raised = Side(label="unsafe", score=reading.user.score)
    return msgspec.structs.replace(
        reading, user=raised, categories=categories, floor=True, raised=True
    )
