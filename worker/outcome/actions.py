"""Severity and action of what was found: the strictest of all categories wins."""

from __future__ import annotations

from collections.abc import Sequence

from worker.contracts.verdict import Action, CategoryVerdict, Severity
from worker.judgement import CategoryScore
from worker.outcome.passes import PassSource
from worker.policy.floor import FLOOR_ACTION, FLOOR_SEVERITY, FLOOR_UNCHECKED_ACTION
from worker.policy.model import Policy

DEFAULT_SEVERITY: Severity = "high"
"""Of a category without a configured severity, and of unsafe content without a category."""

_STRICTNESS: tuple[Action, ...] = ("allow", "flag", "hold", "block")


def category_verdict(policy: Policy, source: PassSource, named: CategoryScore) -> CategoryVerdict:
    """A category as the verdict lists it, with the severity the policy gives it."""
    return CategoryVerdict(
        name=named.name,
        source=source,
        severity=_severity(policy, source, named.name),
        score=named.score,
    )


def action_for(
    policy: Policy,
    categories: Sequence[CategoryVerdict],
    *,
    floor: bool,
    floor_asked: bool = True,
) -> Action:
    """What is done about unsafe content: the strictest action any of its categories asks for.

    Where the floor could not be asked for, a person looks: it may be more than what was found.
    """
    severities = [category.severity for category in categories] or [DEFAULT_SEVERITY]
    wanted = [policy.actions.severity.get(each, policy.actions.default) for each in severities]
    if floor:
        wanted.append(FLOOR_ACTION)
    if not floor_asked:
        wanted.append(FLOOR_UNCHECKED_ACTION)
    return strictest(*wanted)


def strictest(*actions: Action) -> Action:
    """Of several actions the one that lets least through."""
    return max(actions, key=_STRICTNESS.index)


def _severity(policy: Policy, source: PassSource, name: str) -> Severity:
    if policy.guard.is_floor(name):
        return FLOOR_SEVERITY
    if source == "builtin":
        own = policy.guard.severity(name) or DEFAULT_SEVERITY
        return policy.builtin.severity.get(name, own)
    custom = policy.custom
    if custom is None:
        return DEFAULT_SEVERITY
    if not custom.taxonomy:
        return custom.severity
    known = {category.name: category.severity for category in custom.taxonomy}
    return known.get(name, DEFAULT_SEVERITY)
