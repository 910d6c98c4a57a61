"""What differs between two policies, by meaning: judging first, paperwork after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from worker.policy.digest import canonical_form
from worker.policy.model import Policy


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. ``judging`` changes can change outcomes, ``paperwork`` ones cannot.

    ``before`` is None for what was added, ``after`` for what was taken away.
    """

    field: str
    kind: Literal["judging", "paperwork"]
    before: Any = None
    after: Any = None

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.field}: + {_shown(self.after)}"
        if self.after is None:
            return f"{self.field}: - {_shown(self.before)}"
        return f"{self.field}: {_shown(self.before)} -> {_shown(self.after)}"


def diff(before: Policy, after: Policy) -> tuple[Change, ...]:
    """Every difference by meaning; empty where the two judge alike and are kept alike.

    Comments, key order, spelled-out defaults and the spelling of category names are no difference.
    """
    judging = [
        Change(field=field, kind="judging", before=old, after=new)
        for field, old, new in _compare("", _meaning(before), _meaning(after))
    ]
    paperwork = [
        Change(field=field, kind="paperwork", before=old, after=new)
        for field, old, new in _compare("", _paperwork(before), _paperwork(after))
    ]
    return (*judging, *paperwork)


def _meaning(policy: Policy) -> dict[str, Any]:
    form = msgspec.to_builtins(canonical_form(policy))
    custom = form["custom"]
    if custom and "taxonomy" in custom:
        custom["order"] = [each["name"] for each in custom["taxonomy"]]
        custom["taxonomy"] = {each.pop("name"): each for each in custom["taxonomy"]}
    assert isinstance(form, dict)
    return form


def _paperwork(policy: Policy) -> dict[str, Any]:
    fields = msgspec.to_builtins(policy)
    kept = {name: fields[name] for name in _PAPERWORK}
    kept["examples"] = [_example(each) for each in fields["examples"]]
    if "description" not in canonical_form(policy):
        kept["description"] = policy.description
    return kept


_PAPERWORK = ("version", "owner", "topics", "languages", "cache", "candidate")


def _example(fields: dict[str, Any]) -> str:
    said = " / ".join(str(fields[name]) for name in ("text", "response", "image") if fields[name])
    wanted = ", ".join((fields["expect"], *fields["categories"]))
    family = f" [{fields['checkpoint']}]" if fields["checkpoint"] else ""
    return f"{said} => {wanted}{family}"


def _compare(field: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            inner = f"{field}.{name}" if field else name
            yield from _compare(inner, before.get(name), after.get(name))
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        yield from _compare_lists(field, before, after)
    else:
        yield field, before, after


def _compare_lists(
    field: str, before: Sequence[Any], after: Sequence[Any]
) -> Iterator[tuple[str, Any, Any]]:
    gone = [each for each in before if each not in after]
    new = [each for each in after if each not in before]
    if not gone and not new:
        yield f"{field} (order)", list(before), list(after)
    for each in gone:
        yield field, each, None
    for each in new:
        yield field, None, each


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_shown(each) for each in value) or "nothing"
    return str(value) or "nothing"
