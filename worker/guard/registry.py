"""The families that are known, and which of them settings and names of models mean."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from worker.guard.base import GuardModel
from worker.guard.llama_guard4 import LLAMA_GUARD4
from worker.guard.nemotron35 import NEMOTRON35

FAMILIES: Final[Mapping[str, GuardModel]] = MappingProxyType(
    {each.name: each for each in (NEMOTRON35, LLAMA_GUARD4)}
)
"""By the name that ``judge.family`` has for them."""
DEFAULT: Final[GuardModel] = NEMOTRON35
"""What is judged with where nothing says otherwise."""
AUTO = "auto"


def recognised(model: str | None) -> GuardModel | None:
    """The family that the name of a model gives away; None where it says nothing."""
    if model is None:
        return None
    return next((each for each in FAMILIES.values() if each.recognises(model)), None)


def choose(family: str, model: str | None) -> GuardModel:
    """The family of ``judge.family``; ``auto`` goes by the model's name, else by the default."""
    return FAMILIES[family] if family != AUTO else recognised(model) or DEFAULT


def canonical_anywhere(name: str) -> str | None:
    """The spelling of a built-in category of any family: what may be a label of a metric."""
    return next((found for each in FAMILIES.values() if (found := each.canonical(name))), None)
