"""The memory plan of these settings: what they ask for, and whether the worker may start."""

from __future__ import annotations

import logging
from typing import Any

import torch

from worker.errors import ConfigurationError
from worker.judge.card import Card, card_of
from worker.judge.engine.plan import CUDA_CONTEXT, GIB, Demand, Plan, Policy, plan
from worker.judge.engine.plan_advice import changes
from worker.judge.engine.plan_sizes import Sizes
from worker.settings import JudgeSettings

logger = logging.getLogger(__name__)

PROCESS = 730 * 1024**2
"""Resident bytes of Python with the worker and its libraries, no model: measured with Python 3.11,
torch 2.13 (CPU) and transformers 5.17."""


def demand(
    settings: JudgeSettings,
    config: Any,
    element: int,
    *,
    host: bool,
    policies: tuple[Policy, ...] = (),
    adapters: int = 0,
    think_tokens: int = 0,
    buffers: int = 0,
) -> Demand:
    """What settings ask of a ``Gemma3Config`` in numbers of ``element`` bytes.

    ``adapters`` are those of policies, ``buffers`` what the process keeps beside the judge.
    """
    return Demand(
        sizes=Sizes.of(config),
        element=element,
        body=settings.numerics,
        max_batch=settings.max_batch,
        max_batch_tokens=settings.max_batch_tokens,
        prefill_tokens=settings.prefill_tokens,
        max_context=settings.max_context,
        prefix_bytes=settings.prefix_bytes,
        image_bytes=settings.image_bytes,
        image_keys_bytes=settings.image_keys_bytes,
        think_lane=settings.think_lane,
        think_tokens=think_tokens,
        policies=policies,
        adapters=adapters,
        other=PROCESS + settings.cache_bytes + buffers if host else CUDA_CONTEXT,
        host=host,
    )


def refuse_too_large(
    settings: JudgeSettings, config: Any, device: torch.device, dtype: torch.dtype
) -> None:
    """Before anything is loaded: refuse settings that the device cannot hold.

    Policies, adapters and traces come later and are not counted. On a CPU only what is held for
    good is refused, since nobody may ever send the widest batch; it is warned of.

    Raises:
        ConfigurationError: names the settings to change, with values that fit.
    """
    if settings.engine != "packed":
        return
    card = card_of(device)
    asked = demand(settings, config, dtype.itemsize, host=card.host)
    made = plan(asked, card.bytes)
    if made.fits:
        return
    message = explain(made, card)
    if card.host and made.held <= card.bytes:
        logger.warning("the widest batch may not fit: %s", message)
        return
    raise ConfigurationError(message)


def explain(made: Plan, card: Card) -> str:
    """Why a plan does not fit, and what to change so that it does."""
    found = changes(made.demand, card.bytes)
    short = f"{made.needed / GIB:.2f} GiB are needed and {card.name} has {card.bytes / GIB:.2f} GiB"
    if not found:
        return f"{short}; no settings make this model fit: take a larger card"
    *most, last = (str(change) for change in found)
    return f"{short}; set {', '.join(most)} and {last}"
