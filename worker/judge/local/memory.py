"""Fitting a card: how much memory there is, what the judge takes of it, and what gives way.

    needed = held for good + the widest of the moments that take turns

Held are weights, policies, images, traces and long contexts; the moments are a batch of events, its
decoding, a batch of images, a policy that goes live. The device does one at a time. The bytes come
from the engine itself (``engine.memory``). Settings that nobody set are lowered until they fit;
those that somebody set are obeyed, or refused with what to change.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from worker.errors import ConfigurationError
from worker.judge.engine.backend import BackendName
from worker.judge.engine.backends import choose
from worker.judge.engine.decode_batch import MAX_DRAFT_TOKENS
from worker.judge.engine.memory import MemoryProfile, profile
from worker.judge.local.scheduler import LONG_CONTEXTS
from worker.settings import JudgeSettings

logger = logging.getLogger(__name__)

GIB = 1024**3
CUDA_CONTEXT = GIB // 2
"""Assumed where no card can be asked: the CUDA context, the libraries' code and their
workspaces."""
PROCESS = 730 * 1024**2
"""Resident bytes of Python with the worker and its libraries, no model: measured with Python 3.11,
torch 2.13 (CPU) and transformers 5.17."""
LONG_COPIES = LONG_CONTEXTS + 2
"""Long contexts whose keys exist at once: those that take turns, one that is scored, and one of
them a second time while a chunk joins it."""
EVENT = 512
"""Assumed own tokens of an event in the THINK lane: an image, a message, the constant text."""
TRACE = 400
"""Assumed tokens of a trace, before any policy is known."""

_UNITS = {"kib": 1024, "mib": 1024**2, "gib": GIB, "kb": 10**3, "mb": 10**6, "gb": 10**9, "b": 1}
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_MEMINFO = Path("/proc/meminfo")

_MIB = 1024**2
GIVES_WAY: tuple[tuple[str, int], ...] = (
    ("think_lane", 32), ("max_batch_tokens", 8192), ("think_lane", 16),
    ("prefix_bytes", 1024 * _MIB), ("image_keys_bytes", 128 * _MIB), ("think_lane", 8),
    ("max_batch_tokens", 4096), ("prefill_tokens", 2048), ("prefix_bytes", 512 * _MIB),
    ("think_lane", 4), ("image_bytes", 64 * _MIB), ("image_keys_bytes", 64 * _MIB),
    ("max_batch_tokens", 2048), ("prefill_tokens", 1024), ("max_batch", 16),
    ("prefix_bytes", 256 * _MIB), ("think_lane", 2), ("max_batch_tokens", 1024),
    ("prefill_tokens", 512), ("max_batch", 4), ("prefix_bytes", 128 * _MIB), ("think_lane", 1),
    ("image_bytes", 16 * _MIB), ("image_keys_bytes", 0), ("max_batch_tokens", 512),
    ("prefill_tokens", 256), ("max_batch", 1), ("prefix_bytes", 64 * _MIB),
)  # fmt: skip
"""What is given up on a smaller card, in this order: traces at once, then tokens of a batch, then
what is kept between events. ``max_context`` is not: it decides what is judged."""


class Card(NamedTuple):
    """``bytes`` to plan with; ``host`` where it is the memory of the CPU."""

    name: str
    bytes: int
    host: bool


class Policy(NamedTuple):
    """A prefix that is to be kept: its tokens, and the adapter it is judged with."""

    tokens: int
    adapter: str | None = None


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


@dataclass(frozen=True)
class Demand:
    """What settings and policies ask of one model. ``policies`` is None before any is known: then
    their whole budget is planned, and traces of an assumed length.

    ``think_tokens`` is the longest trace any policy may write, 0 where none thinks; ``other`` is
    what the process takes on the card besides the judge.
    """

    settings: JudgeSettings
    config: Any
    dtype: torch.dtype
    backend: BackendName
    host: bool
    policies: tuple[Policy, ...] | None = None
    adapters: int = 0
    think_tokens: int = TRACE
    event_tokens: int = EVENT
    other: int = CUDA_CONTEXT

    @property
    def profile(self) -> MemoryProfile:
        return profile(self.config, self.dtype, self.settings.numerics, self.backend)

    @property
    def context(self) -> int:
        """The longest context, as the model bounds it."""
        positions: int = self.config.text_config.max_position_embeddings
        return min(self.settings.max_context, positions)

    def with_settings(self, **values: object) -> Demand:
        return replace(self, settings=self.settings.model_copy(update=values))


@dataclass(frozen=True)
class Part:
    """One line of the plan. Of the parts that are a ``moment``, the widest counts."""

    name: str
    bytes: int
    detail: str = ""
    moment: bool = False


@dataclass(frozen=True)
class Plan:
    """What a demand takes of a card. ``recomputed`` policies exceed their budget."""

    demand: Demand
    card: Card
    parts: tuple[Part, ...]
    recomputed: int = 0

    @property
    def held(self) -> int:
        return sum(part.bytes for part in self.parts if not part.moment)

    @property
    def widest(self) -> Part:
        """The moment that takes most."""
        return max((part for part in self.parts if part.moment), key=lambda part: part.bytes)

    @property
    def needed(self) -> int:
        return self.held + self.widest.bytes

    @property
    def usable(self) -> int:
        """Bytes of the card that may be planned with."""
        return int(self.card.bytes * self.demand.settings.memory_utilization)

    @property
    def fits(self) -> bool:
        return self.needed <= self.usable


def plan(demand: Demand, card: Card) -> Plan:
    """Every part of a demand."""
    pinned, recomputed = _pinned(demand)
    parts = (*_weights(demand), *_held(demand, pinned), *_moments(demand, recomputed))
    return Plan(demand, card, parts, len(recomputed))


def fitted(demand: Demand, card: Card) -> Plan:
    """The plan with settings that nobody set lowered until it fits, or as far as they go."""
    return _lowered(demand, card, demand.settings.model_fields_set)


def changes(short: Plan) -> dict[str, tuple[str, str]]:
    """Settings to change where even ``fitted`` does not fit: the value each has, and one that fits
    together with the others; empty where no settings help."""
    for extra in ({}, {"numerics": "w8a16"}, {"numerics": "w8a16", "dtype": "bfloat16"}):
        demand = short.demand.with_settings(**extra)
        if "dtype" in extra:
            demand = replace(demand, dtype=torch.bfloat16)
        found = _lowered(demand, short.card, frozenset())
        if found.fits:
            names = dict.fromkeys((*extra, *(name for name, _ in GIVES_WAY)))
            pairs = {
                name: (
                    str(getattr(short.demand.settings, name)),
                    str(getattr(found.demand.settings, name)),
                )
                for name in names
            }
            return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return {}


def _lowered(demand: Demand, card: Card, fixed: frozenset[str] | set[str]) -> Plan:
    """With as few rungs of ``GIVES_WAY`` as it takes; each lowers what is needed, so the number is
    found by halving."""

    def with_rungs(count: int) -> Plan:
        values = {
            name: value
            for name, value in GIVES_WAY[:count]
            if name not in fixed and getattr(demand.settings, name) > value
        }
        return plan(demand.with_settings(**values) if values else demand, card)

    made = with_rungs(0)
    if made.fits:
        return made
    low, high, best = 0, len(GIVES_WAY), with_rungs(len(GIVES_WAY))
    if not best.fits:
        return best
    while high - low > 1:
        middle = (low + high) // 2
        made = with_rungs(middle)
        low, high, best = (low, middle, made) if made.fits else (middle, high, best)
    return best


def fit(
    settings: JudgeSettings, config: Any, device: torch.device, dtype: torch.dtype
) -> JudgeSettings:
    """Before anything is loaded: settings that the device can hold, those that were set unchanged.

    Policies come later: their budget is planned. On a CPU only what is held for good is refused,
    since nobody may ever send the widest batch; it is warned of.

    Raises:
        ConfigurationError: they cannot be held; names what to change, with values that fit.
    """
    if settings.engine != "packed":
        return settings
    card = card_of(device)
    demand = Demand(
        settings, config, dtype, choose(settings.attention, device), card.host,
        other=process_bytes(settings) if card.host else CUDA_CONTEXT,
    )  # fmt: skip
    made = fitted(demand, card)
    if not made.fits:
        message = explain(made)
        if not (card.host and made.held <= made.usable):
            raise ConfigurationError(message)
        logger.warning("the widest batch may not fit: %s", message)
    lowered = [
        f"{name} {getattr(made.demand.settings, name)} (default {getattr(settings, name)})"
        for name in dict.fromkeys(name for name, _ in GIVES_WAY)
        if getattr(made.demand.settings, name) != getattr(settings, name)
    ]
    logger.info(
        "the judge takes up to %.2f of %.2f GiB: %s%s",
        made.needed / GIB,
        card.bytes / GIB,
        card.name,
        "; to fit, judge." + ", judge.".join(lowered) if lowered else "",
    )
    return made.demand.settings


def process_bytes(settings: JudgeSettings, buffers: int = 0) -> int:
    """What the process takes of a CPU's memory besides the judge."""
    return PROCESS + settings.cache_bytes + buffers


