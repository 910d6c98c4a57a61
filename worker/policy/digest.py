"""The content hash of a policy: equal hashes judge alike.

In the hash is what reaches the model or decides the outcome: name, passes, adapter, thresholds,
THINK, actions, ``on_undecided``, ``judged``, the prefilter with its lists; the description only
where it is rendered (free text). Left out is what does neither: version, owner, topics, languages,
cache, candidate, examples, file. Defaults are filled in first, so spelling one out changes nothing;
order counts only where the model sees it.
"""

from __future__ import annotations

import hashlib
from typing import Any, get_args

import msgspec

from worker.contracts.verdict import Severity
from worker.guard.taxonomy import FLOOR
from worker.policy.model import Policy, Prefilter, PrefilterList

_FORMAT = 1


def digest(policy: Policy) -> str:
    """SHA-256 (64 hex digits) of the canonical form."""
    encoded = msgspec.json.encode(canonical_form(policy), order="sorted")
    return hashlib.sha256(encoded).hexdigest()


def canonical_form(policy: Policy) -> dict[str, Any]:
    """What is hashed, as plain values."""
    form: dict[str, Any] = {
        "format": _FORMAT,
        "name": policy.name,
        "builtin": _builtin(policy),
        "custom": _custom(policy),
        # By its content: what lies under a path may change.
        "adapter": policy.adapter_sha256 or policy.adapter,
        "think": _think(policy),
        "threshold": policy.thresholds.unsafe,
        "actions": {
            "default": policy.actions.default,
            **{
                severity: policy.actions.severity.get(severity, policy.actions.default)
                for severity in get_args(Severity)
            },
        },
        "on_undecided": policy.on_undecided,
    }
    if policy.custom is not None and not policy.custom.taxonomy:
        form["description"] = policy.description
    if policy.judged != "turn":
        form["judged"] = policy.judged
    if policy.prefilter is not None:
        form["prefilter"] = _prefilter(policy.prefilter)
    return form


def _builtin(policy: Policy) -> dict[str, Any] | None:
    if not policy.builtin.enabled:
        return None
    severity = policy.builtin.severity.items()
    return {
        "suppress": sorted(policy.builtin.suppress),
        "severity": {name: level for name, level in severity if level != "high" and name != FLOOR},
    }


def _custom(policy: Policy) -> dict[str, Any] | None:
    custom = policy.custom
    if custom is None:
        return None
    if custom.taxonomy:
        return {"taxonomy": [msgspec.to_builtins(each) for each in custom.taxonomy]}
    return {
        "disallowed": custom.disallowed,
        "allowed": custom.allowed,
        "severity": custom.severity,
    }


def _prefilter(prefilter: Prefilter) -> dict[str, Any]:
    """Lists by name; a file by the digest of its entries, for there may be very many."""
    return {
        "judge_too": prefilter.judge_too,
        "allow": sorted(prefilter.allow),
        "allow_file": _entries(prefilter.loaded),
        "lists": {each.name: _list(each) for each in prefilter.lists},
    }


def _list(each: PrefilterList) -> dict[str, Any]:
    how = {"distance": each.distance} if each.of_images else {"match": each.match}
    return {
        "decide": each.decide,
        "category": each.category,
        "severity": each.severity,
        "entries": sorted((*each.phrases, *each.images)),
        "file": _entries(each.loaded),
        **how,
    }


def _entries(loaded: tuple[str, ...]) -> str | None:
    if not loaded:
        return None
    return hashlib.sha256("\n".join(sorted(loaded)).encode()).hexdigest()


def _think(policy: Policy) -> dict[str, Any] | None:
    think = policy.think
    if think.when == "never":
        return None
    form: dict[str, Any] = {
        "when": think.when,
        "max_tokens": think.max_tokens,
        "deadline_ms": think.deadline_ms,
    }
    if think.when == "uncertain":
        form["band"] = think.band
    return form
