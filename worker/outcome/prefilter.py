"""What prefilter hits do to a decision: they may make it unsafe, and nothing else.

There is no way here from a hit to ``safe``, and none from an allowed phrase to anything at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from worker.contracts.event import ImageRef
from worker.contracts.verdict import (
    Action,
    CategoryVerdict,
    ImageVerdict,
    PrefilterHit,
    Reasoning,
)
from worker.guard.taxonomy import canonical_category
from worker.images import FetchedImage
from worker.judgement import CategoryScore
from worker.outcome.actions import (
    Fault,
    action_for,
    category_verdict,
    first_named,
    gravest,
    strictest,
)
from worker.outcome.decide import Decision
from worker.policy.floor import means_floor
from worker.policy.model import Policy


def settles(policy: Policy, hits: Sequence[PrefilterHit]) -> bool:
    """Whether the event is decided and the model need not be asked.

    Only where it is blocked: milder than that, what a list did not look for (the floor first of
    all) may stand beside what it found.
    """
    judge_too = policy.prefilter is None or policy.prefilter.judge_too
    deciding = [hit for hit in hits if hit.decide == "unsafe"]
    return not judge_too and bool(deciding) and _action(policy, deciding) == "block"


def settled(
    policy: Policy,
    hits: Sequence[PrefilterHit],
    *,
    unfetched: Sequence[ImageRef] = (),
    images: Sequence[FetchedImage] = (),
    faults: Sequence[Fault] = (),
) -> Decision:
    """The decision on an event that nothing but the prefilter looked at: see ``settles``."""
    named = first_named(faults)
    seen = [ImageVerdict(uri=each.uri) for each in unfetched]
    seen += [ImageVerdict(uri=each.uri, sha256=each.sha256, error=each.error) for each in images]
    when = policy.think.when
    # Without a deciding hit this would be held, never passed.
    unjudged = Decision(
        outcome="undecided",
        action="hold",
        images=tuple(seen),
        reasoning=Reasoning(mode=when) if when != "never" else None,
        undecided_reason=named.reason if named else None,
        undecided_detail=(named.detail or None) if named else None,
    )
    return with_hits(policy, unjudged, hits)


def with_hits(policy: Policy, decision: Decision, hits: Sequence[PrefilterHit]) -> Decision:
    """The decision with the hits recorded; unsafe if any of them decides.

    The action is the strictest of both, also beside a part that failed, whose reason is kept.
    """
    if not hits:
        return decision
    deciding = [hit for hit in hits if hit.decide == "unsafe"]
    decision = msgspec.structs.replace(decision, prefilter=tuple(hits))
    if not deciding:
        return decision
    return msgspec.structs.replace(
        decision,
        outcome="unsafe",
        action=strictest(decision.action, _action(policy, deciding)),
        categories=_together(decision.categories, _named(policy, deciding)),
        decided_by=decision.decided_by if decision.outcome == "unsafe" else "prefilter",
    )


def _action(policy: Policy, deciding: Sequence[PrefilterHit]) -> Action:
    found = _named(policy, deciding)
    floor = any(means_floor(each.name) for each in found)
    return action_for(policy, [each.severity for each in found], floor=floor)


def _together(
    judged: Sequence[CategoryVerdict], listed: Sequence[CategoryVerdict]
) -> tuple[CategoryVerdict, ...]:
    """The judge's categories and the lists', each once, with its score, in the graver severity."""
    found = {(each.source, each.name): each for each in judged}
    for each in listed:
        known = found.setdefault((each.source, each.name), each)
        severity = gravest(known.severity, each.severity)
        found[each.source, each.name] = msgspec.structs.replace(known, severity=severity)
    return tuple(found.values())


def _named(policy: Policy, deciding: Sequence[PrefilterHit]) -> list[CategoryVerdict]:
    """What each hit is, in the severity that its list or else the policy gives it."""
    assert policy.prefilter is not None
    severities = {each.name: each.severity for each in policy.prefilter.lists}
    found: list[CategoryVerdict] = []
    for hit in deciding:
        name = hit.category or ""
        builtin = policy.builtin.enabled and canonical_category(name) is not None
        verdict = category_verdict(
            policy, "builtin" if builtin else "custom", CategoryScore(name=name)
        )
        given = severities.get(hit.list)
        if given is not None and not means_floor(name):
            verdict = msgspec.structs.replace(verdict, severity=given)
        found.append(verdict)
    return found
