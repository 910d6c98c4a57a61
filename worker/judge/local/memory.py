"""How much memory there is, and whether the worker may start with what these settings ask for."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from worker.errors import ConfigurationError
from worker.judge.engine.plan import CUDA_CONTEXT, GIB, Demand, Plan, Policy, plan
from worker.judge.engine.plan_advice import changes
from worker.judge.engine.plan_sizes import Sizes
from worker.settings import JudgeSettings

# How much memory there is to plan with: of a GPU, or of this machine or container.

_UNITS = {"kib": 1024, "mib": 1024**2, "gib": GIB, "kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1}
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_MEMINFO = Path("/proc/meminfo")


class Card(NamedTuple):
    """``bytes`` to plan with; ``host`` where it is the memory of the CPU."""

    name: str
    bytes: int
    host: bool


def parse_size(text: str) -> int:
    """Bytes of ``8GiB``, ``24 GB``, ``512MiB``; a number alone is GiB.

    Raises:
        ConfigurationError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    unit = _UNITS.get(match[2] or "gib") if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise ConfigurationError(f"{text!r} is no size; write for example 8GiB or 24GB")
    return int(float(match[1]) * unit)


def card_of(device: torch.device) -> Card:
    """What a device offers now: a GPU what is free on it, a CPU all of this machine or container.

    The context that asking makes on a GPU is given back to what is free: the plan counts it.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        return Card(name, min(total, free + CUDA_CONTEXT), False)
    return Card("this machine's memory", host_bytes(), True)


def host_bytes() -> int:
    """Memory of this machine, or what its control group allows of it."""
    total = re.search(r"MemTotal:\s+(\d+) kB", _MEMINFO.read_text(encoding="ascii"))
    assert total is not None
    limits = [int(total[1]) * 1024]
    for file in _CGROUP:
        text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


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
