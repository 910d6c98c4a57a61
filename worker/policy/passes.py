"""The passes of a policy: what is asked of the judge about every event under it."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Literal

import msgspec

from worker.guard import registry
from worker.guard.base import GuardModel
from worker.judgement import Rubric, RubricMode, ThinkPlan
from worker.policy.digest import digest
from worker.policy.floor import assert_floor
from worker.policy.model import CustomPass, Policy
from worker.policy.parse import adapter_path, custom_names

_CACHED = 256


class PolicyPass(msgspec.Struct, frozen=True, kw_only=True):
    """One question about an event: a rubric, when to think, and the adapter that answers.

    ``cache`` says whether the answer to an equal question will do. Of a pass with the source
    ``floor`` only the floor's score counts.
    """

    source: Literal["builtin", "custom", "floor"]
    rubric: Rubric
    think: ThinkPlan
    adapter: str | None = None
    cache: bool = True


_cache: dict[tuple[str, str | None, bool, str], tuple[PolicyPass, ...]] = {}


def passes(policy: Policy) -> tuple[PolicyPass, ...]:
    """The built-in pass, the policy's own and the floor's, in this order, where they run.

    The floor's own pass is added where no built-in pass runs on the weights as they were shipped:
    the stock taxonomy, in a text and on weights that no author of a policy touches. Equal policies
    share equal objects.

    Raises:
        PolicyError: a rubric that does not judge the floor.
    """
    adapter = adapter_path(policy)
    key = (policy.sha256 or digest(policy), adapter, policy.cache, policy.family)
    found = _cache.get(key)
    if found is None:
        found = _build(policy, adapter)
        while len(_cache) >= _CACHED:
            _cache.pop(next(iter(_cache)))
        _cache[key] = found
    return found


def _build(policy: Policy, adapter: str | None) -> tuple[PolicyPass, ...]:
    think = ThinkPlan(
        when=policy.think.when,
        threshold=policy.thresholds.unsafe,
        band=policy.think.band,
        max_tokens=policy.think.max_tokens,
        deadline_s=policy.think.deadline_ms / 1_000,
    )
    built: list[PolicyPass] = []
    one = partial(PolicyPass, think=think, adapter=adapter, cache=policy.cache)
    if policy.builtin.enabled:
        built.append(
            one(source="builtin", rubric=builtin_rubric(policy.builtin.suppress, policy.guard))
        )
    if policy.custom is not None:
        built.append(one(source="custom", rubric=custom_rubric(policy, policy.custom)))
    if not policy.builtin.enabled or adapter is not None:
        built.append(
            PolicyPass(
                source="floor",
                rubric=builtin_rubric((), policy.guard),
                think=ThinkPlan(),
                cache=policy.cache,
            )
        )
    for each in built:
        assert_floor(each.rubric, policy.guard)
    return tuple(built)


def builtin_rubric(suppress: tuple[str, ...], guard: GuardModel = registry.DEFAULT) -> Rubric:
    """The stock taxonomy, or what is left of it."""
    text = guard.builtin_text(suppress)
    names = tuple(name for name in guard.names if name not in suppress or name == guard.floor)
    return make_rubric("builtin" if text is None else "taxonomy", text, names)


def custom_rubric(policy: Policy, custom: CustomPass) -> Rubric:
    """A policy's own words: a taxonomy, or free text in the family's shape."""
    guard = policy.guard
    names = (*custom_names(custom), guard.floor)
    if custom.taxonomy:
        text = guard.taxonomy_text([(category.name, category.note) for category in custom.taxonomy])
        return make_rubric("taxonomy", text, names)
    text = guard.policy_text(policy.name, policy.description, custom.disallowed, custom.allowed)
    return make_rubric("policy", text, names)


def make_rubric(mode: RubricMode, text: str | None, categories: tuple[str, ...]) -> Rubric:
    """A rubric with its digest: SHA-256 of the mode, a null byte and the text."""
    content = f"{mode}\0{text or ''}".encode()
    return Rubric(
        mode=mode, text=text, categories=categories, sha256=hashlib.sha256(content).hexdigest()
    )