def explain(made: Plan) -> str:
    """Why a plan does not fit, and what to change so that it does."""
    found = [f"judge.{name} {to} (is {now})" for name, (now, to) in changes(made).items()]
    short = (
        f"{made.needed / GIB:.2f} GiB are needed and {made.card.name} has "
        f"{made.card.bytes / GIB:.2f} GiB, of which {made.usable / GIB:.2f} may be used "
        "(judge.memory_utilization)"
    )
    if not found:
        return f"{short}; no settings make this model fit: take a larger card"
    *most, last = found
    return f"{short}; set {', '.join(most)}{' and ' if most else ''}{last}"


def _weights(demand: Demand) -> list[Part]:
    replicas = 1 + demand.adapters
    times = f" x {replicas} replicas" if replicas > 1 else ""
    form = str(demand.dtype).removeprefix("torch.")
    body = form if demand.settings.numerics == "model" else demand.settings.numerics
    layers = demand.config.text_config.num_hidden_layers
    details = {"text body": f"{layers} layers in {body}", "embedding": f"{form}; the head too"}
    return [
        Part(name, each * replicas, details.get(name, form) + times)
        for name, each in demand.profile.weights().items()
    ]


def _held(demand: Demand, pinned: Sequence[Policy] | None) -> list[Part]:
    settings, replicas = demand.settings, 1 + demand.adapters
    where = "Python and its libraries, buffers" if demand.host else "CUDA context, assumed"
    if pinned is None:
        policies, detail = settings.prefix_bytes * replicas, "judge.prefix_bytes"
    else:
        policies = sum(demand.profile.prefix(each.tokens) for each in pinned)
        tokens = sum(each.tokens for each in pinned)
        detail = f"{len(pinned)} prefixes of {tokens} tokens in all"
    parts = [
        Part("process" if demand.host else "runtime", demand.other, where),
        Part("policies", policies, detail),
        Part("image embeddings", settings.image_bytes * replicas, "judge.image_bytes"),
        Part("image keys", settings.image_keys_bytes * replicas, "judge.image_keys_bytes"),
    ]
    if demand.context > settings.prefill_tokens:
        detail = f"judge.max_context {demand.context}, {LONG_COPIES} at once"
        parts.append(
            Part("long contexts", LONG_COPIES * demand.profile.known(demand.context), detail)
        )
    if demand.think_tokens:
        lane, own = settings.think_lane, demand.event_tokens
        # What a trace goes on from is there until it has its slot.
        slots = demand.profile.lane(_doubled(lane), own, demand.think_tokens + MAX_DRAFT_TOKENS)
        detail = f"judge.think_lane {lane}: {own} + {demand.think_tokens} tokens each"
        parts.append(Part("THINK lane", lane * demand.profile.known(own) + slots, detail))
    return parts


