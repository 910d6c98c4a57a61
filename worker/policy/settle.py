"""Which of the policies read go live where some clash: what is live goes before what is new."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from worker.errors import PolicyError
from worker.policy.bundle import Bundle, bundle
from worker.policy.model import Policy


def settle(parsed: Sequence[Policy], live: Sequence[Policy]) -> tuple[Bundle, list[PolicyError]]:
    """The policies that can be live together, and the problems of those that have to wait.

    Where two files clash over a name or a topic, each falls back to its live version, or waits if
    it has none. A policy whose file went away stays for the topics nobody else took over.
    """
    by_file = {policy.file: policy for policy in live}
    current = list(parsed)
    problems: list[PolicyError] = []
    while True:
        found = bundle(current)
        problems += [each for each in found.problems if str(each) not in map(str, problems)]
        if not found.clashing:
            break
        current = _fall_back(current, found.clashing, by_file)
    orphans = _orphans(current, live, problems)
    return (bundle([*current, *orphans]) if orphans else found), problems


def _fall_back(
    current: Sequence[Policy], clashing: frozenset[str], by_file: dict[str, Policy]
) -> list[Policy]:
    """One step towards the live set, which clashes with nothing of itself, so it ends."""
    fallen: list[Policy] = []
    for policy in current:
        if policy.file not in clashing:
            fallen.append(policy)
            continue
        known = by_file.get(policy.file)
        if known is not None:
            fallen.append(known)
    if fallen == list(current):
        # All are live already: a live policy moved here from another file. The last one waits.
        last = max(policy.file for policy in current if policy.file in clashing)
        fallen = [policy for policy in current if policy.file != last]
    return fallen


def _orphans(
    current: Sequence[Policy], live: Sequence[Policy], problems: list[PolicyError]
) -> list[Policy]:
    bound = {topic for policy in current for topic in policy.topics}
    names = {policy.name for policy in current}
    orphans: list[Policy] = []
    for policy in live:
        left = tuple(topic for topic in policy.topics if topic not in bound)
        if not left or policy.name in names:
            continue
        problem = f"the file is gone, but {', '.join(left)} has no other policy"
        fix = "Its last version stays. Bring it back, or bind the topic elsewhere."
        problems.append(PolicyError(problem, fix=fix, file=policy.file, field="topics"))
        orphans.append(msgspec.structs.replace(policy, topics=left))
    return orphans
