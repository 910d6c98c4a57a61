"""The backend ``triton``: one attention launch a layer whatever the mix, fused kernels between
products.

A layer is nine launches: four products by the library, attention, norm and rotation, gelu x up, and
twice norm + residual + norm (``triton_kernels``). Keys and values lie as the projection writes
them, (tokens, kv_heads, head_dim), and what was computed before a sequence is read at its own
address: nothing is copied, padded or merged. A batch is one plan: two arrays built on the host and
moved over in one copy each, whatever policies, images, pasts and slots are in it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from worker.errors import ConfigurationError
from worker.judge.engine import triton_kernels as kernels
from worker.judge.engine.backend import BackendName, Rotation
from worker.judge.engine.batch import VarlenBatch
from worker.judge.engine.kv_cache import (
    KVSegment,
    KVSlots,
    LayerKV,
    Layout,
    Slot,
    segment_of,
)
from worker.judge.engine.model import Layer, TextWeights
from worker.judge.engine.quantization import FP8, Linear, fp8_product, product

LAYOUT: Layout = "tokens first"

LEAST = (8, 0)
"""Compute capability below which kernels are not compiled: no bfloat16 products before Ampere."""


class Tile(NamedTuple):
    """Block sizes of attention: queries and keys of a program, its warps and pipeline stages."""

    queries: int
    keys: int
    warps: int
    stages: int


TILES: dict[tuple[int, int], Tile] = {
    (8, 0): Tile(32, 64, 8, 2),
    (8, 6): Tile(32, 32, 8, 2),
    (8, 9): Tile(32, 32, 8, 2),
    (9, 0): Tile(64, 64, 8, 2),
    (10, 0): Tile(64, 64, 8, 2),
    (12, 0): Tile(32, 32, 8, 2),
}
"""By compute capability, as shared memory allows for heads of 256 (``tests/judge/engine``); a card
between two takes the lower one's. No tuning at run time: a start would take minutes."""
DECODING = 16
"""Rows of a tile where every sequence asks for a few tokens: the least that a product takes."""


def tile_of(capability: tuple[int, int]) -> Tile:
    """The tile for a card."""
    return TILES[max(each for each in TILES if each <= capability)]


class Activations(NamedTuple):
    """What the next product reads: in the model's format, or fp8 with the scale of each row."""

    values: torch.Tensor
    scales: torch.Tensor | None = None


@dataclass(frozen=True)
class Queries:
    """One set of queries as blocks of one sequence each; all int32 on the device."""

    blocks: int
    tile: int
    block_row: torch.Tensor
    block_first: torch.Tensor
    starts: torch.Tensor
    counts: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True)
class TritonPlan:
    """Implements ``backend.Plan``. ``segments`` (layers, 3, segments) are addresses of keys, of
    values, and elements between tokens; ``held`` and ``began`` are tokens and first position of
    every segment, by kind of layer."""

    batch: VarlenBatch
    ids: torch.Tensor
    positions: torch.Tensor
    wanted: torch.Tensor
    every: Queries
    last: Queries
    marks: bool
    marked: torch.Tensor
    branch: torch.Tensor
    image: torch.Tensor
    token_start: torch.Tensor
    token_count: torch.Tensor
    segment_first: torch.Tensor
    segments: torch.Tensor
    held: dict[bool, torch.Tensor]
    began: dict[bool, torch.Tensor]
    slots: KVSlots | None
    slot: torch.Tensor
    writes: dict[bool, torch.Tensor]
    reads: list[_Segment]
    """What the addresses point at."""