def _moments(demand: Demand, recomputed: Sequence[Policy]) -> list[Part]:
    settings, moment = demand.settings, demand.profile.moment
    policies = demand.policies or ()
    longest = max((each.tokens for each in policies), default=0)
    rows, chunk = settings.max_batch, settings.prefill_tokens
    tokens = max(settings.max_batch_tokens, chunk)
    past = max(0, demand.context - chunk)
    # What is pinned by no budget is there while its batch is.
    again = sum(sorted(demand.profile.prefix(each.tokens) for each in recomputed)[-rows:])
    size = f"{rows} events, {tokens} tokens"
    parts = [
        Part("a batch", moment("batch", rows, tokens, chunk, longest, past) + again, size, True),
        Part("its categories", moment("decoding", rows, tokens) + again, size, True),
        Part("images", moment("images", rows), f"{rows} events", True),
    ]
    if longest:
        parts.append(
            Part("a policy computed", moment("policy", longest), f"{longest} tokens", True)
        )
    return parts


def _pinned(demand: Demand) -> tuple[list[Policy] | None, list[Policy]]:
    """What ``judge.prefix_bytes`` pins, by adapter and in order, and what it does not."""
    if demand.policies is None:
        return None, []
    pinned: list[Policy] = []
    recomputed: list[Policy] = []
    used: dict[str | None, int] = {}
    for each in demand.policies:
        taken = used.get(each.adapter, 0) + demand.profile.prefix(each.tokens)
        if taken <= demand.settings.prefix_bytes:
            used[each.adapter] = taken
            pinned.append(each)
        else:
            recomputed.append(each)
    return pinned, recomputed


def _doubled(count: int) -> int:
    """Slots grow by doubling."""
    return 1 << max(0, count - 1).bit_length()
