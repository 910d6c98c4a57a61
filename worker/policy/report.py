"""A policy as people and programs read it in ``policy show`` and ``policy check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from worker.errors import PolicyError
from worker.guard.taxonomy import FLOOR
from worker.policy.floor import FLOOR_ACTION, FLOOR_SEVERITY, FLOOR_THRESHOLD
from worker.policy.model import Policy, Prefilter
from worker.policy.parse import SEVERITIES
from worker.policy.passes import PolicyPass, passes


def policy_value(policy: Policy) -> dict[str, Any]:
    """Everything ``policy show`` says, as plain values."""
    return {
        "name": policy.name,
        "version": policy.version,
        "sha256": policy.sha256,
        "file": policy.file,
        "owner": policy.owner,
        "topics": list(policy.topics),
        "languages": list(policy.languages),
        "passes": [_pass_value(each) for each in passes(policy)],
        "think": policy.think.when,
        "threshold": policy.thresholds.unsafe,
        "actions": {level: _action(policy, level) for level in SEVERITIES},
        "on_undecided": policy.on_undecided,
        "judged": policy.judged,
        "suppressed": list(policy.builtin.suppress),
        "prefilter": _prefilter_value(policy),
        "cache": policy.cache,
        "floor": {
            "category": FLOOR,
            "threshold": FLOOR_THRESHOLD,
            "severity": FLOOR_SEVERITY,
            "action": FLOOR_ACTION,
        },
        "examples": dict(Counter(each.checkpoint or "any" for each in policy.examples)),
    }


def _prefilter_value(policy: Policy) -> dict[str, Any] | None:
    prefilter = policy.prefilter
    if prefilter is None:
        return None
    return {
        "judge_too": prefilter.judge_too,
        "allow": len(prefilter.allow) + len(prefilter.loaded),
        "lists": [
            {
                "name": each.name,
                "decide": each.decide,
                "category": each.category,
                "severity": each.severity,
                "entries": len(each.entries),
                **({"distance": each.distance} if each.of_images else {"match": each.match}),
            }
            for each in prefilter.lists
        ],
    }


def _prefilter_lines(prefilter: Prefilter) -> Iterator[str]:
    """Counts only: what is listed may be what nobody should have to read."""
    for each in prefilter.lists:
        what, how = (
            ("image", f"distance {each.distance}") if each.of_images else ("phrase", each.match)
        )
        meant = ", ".join(part for part in (each.decide, each.category, each.severity) if part)
        yield f"  prefilter     {each.name}: {_count(each.entries, what)} ({how}), {meant}"
    allowed = (*prefilter.allow, *prefilter.loaded)
    if allowed:
        yield f"  allowed       {_count(allowed, 'phrase')} in which no list has a hit"
    if prefilter.judge_too:
        yield "  judge too     the model is asked about hits as well"


def _count(entries: Sequence[str], what: str) -> str:
    return f"{len(entries)} {what}{'' if len(entries) == 1 else 's'}"


def _pass_value(each: PolicyPass) -> dict[str, Any]:
    return {
        "source": each.source,
        "mode": each.rubric.mode,
        "sha256": each.rubric.sha256,
        "adapter": each.adapter,
        "categories": list(each.rubric.categories),
        "text": each.rubric.text,
    }


def _action(policy: Policy, level: Any) -> str:
    return policy.actions.severity.get(level, policy.actions.default)


def policy_lines(policy: Policy) -> Iterator[str]:
    """What ``policy show`` prints."""
    yield f"{policy.name} version {policy.version}  ({policy.file})"
    if policy.description:
        yield f"  {policy.description}"
    yield f"  sha256        {policy.sha256}"
    yield f"  owner         {policy.owner}"
    yield f"  topics        {', '.join(policy.topics) or 'none: bound to no topic'}"
    if policy.languages:
        yield f"  languages     {', '.join(policy.languages)}"
    yield f"  threshold     unsafe from {policy.thresholds.unsafe:g}"
    yield f"  think         {_think(policy)}"
    actions = ", ".join(f"{level} {_action(policy, level)}" for level in SEVERITIES)
    yield f"  actions       {actions}"
    yield f"  undecided     {policy.on_undecided}"
    if policy.judged == "message":
        yield "  judged        the newest user message alone, with its answer"
    if policy.builtin.suppress:
        yield f"  suppressed    {', '.join(policy.builtin.suppress)}"
    if policy.prefilter is not None:
        yield from _prefilter_lines(policy.prefilter)
    if not policy.cache:
        yield "  cache         off: equal events are judged anew"
    yield (
        f"  floor         {FLOOR}: {FLOOR_SEVERITY}, {FLOOR_ACTION} from {FLOOR_THRESHOLD:g}, "
        "whatever stands above"
    )
    counted = Counter(each.checkpoint or "any checkpoint" for each in policy.examples)
    families = ", ".join(f"{count} for {family}" for family, count in sorted(counted.items()))
    yield f"  examples      {families or 'none: nothing shows that this policy works'}"
    for number, each in enumerate(passes(policy), 1):
        yield ""
        named = len(each.rubric.categories)
        yield f"pass {number}: {each.source}, {_mode(each)}, {named} categories"
        if each.adapter:
            yield f"  adapter {each.adapter}"
        if each.source == "floor":
            yield "  only its answer about the floor counts; one pass more an event, and an image"
        for line in (each.rubric.text or "(the model's own taxonomy, unchanged)").split("\n"):
            yield f"  | {line}".rstrip()


def _think(policy: Policy) -> str:
    think = policy.think
    if think.when == "never":
        return "never"
    band = f", {think.band[0]:g} to {think.band[1]:g}" if think.when == "uncertain" else ""
    return f"{think.when}{band}, at most {think.max_tokens} tokens and {think.deadline_ms} ms"


def _mode(each: PolicyPass) -> str:
    modes = {"builtin": "stock taxonomy", "taxonomy": "replaced taxonomy", "policy": "free text"}
    return modes[each.rubric.mode]


def problem_value(problem: PolicyError) -> dict[str, Any]:
    """One problem as plain values."""
    return {
        "file": problem.file,
        "line": problem.line,
        "field": problem.field,
        "problem": problem.problem,
        "fix": problem.fix,
    }


def problem_lines(problem: PolicyError) -> Iterator[str]:
    """One problem for people: where, what, and what to do about it."""
    where = f"{problem.file}:{problem.line}" if problem.line else problem.file
    what = f"{problem.field}: {problem.problem}" if problem.field else problem.problem
    yield f"{where}: {what}"
    yield f"    {problem.fix}"
