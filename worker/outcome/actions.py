"""Severity and action of what was found and of what failed: the strictest of all wins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from worker.codes import UndecidedReason
from worker.contracts.verdict import Action, CategoryVerdict, Severity
from worker.errors import Undecided
from worker.guard.taxonomy import FLOOR, canonical_category
from worker.judgement import CategoryScore
from worker.outcome.passes import PassSource
from worker.policy.floor import FLOOR_ACTION, FLOOR_SEVERITY, is_floor_name, means_floor
from worker.policy.model import Policy

DEFAULT_SEVERITY: Severity = "high"
"""Of a category without a configured severity, and of unsafe content without a category."""

_STRICTNESS: tuple[Action, ...] = ("allow", "flag", "hold", "block")
_GRADES: tuple[Severity, ...] = ("low", "medium", "high", "critical")


class Fault(NamedTuple):
    """A part of an event that could not be judged, and why.

    ``content`` is False where nothing that a person sees or reads went unjudged by it.
    """

    reason: UndecidedReason
    detail: str = ""
    content: bool = True

    @classmethod
    def of(cls, error: Undecided) -> Fault:
        """The fault that an error stands for."""
        detail = ": ".join(part for part in (error.field, error.detail) if part)
        return cls(error.reason, detail, error.content)


def first_named(faults: Sequence[Fault]) -> Fault | None:
    """The fault a verdict names: what went unseen before what was no content, the first of each."""
    return next((fault for fault in faults if fault.content), next(iter(faults), None))


def on_fault(policy: Policy, faults: Sequence[Fault]) -> Action:
    """What ``on_undecided`` says about an event of which something failed.

    ``pass`` lets through only what was judged whole. Where anything a person sees or reads was not
    asked for the floor, the event is held: docs/policies.md has the table by reason.
    """
    if policy.on_undecided == "pass":
        return "hold" if any(fault.content for fault in faults) else "allow"
    return policy.on_undecided


def category_verdict(policy: Policy, source: PassSource, named: CategoryScore) -> CategoryVerdict:
    """A category as the verdict lists it, with the severity the policy gives it.

    The floor's own category is listed under its name, however the model spelled it.
    """
    return CategoryVerdict(
        name=FLOOR if is_floor_name(named.name) else named.name,
        source="custom" if source == "custom" else "builtin",
        severity=_severity(policy, source, named.name),
        score=named.score,
    )


def default_severity(policy: Policy, source: PassSource) -> Severity:
    """What a pass brings that is unsafe without saying, or without having said all, as what."""
    custom = policy.custom
    if source == "custom" and custom is not None and not custom.taxonomy:
        return custom.severity
    return DEFAULT_SEVERITY


def action_for(policy: Policy, severities: Iterable[Severity], *, floor: bool) -> Action:
    """What is done about unsafe content: the strictest action any of its severities asks for."""
    wanted = [policy.actions.severity.get(each, policy.actions.default) for each in severities]
    if floor:
        wanted.append(FLOOR_ACTION)
    return strictest(*wanted)


def strictest(*actions: Action) -> Action:
    """Of several actions the one that lets least through."""
    return max(actions, key=_STRICTNESS.index)


def gravest(*severities: Severity) -> Severity:
    """Of several severities the highest."""
    return max(severities, key=_GRADES.index)


def _severity(policy: Policy, source: PassSource, name: str) -> Severity:
    if means_floor(name):
        return FLOOR_SEVERITY
    if source != "custom":
        known = canonical_category(name) or name
        return policy.builtin.severity.get(known, DEFAULT_SEVERITY)
    custom = policy.custom
    if custom is not None and custom.taxonomy:
        graded = {category.name: category.severity for category in custom.taxonomy}
        return graded.get(name, DEFAULT_SEVERITY)
    return default_severity(policy, source)
