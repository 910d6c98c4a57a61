"""Attention in torch operators: the backends ``cpu`` and ``reference``.

Attention is computed in parts that are merged exactly. Softmax over the union of two sets of keys
follows from the softmax over each and its log-sum-exp ``l`` (the identity behind FlashAttention and
Hydragen, arXiv 2402.05099)::

    out = (e^l1 out1 + e^l2 out2) / (e^l1 + e^l2)

So the queries of all sequences meet a policy's keys once, as one long matrix, and each sequence
meets its own keys in a padded call for sequences of like length. The two backends differ in the
kernel alone: the CPU's flash attention, or plain matrix products on any device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from worker.judge.engine.backend import BackendName, Rotation
from worker.judge.engine.batch import InputSequence, VarlenBatch
from worker.judge.engine.kv_cache import (
    KVSegment,
    KVSlots,
    LayerKV,
    Layout,
    PrefixKV,
    Slot,
    segment_of,
)
from worker.judge.engine.model import Layer, Shape, TextWeights
from worker.judge.engine.quantization import Linear, product

LAYOUT: Layout = "heads first"

PADDED_TOGETHER = 0.7
"""Sequences are padded together where the shorter has at least this share of the longer one's
tokens."""

BLIND = float("-inf")
"""Log-sum-exp of a query that sees none of the keys: its part has no weight."""

NOWHERE = 1 << 30
"""Place of padding in a slot: behind everything, so that nothing real sees it."""


# Kernels: (batch, heads, queries, head_dim) and the log-sum-exp (batch, heads, queries).

Kernel = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def cpu_flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The CPU's flash attention. ``mask`` is added to the scores: 0 or -inf, in the dtype of
    ``query``; every query has to see a key, or its row means nothing."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=mask, scale=scale
    )
    return out, lse


def matrix_products(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same spelled out in matrix products: what every kernel has to equal."""
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if mask is not None:
        scores = scores + mask
    lse = torch.logsumexp(scores, -1)
    return (scores - lse[..., None]).exp().to(value.dtype) @ value, lse


class Part(NamedTuple):
    """Attention over some of the keys: ``out`` (tokens, heads, head_dim), ``lse`` (tokens, heads)
    in float32."""

    out: torch.Tensor
    lse: torch.Tensor


