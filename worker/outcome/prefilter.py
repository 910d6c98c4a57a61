"""What prefilter hits do to a decision: they may make it unsafe, and nothing else.

There is no way here from a hit to ``safe``, and none from an allowed phrase to anything at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from worker.contracts.event import ImageRef
from worker.contracts.verdict import CategoryVerdict, ImageVerdict, PrefilterHit
from worker.images import FetchedImage
from worker.judgement import CategoryScore
from worker.outcome.actions import action_for, category_verdict, strictest
from worker.outcome.decide import Decision
from worker.policy.model import Policy


def settles(policy: Policy, hits: Sequence[PrefilterHit]) -> bool:
    """Whether the event is decided and the model need not be asked."""
    judge_too = policy.prefilter is None or policy.prefilter.judge_too
    return not judge_too and any(hit.decide == "unsafe" for hit in hits)


def settled(
    policy: Policy,
    hits: Sequence[PrefilterHit],
    *,
    unfetched: Sequence[ImageRef] = (),
    images: Sequence[FetchedImage] = (),
) -> Decision:
    """The decision on an event that nothing but the prefilter looked at: see ``settles``."""
    seen = [ImageVerdict(uri=each.uri) for each in unfetched]
    seen += [ImageVerdict(uri=each.uri, sha256=each.sha256, error=each.error) for each in images]
    # Without a deciding hit this would be held, never passed.
    unjudged = Decision(outcome="undecided", action="hold", images=tuple(seen))
    return with_hits(policy, unjudged, hits)


def with_hits(policy: Policy, decision: Decision, hits: Sequence[PrefilterHit]) -> Decision:
    """The decision with the hits recorded; unsafe if any of them decides."""
    if not hits:
        return decision
    deciding = [hit for hit in hits if hit.decide == "unsafe"]
    decision = msgspec.structs.replace(decision, prefilter=tuple(hits))
    if not deciding:
        return decision
    categories = _categories(policy, deciding)
    floor = any(policy.guard.is_floor(each.name) for each in categories)
    action = action_for(policy, categories, floor=floor)
    if decision.outcome == "unsafe":
        known = {(each.source, each.name) for each in decision.categories}
        new = tuple(each for each in categories if (each.source, each.name) not in known)
        return msgspec.structs.replace(
            decision,
            action=strictest(decision.action, action),
            categories=(*decision.categories, *new),
        )
    return msgspec.structs.replace(
        decision,
        outcome="unsafe",
        action=action,
        categories=categories,
        undecided_reason=None,
        undecided_detail=None,
        decided_by="prefilter",
    )


def _categories(policy: Policy, deciding: Sequence[PrefilterHit]) -> tuple[CategoryVerdict, ...]:
    """What the lists name, once each, in the gravest severity."""
    assert policy.prefilter is not None
    severities = {each.name: each.severity for each in policy.prefilter.lists}
    found: dict[str, CategoryVerdict] = {}
    for hit in deciding:
        name = hit.category or ""
        builtin = policy.builtin.enabled and policy.guard.canonical(name) is not None
        verdict = category_verdict(
            policy, "builtin" if builtin else "custom", CategoryScore(name=name)
        )
        given = severities.get(hit.list)
        if given is not None and not policy.guard.is_floor(name):
            verdict = msgspec.structs.replace(verdict, severity=given)
        known = found.get(name)
        if known is None or _GRADES.index(verdict.severity) > _GRADES.index(known.severity):
            found[name] = verdict
    return tuple(found.values())


_GRADES = ("low", "medium", "high", "critical")
