"""A policy back as YAML: what people would have written, defaults left out."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from worker.policy.model import Policy, PrefilterList

_ALWAYS = ("name", "version", "owner", "topics")
_NEVER = ("sha256", "file", "family")


def dump_policy(policy: Policy) -> str:
    """YAML that ``parse_policy`` reads back to an equal policy."""
    fields = msgspec.to_builtins(policy)
    kept: dict[str, Any] = {name: fields[name] for name in _ALWAYS}
    defaults = msgspec.to_builtins(Policy(name=policy.name, version=1, owner="", topics=()))
    for name, value in fields.items():
        if name not in _NEVER and name not in kept and value != defaults[name]:
            if name == "prefilter":
                kept[name] = _prefilter(value)
                continue
            kept[name] = _without_defaults(value, _base(name, defaults))
    return yaml.safe_dump(_lists(kept), sort_keys=False, allow_unicode=True, width=100)


_CUSTOM = {"disallowed": (), "allowed": (), "taxonomy": (), "severity": "high"}
_PREFILTER = {"lists": (), "allow": (), "allow_file": None, "judge_too": False}
_LIST = msgspec.to_builtins(PrefilterList(name="", decide="reason"))
_EXAMPLE = {"response": None, "image": None, "categories": (), "checkpoint": None}


def _prefilter(fields: dict[str, Any]) -> dict[str, Any]:
    """What the files hold stays in them."""
    kept: dict[str, Any] = _without_defaults(fields, _PREFILTER)
    kept["lists"] = [
        {"name": each["name"], "decide": each["decide"], **_without_defaults(each, _LIST)}
        for each in fields["lists"]
    ]
    for each in (kept, *kept["lists"]):
        each.pop("loaded", None)
    return kept


def _base(name: str, defaults: dict[str, Any]) -> Any:
    return {"custom": _CUSTOM, "examples": _EXAMPLE}.get(name, defaults[name])


def _without_defaults(value: Any, base: Any) -> Any:
    if isinstance(value, dict) and isinstance(base, dict):
        return {key: each for key, each in value.items() if key not in base or each != base[key]}
    if isinstance(value, list | tuple) and isinstance(base, dict):
        return [_without_defaults(each, base) for each in value]
    return value


def _lists(value: Any) -> Any:
    """Tuples as lists: YAML has one kind of sequence."""
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_lists(each) for each in value]
    return value
