"""The one decision about an event: a pure function of its passes, its images and its policy."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from worker.contracts.codes import UndecidedReason
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
from worker.judge.base import Side
from worker.media.base import FetchedImage
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
    readings = [read(result, policy) for result in results if result.judgement is not None]
    common = _common(results, readings, images, policy)
    if any(reading.unsafe for reading in readings):
        return _credited(_unsafe(policy, readings, common), results)
    fault = _first_fault(results, images)
    if fault is None and not readings:
        fault = (UndecidedReason.INTERNAL_ERROR, "no pass was judged")
    if fault is not None:
        without = undecided(policy, *fault)
        return msgspec.structs.replace(
            common,
            outcome="undecided",
            action=without.action,
            undecided_reason=without.undecided_reason,
            undecided_detail=without.undecided_detail,
        )
    safe = msgspec.structs.replace(
        common, user=_worst([r.user for r in readings]), response=_worst_response(readings)
    )
    return _credited(safe, results)


def _credited(decision: Decision, results: Sequence[PassResult]) -> Decision:
    """Say where nothing was judged for this event: every pass had its answer from an equal one."""
    if not all(result.judgement is not None and result.judgement.cached for result in results):
        return decision
    decided_by: DecidedBy = "cache" if decision.decided_by == "judge" else decision.decided_by
    return msgspec.structs.replace(decision, cached=True, decided_by=decided_by)


def _common(
    results: Sequence[PassResult],
    readings: Sequence[Reading],
    images: Sequence[FetchedImage],
    policy: Policy,
) -> Decision:
    """What holds whatever the outcome is; outcome and action are the safe event's."""
    judgements = [result.judgement for result in results if result.judgement is not None]
    reasoning, traces = merged_reasoning(policy.think.when, judgements, readings)
    return Decision(
        outcome="safe",
        action="allow",
        suppressed=tuple(dict.fromkeys(name for r in readings for name in r.suppressed)),
        images=_image_verdicts(images, readings),
        reasoning=reasoning,
        neutralised=tuple(sorted({name for j in judgements for name in j.neutralised})),
        context=ContextUse(
            included=min((j.context.included for j in judgements), default=0),
            omitted=max((j.context.omitted for j in judgements), default=0),
        ),
        traces=traces,
    )


def _unsafe(policy: Policy, readings: Sequence[Reading], common: Decision) -> Decision:
    guilty = [reading for reading in readings if reading.unsafe]
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
    return msgspec.structs.replace(
        common,
        outcome="unsafe",
        action=action_for(policy, found, floor=floor),
        user=_worst([reading.user for reading in readings]),
        response=_worst_response(readings),
        categories=found,
        decided_by="floor" if floor and not judged_unsafe else "judge",
    )


def _sides(readings: Sequence[Reading]) -> list[Side]:
    users = [reading.user for reading in readings]
    return users + [reading.response for reading in readings if reading.response is not None]


def _worst(sides: Sequence[Side]) -> SideVerdict:
    """Unsafe before safe, then the higher score."""
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
