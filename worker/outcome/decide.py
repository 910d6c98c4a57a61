"""The one decision about an event: a pure function of its passes, its images and its policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import msgspec

from worker.codes import UndecidedReason
from worker.contracts.verdict import (
    Action,
    CategoryVerdict,
    ContextUse,
    DecidedBy,
    ImageVerdict,
    Outcome,
    PrefilterHit,
    Reasoning,
    SideVerdict,
)
from worker.images import FetchedImage
from worker.judgement import Judgement, Side
from worker.outcome.actions import action_for, category_verdict
from worker.outcome.passes import PassResult, Reading, read
from worker.outcome.reasoning import merged_reasoning
from worker.policy.model import Policy


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided, before it gets an identity: everything a verdict says but who and where.

    ``traces`` are whole; the verdict's ``reasoning`` holds at most three sentences of them.
    """

    outcome: Outcome
    action: Action
    user: SideVerdict | None = None
    response: SideVerdict | None = None
    categories: tuple[CategoryVerdict, ...] = ()
    suppressed: tuple[str, ...] = ()
    images: tuple[ImageVerdict, ...] = ()
    reasoning: Reasoning | None = None
    undecided_reason: UndecidedReason | None = None
    undecided_detail: str | None = None
    neutralised: tuple[str, ...] = ()
    context: ContextUse = ContextUse()
    decided_by: DecidedBy = "judge"
    cached: bool = False
    prefilter: tuple[PrefilterHit, ...] = ()
    traces: tuple[str, ...] = ()

    @property
    def quarantined(self) -> bool:
        """Held content waits for a person; blocked content is kept beside it as evidence."""
        return self.action in ("hold", "block")

    @property
    def needs_review(self) -> bool:
        return self.action == "hold"


_ON_UNDECIDED: dict[str, Action] = {"hold": "hold", "block": "block", "pass": "allow"}


def undecided(policy: Policy, reason: UndecidedReason, detail: str = "") -> Decision:
    """The decision about an event that was not judged at all."""
    return Decision(
        outcome="undecided",
        action=_ON_UNDECIDED[policy.on_undecided],
        undecided_reason=reason,
        undecided_detail=detail or None,
    )


def decide(
    policy: Policy, results: Sequence[PassResult], images: Sequence[FetchedImage]
) -> Decision:
    """Merge every pass over one event.

    Any unsafe pass makes the event unsafe. Otherwise any failed pass or image makes it undecided,
    and only an event whose every pass is safe and whose every image was seen is safe.
    """
    judgements = [result.judgement for result in results if result.judgement is not None]
    readings = [read(result, policy) for result in results if result.judgement is not None]
    ruling = _rule(policy, results, readings, images)
    judged = ruling.outcome != "undecided"
    # Every pass had its answer from an equal event: nothing was judged for this one.
    cached = judged and len(judgements) == len(results) and all(each.cached for each in judgements)
    reasoning, traces = merged_reasoning(policy.think.when, judgements, readings)
    return Decision(
        outcome=ruling.outcome,
        action=ruling.action,
        user=_worst([reading.user for reading in readings]) if judged else None,
        response=_worst_response(readings) if judged else None,
        categories=ruling.categories,
        suppressed=_each_once([reading.suppressed for reading in readings]),
        images=_image_verdicts(images, readings) if images else (),
        reasoning=reasoning,
        undecided_reason=ruling.reason,
        undecided_detail=ruling.detail or None,
        neutralised=tuple(sorted(_each_once([each.neutralised for each in judgements]))),
        context=_context(judgements),
        decided_by="cache" if cached and ruling.decided_by == "judge" else ruling.decided_by,
        cached=cached,
        traces=traces,
    )


class _Ruling(NamedTuple):
    """What the passes come to, before it is said what they saw."""

    outcome: Outcome
    action: Action
    categories: tuple[CategoryVerdict, ...] = ()
    decided_by: DecidedBy = "judge"
    reason: UndecidedReason | None = None
    detail: str = ""


_SAFE = _Ruling("safe", "allow")


def _rule(
    policy: Policy,
    results: Sequence[PassResult],
    readings: Sequence[Reading],
    images: Sequence[FetchedImage],
) -> _Ruling:
    guilty = [reading for reading in readings if reading.unsafe]
    if guilty:
        return _unsafe(policy, guilty)
    fault = _first_fault(results, images)
    if fault is None and not readings:
        fault = (UndecidedReason.INTERNAL_ERROR, "no pass was judged")
    if fault is None:
        return _SAFE
    reason, detail = fault
    action = _ON_UNDECIDED[policy.on_undecided]
    return _Ruling("undecided", action, reason=reason, detail=detail)


def _unsafe(policy: Policy, guilty: Sequence[Reading]) -> _Ruling:
    categories: dict[tuple[str, str], CategoryVerdict] = {}
    for reading in guilty:
        for named in reading.categories:
            verdict = category_verdict(policy, reading.source, named)
            known = categories.get((verdict.source, verdict.name))
            if known is None or (verdict.score or 0.0) > (known.score or 0.0):
                categories[verdict.source, verdict.name] = verdict
    found = tuple(categories.values())
    floor = any(reading.floor for reading in guilty)
    judged_unsafe = any(side.score >= policy.thresholds.unsafe for side in _sides(guilty))
    return _Ruling(
        "unsafe",
        action_for(
            policy, found, floor=floor, floor_asked=all(each.floor_asked for each in guilty)
        ),
        found,
        "floor" if floor and not judged_unsafe else "judge",
    )


def _context(judgements: Sequence[Judgement]) -> ContextUse:
    """The earlier turns that every pass saw: the fewest of all."""
    if not judgements:
        return ContextUse()
    if len(judgements) == 1:
        return judgements[0].context
    return ContextUse(
        included=min(each.context.included for each in judgements),
        omitted=max(each.context.omitted for each in judgements),
    )


def _each_once(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(names)))


def _sides(readings: Sequence[Reading]) -> list[Side]:
    users = [reading.user for reading in readings]
    return users + [reading.response for reading in readings if reading.response is not None]


def _worst(sides: Sequence[Side]) -> SideVerdict:
    """Unsafe before safe, then the higher score."""
    worst = sides[0]
    if len(sides) > 1:
        worst = max(sides, key=lambda side: (side.label == "unsafe", side.score))
    return SideVerdict(label=worst.label, score=worst.score)


def _worst_response(readings: Sequence[Reading]) -> SideVerdict | None:
    sides = [reading.response for reading in readings if reading.response is not None]
    return _worst(sides) if sides else None


def _first_fault(
    results: Sequence[PassResult], images: Sequence[FetchedImage]
) -> tuple[UndecidedReason, str] | None:
    for index, image in enumerate(images):
        if image.error is not None:
            where = f"images[{index}]"
            return UndecidedReason(image.error), f"{where}: {image.detail}".rstrip(": ")
        if not any(result.image == index for result in results):
            return UndecidedReason.INTERNAL_ERROR, f"images[{index}]: no pass has seen it"
    for result in results:
        if result.fault is not None:
            return result.fault, result.detail
    return None


def _image_verdicts(
    images: Sequence[FetchedImage], readings: Sequence[Reading]
) -> tuple[ImageVerdict, ...]:
    verdicts = []
    for index, image in enumerate(images):
        seen = [reading for reading in readings if reading.image == index]
        worst = _worst([reading.user for reading in seen]) if seen else None
        verdicts.append(
            ImageVerdict(
                uri=image.uri,
                sha256=image.sha256,
                label=worst.label if worst else None,
                score=worst.score if worst else None,
                error=image.error,
            )
        )
    return tuple(verdicts)
