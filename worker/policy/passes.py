"""The passes of a policy: what is asked of the judge about every event under it."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Literal

import msgspec

from worker.guard.render import builtin_taxonomy, custom_policy, custom_taxonomy
from worker.guard.taxonomy import BUILTIN, FLOOR
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


_cache: dict[tuple[str, str | None, bool], tuple[PolicyPass, ...]] = {}


def passes(policy: Policy) -> tuple[PolicyPass, ...]:
    """The built-in pass, the policy's own and the floor's, in this order, where they run.

    The floor's own pass is added where no built-in pass runs on the weights as they were shipped:
    the stock taxonomy, in a text and on weights that no author of a policy touches. Equal policies
    share equal objects.

    Raises:
        PolicyError: a rubric that does not judge the floor.
    """
    adapter = adapter_path(policy)
    key = (policy.sha256 or digest(policy), adapter, policy.cache)
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
        built.append(one(source="builtin", rubric=builtin_rubric(policy.builtin.suppress)))
    if policy.custom is not None:
        built.append(one(source="custom", rubric=custom_rubric(policy, policy.custom)))
    if not policy.builtin.enabled or adapter is not None:
        built.append(
            PolicyPass(
                source="floor", rubric=builtin_rubric(()), think=ThinkPlan(), cache=policy.cache
            )
        )
    for each in built:
        assert_floor(each.rubric)
    return tuple(built)


def builtin_rubric(suppress: tuple[str, ...]) -> Rubric:
    """The stock taxonomy, or what is left of it."""
    text = builtin_taxonomy(suppress)
    names = tuple(name for name in BUILTIN if name not in suppress or name == FLOOR)
    return make_rubric("builtin" if text is None else "taxonomy", text, names)


def custom_rubric(policy: Policy, custom: CustomPass) -> Rubric:
    """A policy's own words: a taxonomy, or free text in the model card's shape."""
    names = (*custom_names(custom), FLOOR)
    if custom.taxonomy:
        text = custom_taxonomy([(category.name, category.note) for category in custom.taxonomy])
        return make_rubric("taxonomy", text, names)
    text = custom_policy(policy.name, policy.description, custom.disallowed, custom.allowed)
    return make_rubric("policy", text, names)


def make_rubric(mode: RubricMode, text: str | None, categories: tuple[str, ...]) -> Rubric:
    """A rubric with its digest: SHA-256 of the mode, a null byte and the text."""
    content = f"{mode}\0{text or ''}".encode()
    return Rubric(
        mode=mode, text=text, categories=categories, sha256=hashlib.sha256(content).hexdigest()
    )