class TritonBackend:
    """Implements ``backend.Backend`` with the kernels of ``triton_kernels``.

    ``tile`` and ``rows`` (of the kernels between products) are the card's, unless a test says.

    Raises:
        ConfigurationError: the card is older than the kernels need.
    """

    name: BackendName = "triton"

    def __init__(self, weights: TextWeights, *, tile: Tile | None = None, rows: int = 1) -> None:
        self._weights, self._rows = weights, rows
        if tile is None and weights.device.type == "cuda":
            capability = torch.cuda.get_device_capability(weights.device)
            if capability < LEAST:
                raise ConfigurationError(
                    f"judge.attention: triton needs compute capability 8.0 (Ampere), this card has "
                    f"{capability[0]}.{capability[1]}; set it to reference"
                )
            tile = tile_of(capability)
        self._tile = tile or TILES[9, 0]
        self.launches = 0
        """Kernels of our own launched so far."""

    # Plans.

    def plan(self, batch: VarlenBatch) -> TritonPlan:
        weights = self._weights
        kinds = sorted(set(weights.sliding))
        branch, image, marked = self._marks(batch)
        sequences = batch.sequences
        ids = batch.ids
        for start, span in batch.images:  # their own ids may lie outside the vocabulary
            ids[start + span.start : start + span.end] = [0] * (span.end - span.start)
        everything = [list(span) for span in batch.spans]
        every, last = self._blocks(everything), self._blocks(batch.asked)
        found: list[_Segment] = []
        firsts = [0]
        for each in sequences:
            found += self._segments_of(each)
            firsts.append(len(found))
        slot: list[int] = []
        writes: dict[bool, list[int]] = {kind: [] for kind in kinds}
        slots: KVSlots | None = None
        for each in sequences:
            if isinstance(each.past, Slot):
                slots = each.past.slots
                slot += [each.past.number] * each.count
                for kind in kinds:
                    held = slots.held[kind][each.past.number]
                    writes[kind] += range(held, held + each.count)
        small = [
            ids, batch.positions.tolist(), branch, image, marked,
            [span.start for span in batch.spans], [len(span) for span in batch.spans], firsts,
            slot, *(writes[kind] for kind in kinds),
            *([one.held[kind] for one in found] for kind in kinds),
            *([one.began[kind] for one in found] for kind in kinds),
            batch.wanted, *every.arrays, *last.arrays,
        ]  # fmt: skip
        parts = iter(self._moved(small, torch.int32))
        addresses = [[one.address(layer) for one in found] for layer in range(len(weights.layers))]
        table = torch.tensor(addresses, dtype=torch.int64).view(len(weights.layers), len(found), 3)
        take = parts.__next__
        return TritonPlan(
            batch=batch, ids=take(), positions=take(), branch=take(), image=take(), marked=take(),
            token_start=take(), token_count=take(), segment_first=take(), slot=take(),
            writes={kind: take() for kind in kinds}, held={kind: take() for kind in kinds},
            began={kind: take() for kind in kinds}, wanted=take(),
            every=every.on_device(take), last=last.on_device(take), marks=any(marked),
            segments=self._over(table.transpose(1, 2).contiguous()), slots=slots,
            reads=found,
        )  # fmt: skip

    def _segments_of(self, sequence: Any) -> list[_Segment]:
        """What a sequence meets before its own tokens, a slot included."""
        weights = self._weights
        kinds = {kind: weights.sliding.index(kind) for kind in set(weights.sliding)}
        found = []
        for kv, behind in sequence.segments():
            held = {kind: kv.held(layer) for kind, layer in kinds.items()}
            began = {kind: behind - count for kind, count in held.items()}
            # Looked at once: a joined segment is made here, and has to live as long as the plan.
            layers = [kv.layers[layer] for layer in range(len(weights.layers))]
            found.append(_Segment(layers, held, began))
        past = sequence.past
        if isinstance(past, Slot):
            held = {kind: past.slots.held[kind][past.number] for kind in kinds}
            began = {kind: past.end - count for kind, count in held.items()}
            layers = [(key[past.number], value[past.number]) for key, value in past.slots.layers]
            found.append(_Segment(layers, held, began))
        return found

    @staticmethod
    def _marks(batch: VarlenBatch) -> tuple[list[int], list[int], list[int]]:
        """Branch and image of every token (0: of none), and which sequences have any."""
        branch, image, marked = [0] * batch.tokens, [0] * batch.tokens, []
        for each, span in zip(batch.sequences, batch.spans, strict=True):
            for number, (start, end) in enumerate(each.branch_spans(), start=1):
                branch[span.start + start : span.start + end] = [number] * (end - start)
            if each.image is not None:
                start, end = span.start + each.image.start, span.start + each.image.end
                image[start:end] = [1] * (end - start)
            marked.append(int(bool(each.branches) or each.image is not None))
        return branch, image, marked

    def _blocks(self, asked: Sequence[Sequence[int]]) -> _Blocks:
        """Queries of every sequence in blocks; small ones where sequences ask for few tokens."""
        groups = self._weights.shape.groups
        few = max(1, DECODING // groups)
        tile = few if max(map(len, asked), default=0) <= few else self._tile.queries
        rows, firsts = [], []
        for row, each in enumerate(asked):
            for first in range(0, len(each), tile):
                rows.append(row)
                firsts.append(first)
        counts = [len(each) for each in asked]
        starts = [0, *itertools.accumulate(counts)][:-1]
        return _Blocks(tile, rows, firsts, starts, counts, list(itertools.chain(*asked)))

    def _moved(self, arrays: Sequence[Sequence[int]], dtype: torch.dtype) -> list[torch.Tensor]:
        """All arrays in one copy, each beginning at a multiple of 16 bytes (kernels are compiled
        for aligned arrays)."""
        flat: list[int] = []
        starts = []
        for each in arrays:
            starts.append(len(flat))
            flat += each
            flat += [0] * (-len(flat) % 4)
        whole = self._over(torch.tensor(flat or [0], dtype=dtype))
        return [
            whole[start : start + len(each)] for start, each in zip(starts, arrays, strict=True)
        ]

    def _over(self, host: torch.Tensor) -> torch.Tensor:
        device = self._weights.device
        if device.type == "cuda":
            return host.pin_memory().to(device, non_blocking=True)
        return host.to(device)

    # Attention.

    def attend(
        self,
        plan: TritonPlan,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        weights, shape = self._weights, self._weights.shape
        sliding = weights.sliding[layer]
        queries = plan.last if layer == shape.layers - 1 else plan.every
        few = queries.tile != self._tile.queries
        self._launch(
            kernels.attention, (queries.blocks, shape.kv_heads),
            query, key, value, out,
            query.stride(0), query.stride(1), key.stride(0), key.stride(1),
            value.stride(0), value.stride(1), out.stride(0), out.stride(1),
            queries.block_row, queries.block_first,
            queries.starts, queries.counts, queries.tokens,
            plan.token_start, plan.token_count, plan.marked,
            plan.positions, plan.branch, plan.image,
            plan.segment_first, plan.segments[layer, 0], plan.segments[layer, 1],
            plan.segments[layer, 2], plan.held[sliding], plan.began[sliding],
            shape.scale * math.log2(math.e), shape.window,
            GROUPS=shape.groups, HEAD=shape.head_dim, HEAD_PADDED=padded(shape.head_dim),
            BLOCK_Q=queries.tile, BLOCK_K=self._tile.keys, SLIDING=sliding, MARKS=plan.marks,
            num_warps=4 if few else self._tile.warps, num_stages=self._tile.stages,
        )  # fmt: skip
        if plan.slots is not None:
            keys, values = plan.slots.layers[layer]
            width = shape.kv_heads * shape.head_dim
            self._launch(
                kernels.write_slots, (self._programs(len(key)),),
                key, value, keys, values, plan.slot, plan.writes[sliding], len(key), keys.shape[1],
                key.stride(0), value.stride(0),
                WIDTH=width, WIDTH_PADDED=padded(width), ROWS=self._rows, num_warps=4,
            )  # fmt: skip

    # KV memory.

    def segment(self, layers: Sequence[LayerKV], start: int, end: int) -> KVSegment:
        return segment_of(layers, start, end, LAYOUT)

    def slots(self, least: int = 0) -> KVSlots:
        return KVSlots(self._weights, LAYOUT, least=least)

    # What lies between products.

    def norm(self, x: torch.Tensor, layer: int) -> Activations:
        one = self._weights.layers[layer]
        return self._add_norm(x, None, None, one.norms.attention_in, one.qkv.kind == "fp8")

    def project(
        self, layer: Layer, h: Activations, rotation: Rotation
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = self._weights.shape
        qkv = _product(h, layer.qkv)
        self._launch(
            kernels.norm_rotate, (self._programs(len(qkv)), shape.heads + shape.kv_heads),
            qkv, layer.norms.query, layer.norms.key,
            rotation[0].contiguous(), rotation[1].contiguous(), len(qkv), shape.eps,
            HEADS=shape.heads, KV_HEADS=shape.kv_heads, HEAD=shape.head_dim,
            HALF_PADDED=padded(shape.head_dim // 2), ROWS=self._rows, num_warps=1,
        )  # fmt: skip
        by_head = qkv.view(len(qkv), -1, shape.head_dim)
        query, key, value = torch.split(by_head, [shape.heads, shape.kv_heads, shape.kv_heads], 1)
        return query, key, value

    def finish(
        self, layer: int, x: torch.Tensor, attended: torch.Tensor
    ) -> tuple[torch.Tensor, Any]:
        weights = self._weights
        one, norms = weights.layers[layer], weights.layers[layer].norms
        eight_bits = one.qkv.kind == "fp8"
        last = layer == weights.shape.layers - 1
        read = self._quantized(attended) if eight_bits else Activations(attended)
        y = _product(read, one.out)
        h = self._add_norm(x, y, norms.attention_out, norms.mlp_in, eight_bits)
        y = _product(self._gelu_up(_product(h, one.gate_up), eight_bits), one.down)
        gain = weights.gain_behind(layer)
        h = self._add_norm(x, y, norms.mlp_out, gain, eight_bits and not last)
        return x, h.values if last else h

    def _add_norm(
        self,
        x: torch.Tensor,
        y: torch.Tensor | None,
        gain_y: torch.Tensor | None,
        gain_x: torch.Tensor,
        eight_bits: bool,
    ) -> Activations:
        """``x`` is changed in place where there is a ``y``."""
        out = self._empty(x, x.shape, eight_bits)
        width = x.shape[1]
        self._launch(
            kernels.add_norm, (self._programs(len(x)),),
            x, x if y is None else y, gain_x if gain_y is None else gain_y, gain_x, out.values,
            x if out.scales is None else out.scales, len(x), self._weights.shape.eps,
            WIDTH=width, WIDTH_PADDED=padded(width), ROWS=self._rows,
            ADD=y is not None, EIGHT_BITS=eight_bits, num_warps=8,
        )  # fmt: skip
        return out

    def _gelu_up(self, gate_up: torch.Tensor, eight_bits: bool) -> Activations:
        width = gate_up.shape[1] // 2
        out = self._empty(gate_up, (len(gate_up), width), eight_bits)
        self._launch(
            kernels.gelu_up, (self._programs(len(gate_up)),),
            gate_up, out.values, gate_up if out.scales is None else out.scales, len(gate_up),
            WIDTH=width, WIDTH_PADDED=padded(width), ROWS=self._rows, EIGHT_BITS=eight_bits,
            num_warps=16 if width > 4096 else 4,
        )  # fmt: skip
        return out

    def _quantized(self, x: torch.Tensor) -> Activations:
        out = self._empty(x, x.shape, True)
        width = x.shape[1]
        self._launch(
            kernels.quantize, (self._programs(len(x)),), x, out.values, out.scales, len(x),
            WIDTH=width, WIDTH_PADDED=padded(width), ROWS=self._rows, num_warps=8,
        )  # fmt: skip
        return out

    @staticmethod
    def _empty(like: torch.Tensor, size: Sequence[int], eight_bits: bool) -> Activations:
        dtype = FP8 if eight_bits else like.dtype
        values = torch.empty(tuple(size), dtype=dtype, device=like.device)
        if not eight_bits:
            return Activations(values)
        return Activations(values, torch.empty(size[0], dtype=torch.float32, device=like.device))

    def _programs(self, tokens: int) -> int:
        return -(-tokens // self._rows)

    def _launch(
        self, kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any
    ) -> None:
        """Every launch of our own; a memory profile runs on tensors without storage, and has
        nothing to launch on."""
        if self._weights.device.type == "meta" or not all(grid):
            return
        self.launches += 1
        kernel[grid](*arguments, **constants)


@dataclass(frozen=True)
class _Segment:
    """Where one segment lies: (tokens, kv_heads, head_dim) a layer, held tokens and first position
    by kind."""

    layers: Sequence[LayerKV]
    held: dict[bool, int]
    began: dict[bool, int]

    def address(self, layer: int) -> tuple[int, int, int]:
        key, value = self.layers[layer]
        return key.data_ptr(), value.data_ptr(), key.stride(0)


@dataclass(frozen=True)
class _Blocks:
    """``Queries`` on the host."""

    tile: int
    rows: list[int]
    firsts: list[int]
    starts: list[int]
    counts: list[int]
    tokens: list[int]

    @property
    def arrays(self) -> tuple[list[int], ...]:
        return self.rows, self.firsts, self.starts, self.counts, self.tokens

    def on_device(self, take: Any) -> Queries:
        return Queries(len(self.rows), self.tile, take(), take(), take(), take(), take())


def padded(width: int) -> int:
    """Tiles are powers of two, and a product takes at least 16."""
    return max(16, 1 << (width - 1).bit_length())


def _product(h: Activations, linear: Linear) -> torch.Tensor:
    if h.scales is not None:
        return fp8_product(h.values, h.scales[:, None], linear)
    return product(h.values, linear)