def fold(query: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """Queries (batch, tokens, heads, head_dim) with the heads of one group under each other.

    (batch, kv_heads, groups x tokens, head_dim): keys need not be repeated for their group.
    """
    batch, tokens, heads, dim = query.shape
    grouped = query.view(batch, tokens, kv_heads, heads // kv_heads, dim)
    return grouped.permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, dim)


def unfold(out: torch.Tensor, lse: torch.Tensor, tokens: int) -> Part:
    """Undo ``fold``: (batch, tokens, heads, head_dim) and (batch, tokens, heads)."""
    batch, kv_heads, _, dim = out.shape
    apart = out.reshape(batch, kv_heads, -1, tokens, dim).permute(0, 3, 1, 2, 4)
    sums = lse.reshape(batch, kv_heads, -1, tokens).permute(0, 3, 1, 2)
    return Part(apart.reshape(batch, tokens, -1, dim), sums.reshape(batch, tokens, -1))


def merge(first: Part, second: Part) -> Part:
    """Attention over both sets of keys."""
    lse = torch.logaddexp(first.lse, second.lse)
    weight = (first.lse - lse).exp()[..., None].to(first.out.dtype)
    other = (second.lse - lse).exp()[..., None].to(first.out.dtype)
    return Part(first.out * weight + second.out * other, lse)


# Masks: who may see which keys, True where a query sees a key.


def causal_masks(
    sequences: Sequence[InputSequence], width: int, window: int, device: torch.device
) -> dict[bool, torch.Tensor]:
    """Of sequences' own tokens, by kind of layer (sliding or not): (sequences or 1, width, width).

    Padding stands behind everything real, so nothing real sees it; what it sees is never looked at.
    """
    index = torch.arange(width, device=device)
    full = (index[:, None] >= index[None, :])[None]
    if any(each.branches or each.image for each in sequences):
        full = full.repeat(len(sequences), 1, 1)
    for place, each in enumerate(sequences):
        for start, end in each.branch_spans():
            full[place, end:, start:end] = False
        if each.image is not None:  # its tokens see each other both ways
            block = slice(each.image.start, each.image.end)
            full[place, block, block] = True
    if width <= window:
        return {False: full, True: full}
    near = full & (index[:, None] - index[None, :] < window)
    for place, each in enumerate(sequences):
        for start, end in each.branch_spans():
            # Positions, not places: every branch begins again behind the sequence's own tokens.
            back = index[: end - start, None] + len(each.ids) - index[None, : len(each.ids)]
            own = full[place, start:end]
            near[place, start:end] = own
            near[place, start:end, : len(each.ids)] &= back < window
    return {False: full, True: near}


class SegmentMask(NamedTuple):
    """What queries see of a segment: an ``added`` mask, and those that are ``blind``, seeing none
    of it; both None where every query sees all."""

    added: torch.Tensor | None = None
    blind: torch.Tensor | None = None


SEES_ALL = SegmentMask()
"""Of layers that do not slide: everything in a segment lies before the queries."""


def window_mask(
    positions: torch.Tensor, first: int, count: int, shape: Shape, dtype: torch.dtype,
    device: torch.device,
) -> SegmentMask | None:  # fmt: skip
    """What queries at ``positions`` (on the host) see in a sliding layer of ``count`` keys from
    position ``first`` on; None where none sees any::

        keys     first ........................ first + count
        sees                  [ window ] ^ query: keys from its position - window + 1 on
    """
    if int(positions.max()) - first < shape.window:
        return SEES_ALL
    blind = positions - (first + count - 1) >= shape.window
    if bool(blind.all()):
        return None
    places, blind = positions.to(device), blind.to(device)
    keys = torch.arange(first, first + count, device=device)
    seen = places[:, None] - keys[None, :] < shape.window
    # A query that sees nothing would be no number: it sees all, and its part gets no weight.
    return SegmentMask(additive((seen | blind[:, None])[None], shape, dtype), blind)


def additive(seen: torch.Tensor, shape: Shape, dtype: torch.dtype) -> torch.Tensor:
    """(sequences, queries, keys) of bool as what is added to folded scores."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    mask.masked_fill_(~seen, BLIND)
    return mask.repeat(1, shape.groups, 1)[:, None]


# Plans.


@dataclass(frozen=True)
class SegmentQueries:
    """Queries ``index`` (a slice of neighbours, or indexes) meet a segment; by kind of layer what
    they see of it, None where nothing."""

    segment: KVSegment
    index: slice | torch.Tensor
    masks: dict[bool, SegmentMask | None]


@dataclass(frozen=True)
class PaddedGroup:
    """Sequences whose own tokens meet in one padded call.

    ``keys`` (sequences, K) and ``queries`` (sequences, Q) index packed tokens and queries. Of the
    sequences x Q results those at ``real`` are no padding, and belong to the packed queries
    ``places``. ``masks`` are additive, by kind of layer.
    """

    keys: torch.Tensor
    queries: torch.Tensor
    real: torch.Tensor
    places: torch.Tensor
    masks: dict[bool, torch.Tensor]


@dataclass(frozen=True)
class Queries:
    """One set of queries: all tokens, or in the last layer those that are wanted."""

    segments: list[SegmentQueries]
    groups: list[PaddedGroup]


@dataclass(frozen=True)
class SlotQueries:
    """New tokens that are padded to one call over all slots, (slots, width).

    ``writes`` are the places in their slots, ``masks`` additive and ``lengths`` the keys looked at,
    by kind of layer.
    """

    slots: KVSlots
    numbers: torch.Tensor
    offsets: torch.Tensor
    width: int
    writes: dict[bool, torch.Tensor]
    masks: dict[bool, torch.Tensor]
    lengths: dict[bool, int]


@dataclass(frozen=True)
class TorchPlan:
    """Implements ``backend.Plan``. ``every`` and ``last`` are the queries of all layers but the
    last, and of the last."""

    batch: VarlenBatch
    ids: torch.Tensor
    positions: torch.Tensor
    wanted: torch.Tensor
    every: Queries
    last: Queries
    slots: SlotQueries | None = None


class TorchBackend:
    """Implements ``backend.Backend`` with torch operators and one attention ``kernel``."""

    def __init__(
        self, name: BackendName, weights: TextWeights, kernel: Kernel, *, compiled: bool = False
    ) -> None:
        self.name: BackendName = name
        self._weights, self._kernel = weights, kernel
        self._before: Any = before_attention
        self._after: Any = after_attention
        if compiled:
            self._before = torch.compile(before_attention, dynamic=True, fullgraph=True)
            self._after = torch.compile(after_attention, dynamic=True, fullgraph=True)

    # Plans.

    def plan(self, batch: VarlenBatch) -> TorchPlan:
        device = self._weights.device
        ids = torch.tensor(batch.ids, device=device)
        for start, image in batch.images:  # their own ids may lie outside the vocabulary
            ids[start + image.start : start + image.end] = 0
        wanted = torch.tensor(batch.wanted, dtype=torch.long, device=device)
        positions = batch.positions.to(device)
        if batch.decoding:
            queries = Queries(self._prefix_queries(batch), [])
            slots = self._slot_queries(batch)
            return TorchPlan(batch, ids, positions, wanted, queries, queries, slots)
        everything = [list(span) for span in batch.spans]
        squares = [self._square(members, batch) for members in _alike(batch.spans)]
        every = self._queries(batch, everything, squares, whole=True)
        last = self._queries(batch, batch.asked, squares, whole=False)
        return TorchPlan(batch, ids, positions, wanted, every, last)

    def _square(self, members: list[int], batch: VarlenBatch) -> _Square:
        width = max(len(batch.spans[n]) for n in members)
        sequences = [batch.sequences[n] for n in members]
        seen = causal_masks(sequences, width, self._weights.shape.window, self._weights.device)
        starts = torch.tensor([batch.spans[n].start for n in members])
        lengths = torch.tensor([len(batch.spans[n]) for n in members])
        return _Square(members, width, starts, lengths, seen)

    def _queries(
        self,
        batch: VarlenBatch,
        asked: Sequence[Sequence[int]],
        squares: Sequence[_Square],
        *,
        whole: bool,
    ) -> Queries:
        """``asked`` are each sequence's queries as packed indexes; ``whole`` where that is all."""
        device = self._weights.device
        firsts = [0, *itertools.accumulate(map(len, asked))]
        groups = []
        for square in squares:
            most = max(len(asked[n]) for n in square.members)
            if most == 0:
                continue
            index = torch.arange(square.width)
            keys = square.starts[:, None] + torch.minimum(index, square.lengths[:, None] - 1)
            queries = torch.zeros((len(square.members), most), dtype=torch.long)
            local = torch.zeros_like(queries)
            real = torch.zeros_like(queries, dtype=torch.bool)
            for place, n in enumerate(square.members):
                count = len(asked[n])
                queries[place, :count] = torch.arange(firsts[n], firsts[n] + count)
                if not whole:
                    local[place, :count] = torch.tensor(asked[n]) - square.starts[place]
                real[place, :count] = True
            seen = square.seen if whole else _asked_for(square.seen, local.to(device))
            groups.append(
                PaddedGroup(
                    keys=keys.to(device),
                    queries=queries.to(device),
                    real=real.flatten().nonzero()[:, 0].to(device),
                    places=queries[real].to(device),
                    masks=self._additive(seen),
                )
            )
        flat = torch.tensor([n for each in asked for n in each], dtype=torch.long)
        return Queries(self._shared(batch, firsts, batch.positions[flat]), groups)

    def _additive(self, seen: dict[bool, torch.Tensor]) -> dict[bool, torch.Tensor]:
        """Both kinds of layers share one mask where the window bounds nothing."""
        shape, dtype = self._weights.shape, self._weights.dtype
        full = additive(seen[False], shape, dtype)
        same = seen[True] is seen[False]
        return {False: full, True: full if same else additive(seen[True], shape, dtype)}

    def _shared(
        self, batch: VarlenBatch, firsts: Sequence[int], positions: torch.Tensor
    ) -> list[SegmentQueries]:
        """One entry for neighbours with the same segment before them; ``firsts``: where each
        sequence's queries begin, ``positions``: those of all queries, on the host."""
        spans: list[tuple[KVSegment, int, int, int]] = []
        most = max((len(each.segments()) for each in batch.sequences), default=0)
        for depth in range(most):
            for each, (start, end) in zip(batch.sequences, itertools.pairwise(firsts), strict=True):
                found = each.segments()
                if depth >= len(found) or start == end:
                    continue
                segment, behind = found[depth]
                if spans and spans[-1][0] is segment and spans[-1][3] == start:
                    start = spans.pop()[2]
                spans.append((segment, behind, start, end))
        return [
            SegmentQueries(
                segment, slice(start, end), self._masks(segment, behind, positions[start:end])
            )
            for segment, behind, start, end in spans
        ]

    def _masks(
        self, segment: KVSegment, behind: int, positions: torch.Tensor
    ) -> dict[bool, SegmentMask | None]:
        """``behind`` is the position behind the segment's last token; every sliding layer holds the
        same ones."""
        masks: dict[bool, SegmentMask | None] = {False: SEES_ALL, True: SEES_ALL}
        weights = self._weights
        if True in weights.sliding:
            count = segment.held(weights.sliding.index(True))
            masks[True] = window_mask(
                positions, behind - count, count, weights.shape, weights.dtype, weights.device
            )
        return masks

    def _prefix_queries(self, batch: VarlenBatch) -> list[SegmentQueries]:
        """The new tokens of every policy with a prefix, wherever their slots are."""
        found: dict[int, tuple[PrefixKV, list[int]]] = {}
        for each, span in zip(batch.sequences, batch.spans, strict=True):
            if each.prefix is not None:
                found.setdefault(id(each.prefix), (each.prefix, []))[1].extend(span)
        queries = []
        for prefix, tokens in found.values():
            index = torch.tensor(tokens)
            masks = self._masks(prefix.kv, prefix.end, batch.positions[index])
            queries.append(SegmentQueries(prefix.kv, index.to(self._weights.device), masks))
        return queries

    def _slot_queries(self, batch: VarlenBatch) -> SlotQueries:
        """What a slot holds ends where its new tokens begin, so a distance between places of its
        buffer is one between positions; a branch begins again behind the sequence's own tokens::

            slot    k k k k k | t t | a a | b b b        a and b begin at one position
            sees    a: k, t, a before it                 b: k, t, b before it
        """
        weights, device = self._weights, self._weights.device
        pasts = [each.past for each in batch.sequences if isinstance(each.past, Slot)]
        slots, numbers = pasts[0].slots, [each.number for each in pasts]
        width = max(map(len, batch.spans))
        places = torch.full((len(slots), width), NOWHERE)
        branches = torch.zeros_like(places)
        for number, each in zip(numbers, batch.sequences, strict=True):
            own = torch.tensor(each.positions()) - each.start
            places[number, : len(own)] = own
            for branch, (start, end) in enumerate(each.branch_spans(), start=1):
                branches[number, start:end] = branch
        places, branches = places.to(device), branches.to(device)
        owner = [n for n, span in zip(numbers, batch.spans, strict=True) for _ in span]
        offsets = [n for span in batch.spans for n in range(len(span))]
        of_token = torch.tensor(owner, device=device)
        offset = torch.tensor(offsets, device=device)
        writes: dict[bool, torch.Tensor] = {}
        masks: dict[bool, torch.Tensor] = {}
        lengths: dict[bool, int] = {}
        for kind in set(weights.sliding):
            held = torch.tensor(slots.held[kind], device=device)
            length = max(slots.held[kind]) + width  # known on the host: nobody waits for it
            new = torch.arange(length, device=device)[None, :] - held[:, None]
            among = new.clamp(0, width - 1)
            keys = torch.where(new < 0, new, places.gather(1, among))[:, None, :]
            of_key = torch.where(new < 0, 0, branches.gather(1, among))[:, None, :]
            keys = torch.where(new[:, None, :] < width, keys, NOWHERE)
            seen = keys <= places[:, :, None]
            seen &= (of_key == 0) | (of_key == branches[:, :, None])
            if kind:
                seen &= places[:, :, None] - keys < weights.shape.window
            masks[kind] = additive(seen, weights.shape, weights.dtype)
            writes[kind], lengths[kind] = held[of_token] + offset, length
        return SlotQueries(slots, of_token, offset, width, writes, masks, lengths)

    # Attention.

    def attend(
        self,
        plan: TorchPlan,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        weights = self._weights
        sliding = weights.sliding[layer]
        last = layer == weights.shape.layers - 1
        queries = plan.last if last else plan.every
        own = Part(out, query.new_empty(query.shape[:2], dtype=torch.float32))
        if plan.slots is not None:
            asked = plan.wanted if last else None
            self._in_slots(plan.slots, layer, sliding, query, key, value, own, asked)
        for group in queries.groups:
            self._padded(group, sliding, query, key, value, own)
        for each in queries.segments:
            mask = each.masks[sliding]
            if mask is None:
                continue
            index = each.index
            behind = self._with_segment(query[index], each.segment.layers[layer], mask)
            merged = merge(Part(own.out[index], own.lse[index]), behind)
            own.out[index], own.lse[index] = merged.out, merged.lse

    def _padded(
        self,
        group: PaddedGroup,
        sliding: bool,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        own: Part,
    ) -> None:
        """Sequences of like length with their own keys; what they give is written into ``own``."""
        shape = self._weights.shape
        asked = _rows(query, group.queries)
        out, lse = self._kernel(
            fold(asked, shape.kv_heads),
            _rows(key, group.keys).transpose(1, 2),
            _rows(value, group.keys).transpose(1, 2),
            shape.scale,
            group.masks[sliding],
        )
        part = unfold(out, lse, asked.shape[1])
        for whole, padded in zip(own, part, strict=True):
            whole.index_copy_(0, group.places, padded.flatten(0, 1).index_select(0, group.real))

    def _in_slots(
        self,
        step: SlotQueries,
        layer: int,
        sliding: bool,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        own: Part,
        asked: torch.Tensor | None,
    ) -> None:
        """New tokens with what their slots hold, and with each other."""
        shape, count = self._weights.shape, len(step.slots)
        step.slots.write(layer, step.numbers, step.writes[sliding], key, value)
        numbers, offsets = step.numbers, step.offsets
        if asked is not None:
            numbers, offsets = numbers[asked], offsets[asked]
        padded = query.new_zeros(count, step.width, *query.shape[1:])
        padded[numbers, offsets] = query
        keys, values = step.slots.layers[layer]
        length = step.lengths[sliding]
        out, lse = self._kernel(
            fold(padded, shape.kv_heads),
            keys[:count, :, :length],
            values[:count, :, :length],
            shape.scale,
            step.masks[sliding],
        )
        part = unfold(out, lse, step.width)
        own.out.copy_(part.out[numbers, offsets])
        own.lse.copy_(part.lse[numbers, offsets])

    def _with_segment(self, query: torch.Tensor, layer: LayerKV, mask: SegmentMask) -> Part:
        """Queries (queries, heads, head_dim) with keys that all lie before them."""
        shape, (key, value) = self._weights.shape, layer
        out, lse = self._kernel(
            fold(query[None], shape.kv_heads), key[None], value[None], shape.scale, mask.added
        )
        part = unfold(out, lse, query.shape[0])
        if mask.blind is None:
            return Part(part.out[0], part.lse[0])
        return Part(
            part.out[0].masked_fill(mask.blind[:, None, None], 0.0),
            part.lse[0].masked_fill(mask.blind[:, None], BLIND),
        )

    # KV memory.

    def segment(self, layers: Sequence[LayerKV], start: int, end: int) -> KVSegment:
        return segment_of(layers, start, end, LAYOUT)

    def slots(self, least: int = 0) -> KVSlots:
        return KVSlots(self._weights, LAYOUT, least=least)

    # What lies between products.

    def norm(self, x: torch.Tensor, layer: int) -> torch.Tensor:
        weights = self._weights
        return normed(x, weights.layers[layer].norms.attention_in, weights.shape.eps)

    def project(
        self, layer: Layer, h: torch.Tensor, rotation: Rotation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        norms, shape = layer.norms, self._weights.shape
        projected: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = self._before(
            h, layer.qkv, norms.query, norms.key, rotation, shape.heads, shape.kv_heads, shape.eps
        )
        return projected

    def finish(
        self, layer: int, x: torch.Tensor, attended: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        weights = self._weights
        one, norms = weights.layers[layer], weights.layers[layer].norms
        finished: tuple[torch.Tensor, torch.Tensor] = self._after(
            x, attended, one.out, norms.attention_out, norms.mlp_in,
            one.gate_up, one.down, norms.mlp_out, weights.gain_behind(layer), weights.shape.eps,
        )  # fmt: skip
        return finished


@dataclass(frozen=True)
class _Square:
    """Sequences of one group with every pair of their tokens (see ``causal_masks``)."""

    members: list[int]
    width: int
    starts: torch.Tensor
    lengths: torch.Tensor
    seen: dict[bool, torch.Tensor]


def _alike(spans: Sequence[range]) -> list[list[int]]:
    """Sequences of like length."""
    groups: list[list[int]] = []
    current: list[int] = []
    for n in sorted(range(len(spans)), key=lambda n: -len(spans[n])):
        if current and len(spans[n]) < PADDED_TOGETHER * len(spans[current[0]]):
            groups.append(current)
            current = []
        current.append(n)
    return [*groups, current] if current else groups


def _asked_for(seen: dict[bool, torch.Tensor], local: torch.Tensor) -> dict[bool, torch.Tensor]:
    """The masks' rows of those queries only, (sequences, queries) in places of their own."""
    at = torch.arange(len(local), device=local.device)[:, None]
    picked: dict[int, torch.Tensor] = {}
    for mask in seen.values():
        if id(mask) not in picked:
            picked[id(mask)] = mask[at if len(mask) > 1 else 0, local]
    return {kind: picked[id(mask)] for kind, mask in seen.items()}


def _rows(tensor: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """``tensor[places]``; whole rows are copied several times faster so on a CPU (torch 2.13)."""
    return tensor.index_select(0, places.flatten()).view(*places.shape, *tensor.shape[1:])


# The halves of a layer around its attention. They take every weight as an argument, so one compiled
# graph serves all layers.


def normed(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    """Gemma's RMSNorm: computed and scaled in float32, then cast back."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * gain).type_as(x)


def rotated(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Rotary embedding of ``x`` (tokens, heads, head_dim)."""
    cos, sin = rotation[0][:, None], rotation[1][:, None]
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def before_attention(
    h: torch.Tensor,
    qkv: Linear,
    query_gain: torch.Tensor,
    key_gain: torch.Tensor,
    rotation: Rotation,
    heads: int,
    kv_heads: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim)."""
    by_head = product(h, qkv).view(h.shape[0], heads + 2 * kv_heads, -1)
    query, key, value = torch.split(by_head, [heads, kv_heads, kv_heads], 1)
    query = rotated(normed(query, query_gain, eps), rotation)
    key = rotated(normed(key, key_gain, eps), rotation)
    return query, key, value.contiguous()


def after_attention(
    x: torch.Tensor,
    attended: torch.Tensor,
    out: Linear,
    out_gain: torch.Tensor,
    mlp_gain: torch.Tensor,
    gate_up: Linear,
    down: Linear,
    mlp_out_gain: torch.Tensor,
    next_gain: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual stream behind the layer, and what the next norm makes of it."""
    x = x + normed(product(attended, out), out_gain, eps)
    gate, up = product(normed(x, mlp_gain, eps), gate_up).chunk(2, -1)
    hidden = torch.nn.functional.gelu(gate, approximate="tanh") * up
    x = x + normed(product(hidden, down), mlp_out_gain, eps)
    return x, normed(x, next_gain, eps)
