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
from worker.outcome.actions import (
    Fault,
    action_for,
    category_verdict,
    default_severity,
    first_named,
    on_fault,
    strictest,
)
from worker.outcome.passes import PassResult, Reading, read, worst
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


def decide(
    policy: Policy,
    results: Sequence[PassResult],
    images: Sequence[FetchedImage],
    faults: Sequence[Fault] = (),
) -> Decision:
    """Merge every pass over one event; ``faults`` are what was wrong with the event itself.

    Any unsafe pass makes the event unsafe. Otherwise any failed part makes it undecided, and only
    an event whose every pass is safe and whose every image was seen is safe. Wherever a part
    failed, the reason is kept and the action is the strictest of what was found and
    ``on_undecided``.
    """
    judgements = [result.judgement for result in results if result.judgement is not None]
    readings = [read(result, policy) for result in results if result.judgement is not None]
    # The floor's own pass speaks of the floor alone: where it found nothing, it has said nothing.
    heard = [reading for reading in readings if reading.source != "floor" or reading.floor]
    if not results and not faults and not images:
        faults = [Fault(UndecidedReason.INTERNAL_ERROR, "no pass was judged")]
    ruling = _rule(policy, readings, [*faults, *_faults(results, images)])
    judged = ruling.outcome != "undecided"
    # Every pass had its answer from an equal event: nothing was judged for this one.
    whole = judged and ruling.reason is None and bool(results)
    cached = whole and all(each.cached for each in judgements)
    reasoning, traces = merged_reasoning(policy.think.when, judgements, readings)
    return Decision(
        outcome=ruling.outcome,
        action=ruling.action,
        user=_worst([reading.user for reading in heard]) if judged and heard else None,
        response=_worst_response(heard) if judged else None,
        categories=ruling.categories,
        suppressed=_each_once([reading.suppressed for reading in readings]),
        images=_image_verdicts(images, heard) if images else (),
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


def _rule(policy: Policy, readings: Sequence[Reading], faults: Sequence[Fault]) -> _Ruling:
    guilty = [reading for reading in readings if reading.unsafe]
    named = first_named(faults)
    if named is None:
        return _unsafe(policy, guilty) if guilty else _SAFE
    action = on_fault(policy, faults)
    if not guilty:
        return _Ruling("undecided", action, reason=named.reason, detail=named.detail)
    found = _unsafe(policy, guilty)
    return found._replace(
        action=strictest(found.action, action), reason=named.reason, detail=named.detail
    )


def _unsafe(policy: Policy, guilty: Sequence[Reading]) -> _Ruling:
    categories: dict[tuple[str, str], CategoryVerdict] = {}
    for reading in guilty:
        for named in reading.categories:
            verdict = category_verdict(policy, reading.source, named)
            known = categories.get((verdict.source, verdict.name))
            if known is None or (verdict.score or 0.0) > (known.score or 0.0):
                categories[verdict.source, verdict.name] = verdict
    found = tuple(categories.values())
    severities = [category.severity for category in found]
    severities += [
        default_severity(policy, reading.source) for reading in guilty if not reading.graded
    ]
    return _Ruling(
        "unsafe",
        action_for(policy, severities, floor=any(reading.floor for reading in guilty)),
        found,
        "floor" if all(reading.raised for reading in guilty) else "judge",
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


def _worst(sides: Sequence[Side]) -> SideVerdict:
    side = worst(tuple(sides))
    return SideVerdict(label=side.label, score=side.score)


def _worst_response(readings: Sequence[Reading]) -> SideVerdict | None:
    sides = [reading.response for reading in readings if reading.response is not None]
    return _worst(sides) if sides else None


def _faults(results: Sequence[PassResult], images: Sequence[FetchedImage]) -> list[Fault]:
    """Everything that went unjudged of an event's images and of the passes."""
    faults = []
    seen = {result.image for result in results}
    for index, image in enumerate(images):
        where = f"images[{index}]"
        if image.error is not None:
            detail = f"{where}: {image.detail}".rstrip(": ")
            faults.append(Fault(UndecidedReason(image.error), detail))
        elif index not in seen:
            faults.append(Fault(UndecidedReason.INTERNAL_ERROR, f"{where}: no pass has seen it"))
    for result in results:
        if result.fault is not None:
            faults.append(Fault(result.fault, result.detail))
        elif result.judgement is not None and not result.judgement.floor_asked:
            detail = "the judge cannot be asked about the floor"
            faults.append(Fault(UndecidedReason.FLOOR_UNCHECKED, detail))
    for index, image in enumerate(images):
        if image.unseen:
            detail = f"images[{index}]: {len(image.frames)} of {image.total} views"
            faults.append(Fault(UndecidedReason.IMAGE_NOT_ALL_SEEN, detail))
    return faults


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
                seen=len(image.frames) if seen else None,
                total=max(image.total, len(image.frames)) if seen else None,
                scale=image.scale if seen else None,
            )
        )
    return tuple(verdicts)
