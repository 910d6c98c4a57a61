"""The memory plan: what stays on a card, what the widest moment adds, and whether it fits.

    needed = held for good + the widest of the moments that take turns

Held are weights, policies, embeddings, traces and long contexts; the moments are a batch's layers,
its logits, its categories, a batch of images, a policy being computed. The device does one at a
time. Arithmetic only: every term is an upper bound of what the engine allocates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from worker.judge.engine import plan_work as work
from worker.judge.engine.plan_sizes import Body, Sizes, kv_bytes, weights

GIB = 1024**3
CUDA_CONTEXT = GIB // 2
"""Assumed, not measured: the CUDA context, the libraries' code and their workspaces."""
LONG_AT_ONCE = 4
"""Long contexts whose keys exist at once: two that take turns, one that is read, and one of them a
second time while a piece joins it."""
IMAGES = 16
"""Images in one forward of the vision tower."""
EVENT = 512
"""Own tokens of an event in the THINK lane: an image, a message and the constant text behind it."""


@dataclass(frozen=True)
class Policy:
    """A prefix that is to be kept: its tokens, and the adapter it is judged with."""

    tokens: int
    adapter: str | None = None


@dataclass(frozen=True)
class Demand:
    """What the settings and policies ask for. ``element`` is bytes of a number of the model.

    ``think_tokens`` is the longest trace any policy may write, 0 where none thinks; ``host`` tells
    a CPU from a card, ``other`` is what the process takes there besides the judge.
    """

    sizes: Sizes
    element: int
    body: Body = "model"
    max_batch: int = 32
    max_batch_tokens: int = 16_384
    prefill_tokens: int = 4096
    max_context: int = 8192
    prefix_bytes: int = 2 * GIB
    image_bytes: int = GIB // 4
    image_keys_bytes: int = GIB // 4
    think_lane: int = 64
    think_tokens: int = 0
    event_tokens: int = EVENT
    policies: tuple[Policy, ...] = ()
    adapters: int = 0
    other: int = CUDA_CONTEXT
    host: bool = False

    @property
    def kernel(self) -> work.Kernel:
        return work.KERNELS["cpu" if self.host else "cuda"]

    @property
    def context(self) -> int:
        """The longest context, as the model bounds it."""
        return min(self.max_context, self.sizes.positions)

    @property
    def replicas(self) -> int:
        """Models that are loaded: one for every adapter of a policy, and the one without."""
        return 1 + self.adapters

    def kept(self, policy: Policy) -> int:
        """Bytes of one policy's keys and values."""
        held = self.sizes.window - 1
        return kv_bytes(self.sizes, policy.tokens, self.element, held=held)


@dataclass(frozen=True)
class Part:
    """One line of the plan. Of the parts that are a ``moment``, the widest counts."""

    name: str
    bytes: int
    detail: str = ""
    moment: bool = False


@dataclass(frozen=True)
class Plan:
    """What a demand takes of ``card`` bytes. ``recomputed`` policies exceed their budget."""

    demand: Demand
    card: int
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
    def fits(self) -> bool:
        return self.needed <= self.card


def plan(demand: Demand, card: int) -> Plan:
    """Every part of a demand."""
    pinned, recomputed = _policies(demand)
    parts = (*_weights(demand), *_held(demand, pinned), *_moments(demand, recomputed))
    return Plan(demand, card, parts, len(recomputed))


def _weights(demand: Demand) -> list[Part]:
    each = weights(demand.sizes, demand.element, demand.body)
    count = demand.replicas
    times = f" x {count} replicas" if count > 1 else ""
    form = {4: "float32", 2: "bfloat16"}[demand.element]
    body = form if demand.body == "model" else demand.body
    return [
        Part("text body", each.body * count, f"{demand.sizes.layers} layers in {body}{times}"),
        Part("embedding", each.embedding * count, f"{form}; the head too{times}"),
        Part("vision tower", each.vision * count, f"{form}{times}"),
        Part("projector", each.projector * count, f"{form}{times}"),
        Part("norms' gains", each.engine * count, f"float32 copies{times}"),
    ]


