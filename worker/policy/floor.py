"""The floor: sexual content involving minors is judged under every policy, whatever it says.

Three guards: fixed constants that no policy can change, refusals when a policy loads, and a check
of every rendered rubric when its passes are built.
"""

from __future__ import annotations

from typing import Final

from worker.contracts.verdict import Action, Severity
from worker.errors import PolicyError
from worker.judge.base import Rubric
from worker.policy.carveout import carves_out, lifts_ban
from worker.policy.model import Policy
from worker.policy.problems import Problems
from worker.policy.render import FLOOR_NOTE
from worker.policy.taxonomy import BUILTIN, FLOOR, canonical_category

FLOOR_THRESHOLD: Final = 0.1
"""P(unsafe) x P(full name of the floor category) from which an event breaks the floor.

Far below the 0.5 of an even choice, because this is the one category where a false alarm (a person
looks at blocked content) costs less than a miss. One in ten leaves room for the small share that
the name gets beside its neighbour ``Sexual``, whose first tokens it shares.
"""
FLOOR_ACTION: Final[Action] = "block"
"""What is done about content that breaks the floor, whatever the policy's actions say."""
FLOOR_SEVERITY: Final[Severity] = "critical"
"""Severity of the floor category, whatever the policy's severities say."""

_TAXONOMY_LINES = (f"S{BUILTIN.index(FLOOR) + 1}: {FLOOR}.", f"- {FLOOR} ({FLOOR_NOTE})")
_POLICY_LINE = f"- {FLOOR}: {FLOOR_NOTE}"
_STANDS = "The floor is judged under every policy"
_REWORD = (
    "Say it without naming both minors and sexual content in one line (`sex education` and "
    "`sexual health` are fine); leave prohibitions out, the floor stands by itself."
)


def assert_floor(rubric: Rubric) -> None:
    """Refuse a rubric that does not judge the floor, however it came about.

    Raises:
        PolicyError: the floor's name or line is missing, or stands among what is allowed.
    """
    if FLOOR not in rubric.categories:
        raise _missing(rubric, "its category is not among the names the model may answer")
    if rubric.mode == "builtin":
        if rubric.text is not None:
            raise _missing(rubric, "the stock taxonomy was replaced by a text")
        return
    lines = (rubric.text or "").split("\n")
    if rubric.mode == "taxonomy":
        if not any(line in _TAXONOMY_LINES for line in lines):
            raise _missing(rubric, "its line is not in the taxonomy")
        return
    try:
        forbidden = lines.index("Disallowed Behaviors:")
        place = lines.index(_POLICY_LINE, forbidden)
    except ValueError:
        raise _missing(rubric, "its line is not in the policy") from None
    if "Allowed Behaviors:" in lines[:place]:
        raise _missing(rubric, "its line stands among what is allowed")


def _missing(rubric: Rubric, why: str) -> PolicyError:
    return PolicyError(
        f"the {rubric.mode} rubric does not judge `{FLOOR}`: {why}",
        fix="Build rubrics with worker.policy.passes only.",
    )


def check_floor(policy: Policy, problems: Problems) -> None:
    """Report everything in a policy that suppresses, renames, lowers or carves out the floor."""
    _check_builtin(policy, problems)
    _check_actions(policy, problems)
    _check_custom(policy, problems)
    if lifts_ban(policy.description):
        problems.add(("description",), "it carves the floor out", f"{_STANDS}. {_REWORD}")


def _check_builtin(policy: Policy, problems: Problems) -> None:
    for index, name in enumerate(policy.builtin.suppress):
        if name == FLOOR:
            where = ("builtin", "suppress", index)
            problems.add(where, f"`{FLOOR}` cannot be suppressed", f"{_STANDS}: delete the line.")
    severity = policy.builtin.severity.get(FLOOR)
    if severity not in (None, FLOOR_SEVERITY):
        problem = f"the severity of `{FLOOR}` is always {FLOOR_SEVERITY}"
        problems.add(("builtin", "severity", FLOOR), problem, f"{_STANDS}: delete the line.")


def _check_actions(policy: Policy, problems: Problems) -> None:
    action = policy.actions.severity.get(FLOOR_SEVERITY)
    if action in ("allow", "flag"):
        problems.add(
            ("actions", "severity", FLOOR_SEVERITY),
            f"`{FLOOR_SEVERITY}` is the floor's severity: `{action}` would let it through",
            "Choose hold or block; give categories that may pass another severity.",
        )


def _check_custom(policy: Policy, problems: Problems) -> None:
    custom = policy.custom
    if custom is None:
        return
    for index, line in enumerate(custom.allowed):
        if carves_out(line):
            where = ("custom", "allowed", index)
            problems.add(where, "it carves the floor out", f"{_STANDS}. {_REWORD}")
    for index, line in enumerate(custom.disallowed):
        if lifts_ban(line):
            where = ("custom", "disallowed", index)
            problems.add(where, "its exception carves the floor out", f"{_STANDS}. {_REWORD}")
    for index, category in enumerate(custom.taxonomy):
        name = ("custom", "taxonomy", index, "name")
        if is_floor_name(category.name):
            problem = f"`{category.name}` is the floor's own category"
            problems.add(name, problem, f"{_STANDS} without being listed: delete the entry.")
        elif lifts_ban(f"{category.name}: {category.note}"):
            note = ("custom", "taxonomy", index, "note")
            problems.add(note, "its exception carves the floor out", f"{_STANDS}. {_REWORD}")


def is_floor_name(name: str) -> bool:
    """Whether a category name means the floor, in any spelling."""
    plain = "".join(each if each.isalnum() else " " for each in name)
    return FLOOR in (canonical_category(name), canonical_category(plain))