def _held(demand: Demand, pinned: list[Policy]) -> list[Part]:
    sizes, element = demand.sizes, demand.element
    where = "Python and its libraries, buffers" if demand.host else "CUDA context, assumed"
    tokens = sum(policy.tokens for policy in pinned)
    parts = [
        Part("process" if demand.host else "runtime", demand.other, where),
        Part(
            "policies",
            sum(demand.kept(policy) for policy in pinned),
            f"{len(pinned)} prefixes of {tokens} tokens in all",
        ),
        Part("image embeddings", demand.image_bytes * demand.replicas, "judge.image_bytes"),
        Part("image keys", demand.image_keys_bytes * demand.replicas, "judge.image_keys_bytes"),
    ]
    if demand.context > demand.prefill_tokens:
        held = sizes.window - 1 + work.SLACK
        one = kv_bytes(sizes, demand.context, element, held=held)
        detail = f"judge.max_context {demand.context}, {LONG_AT_ONCE} at once"
        parts.append(Part("long contexts", LONG_AT_ONCE * one, detail))
    if demand.think_tokens:
        lane, own = demand.think_lane, demand.event_tokens
        row = kv_bytes(sizes, own, element, held=sizes.window - 1 + work.SLACK)
        room = own + demand.think_tokens + work.GUESSED + work.SLACK
        slots = _power_of_two(lane) * kv_bytes(sizes, room, element)
        detail = f"judge.think_lane {lane}: {own} + {demand.think_tokens} tokens each"
        parts.append(Part("THINK lane", lane * row + slots, detail))
    return parts


def _moments(demand: Demand, recomputed: list[Policy]) -> list[Part]:
    sizes, element, body = demand.sizes, demand.element, demand.body
    longest = max((policy.tokens for policy in demand.policies), default=0)
    rows = demand.max_batch
    tokens = max(demand.max_batch_tokens, demand.prefill_tokens)
    batch = work.Batch(
        rows=rows,
        tokens=tokens + rows * work.ASKED,
        longest=demand.prefill_tokens + work.ASKED,
        policy=longest,
        past=max(0, demand.context - demand.prefill_tokens),
        host=demand.host,
    )
    # What is pinned by no budget is there while its batch is.
    again = sum(sorted((demand.kept(each) for each in recomputed), reverse=True)[:rows])
    images = min(IMAGES, rows)
    layers = work.forward(sizes, batch, element, body, demand.kernel)
    prefix = work.prefix(sizes, longest, element, body, demand.kernel, demand.host)
    named = work.naming(sizes, batch, element, body)
    size = f"{rows} events, {tokens} tokens"
    return [
        Part("a batch's layers", layers + again, size, moment=True),
        Part("a batch's logits", work.logits(sizes, batch, element) + again, size, moment=True),
        Part("a batch's categories", named + again, size, moment=True),
        Part("images", work.vision(sizes, images, element), f"{images} at once", moment=True),
        Part("a policy computed", prefix, f"{longest} tokens", moment=True),
    ]


def _policies(demand: Demand) -> tuple[list[Policy], list[Policy]]:
    """What ``judge.prefix_bytes`` pins, by adapter and in order, and what it does not."""
    pinned: list[Policy] = []
    recomputed: list[Policy] = []
    used: dict[str | None, int] = {}
    for policy in demand.policies:
        bytes_ = demand.kept(policy)
        taken = used.get(policy.adapter, 0)
        if taken + bytes_ <= demand.prefix_bytes:
            used[policy.adapter] = taken + bytes_
            pinned.append(policy)
        else:
            recomputed.append(policy)
    return pinned, recomputed


def _power_of_two(count: int) -> int:
    """Slots grow by doubling."""
    return 1 << max(0, count - 1).bit_length()


def more(demand: Demand, **changes: object) -> Demand:
    """The same demand with other settings."""
    return replace(demand, **changes)  # type: ignore[arg-type]
