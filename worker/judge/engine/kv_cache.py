"""The KV cache: keys and values that outlive the forward that computed them.

Callers hold handles. What a handle's tensors look like is the backend's affair: the CPU reads a
head's keys one after the other, a GPU a token's::

    heads first   (kv_heads, tokens, head_dim)      a policy's keys of one head are one matrix
    tokens first  (tokens, kv_heads, head_dim)      as the projection writes them, nothing is moved
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import torch

from worker.judge.engine.model import TextWeights

LayerKV = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer; keys are rotated already."""

Layout = Literal["heads first", "tokens first"]

_TOKENS: dict[Layout, int] = {"heads first": 1, "tokens first": 0}
"""The axis along which tokens lie."""

WINDOW_SLACK = 64
"""Tokens that sliding layers keep beyond their window, so that a sequence's end can be taken
back."""


class KVSegment:
    """Keys and values of consecutive tokens in every layer. Never written to.

    Sliding layers may hold only the last of them: those that a later token can see.
    """

    def __init__(self, layers: Sequence[LayerKV], layout: Layout) -> None:
        self.layers, self.layout = layers, layout
        self._axis = _TOKENS[layout]

    def held(self, layer: int) -> int:
        """Tokens that this layer holds."""
        return self.layers[layer][0].shape[self._axis]

    @property
    def bytes(self) -> int:
        return sum(key.nbytes + value.nbytes for key, value in self.layers)

    @property
    def finite(self) -> bool:
        """Whether it is worth keeping: what is no number anywhere is none in the last layer."""
        return all(bool(torch.isfinite(each).all()) for each in self.layers[-1])

    def cut(self, gone: int, needed: int) -> KVSegment | None:
        """Without its last ``gone`` tokens; None where a layer is left with fewer than ``needed``
        of them."""
        held = [self.held(layer) - gone for layer in range(len(self.layers))]
        if min(held) < needed:
            return None
        pairs = zip(self.layers, held, strict=True)
        return self._of(
            (key.narrow(self._axis, 0, count), value.narrow(self._axis, 0, count))
            for (key, value), count in pairs
        )

    def windowed(self, sliding: Sequence[bool], most: int) -> KVSegment:
        """With sliding layers cut to their last ``most`` tokens (copied: the rest is freed)."""

        def last(part: torch.Tensor) -> torch.Tensor:
            return part.narrow(self._axis, part.shape[self._axis] - most, most).clone()

        pairs = enumerate(zip(self.layers, sliding, strict=True))
        return self._of(
            (last(kv[0]), last(kv[1])) if slides and self.held(layer) > most else kv
            for layer, (kv, slides) in pairs
        )

    def copied(self) -> KVSegment:
        """In one piece and out of the batch, which would stay in memory with it."""
        form = torch.contiguous_format
        return self._of(
            (key.clone(memory_format=form), value.clone(memory_format=form))
            for key, value in self.layers
        )

    def contiguous(self) -> KVSegment:
        """In one piece: every sequence of a policy reads it."""
        return self._of((key.contiguous(), value.contiguous()) for key, value in self.layers)

    def followed_by(self, new: KVSegment) -> KVSegment:
        """Both as one, joined where a layer is looked at: most sequences that begin behind
        something known are safe, and nothing goes on from them."""
        return KVSegment(_Joined(self.layers, new.layers, self._axis), self.layout)

    def _of(self, layers: object) -> KVSegment:
        return KVSegment(tuple(layers), self.layout)  # type: ignore[arg-type]


class _Joined(Sequence[LayerKV]):
    def __init__(self, past: Sequence[LayerKV], new: Sequence[LayerKV], axis: int) -> None:
        self._past, self._new, self._axis = past, new, axis

    def __len__(self) -> int:
        return len(self._new)

    @overload
    def __getitem__(self, number: int) -> LayerKV: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[LayerKV]: ...
    def __getitem__(self, number: int | slice) -> LayerKV | Sequence[LayerKV]:
        if isinstance(number, slice):
            return _Joined(self._past[number], self._new[number], self._axis)
        (key, value), (more_key, more_value) = self._past[number], self._new[number]
        return (
            torch.cat((key, more_key), self._axis),
            torch.cat((value, more_value), self._axis),
        )


def segment_of(layers: Sequence[LayerKV], start: int, end: int, layout: Layout) -> KVSegment:
    """The keys and values of tokens ``start:end`` of a batch, (tokens, kv_heads, head_dim) each;
    views, until they are ``copied``."""
    heads_first = layout == "heads first"

    def part(each: torch.Tensor) -> torch.Tensor:
        own = each[start:end]
        return own.transpose(0, 1) if heads_first else own

    return KVSegment(tuple((part(key), part(value)) for key, value in layers), layout)


@dataclass(frozen=True, eq=False)
class PrefixKV:
    """A policy's prefix. Sliding layers hold its last ``window - 1`` tokens: no later token sees
    more of it."""

    ids: tuple[int, ...]
    kv: KVSegment

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def end(self) -> int:
        """Position behind the last token."""
        return len(self.ids)

    @property
    def bytes(self) -> int:
        return self.kv.bytes

    @property
    def finite(self) -> bool:
        return self.kv.finite


@dataclass(frozen=True, eq=False)
class SequenceKV:
    """An event's own tokens behind its prefix; ``start`` is the position of the first."""

    prefix: PrefixKV | None
    ids: tuple[int, ...]
    start: int
    kv: KVSegment

    @property
    def end(self) -> int:
        """Position behind the last token."""
        return self.start + len(self.ids)

    @property
    def bytes(self) -> int:
        return self.kv.bytes

    def cut(self, length: int, window: int) -> SequenceKV | None:
        """The first ``length`` own tokens; None where a sliding layer has dropped what the next
        token would see."""
        gone = len(self.ids) - length
        if gone <= 0:
            return self
        kv = self.kv.cut(gone, min(length, window - 1))
        return None if kv is None else SequenceKV(self.prefix, self.ids[:length], self.start, kv)

    def trimmed(self, weights: TextWeights) -> SequenceKV:
        """The same, with sliding layers cut to what can still be seen from its end."""
        most = weights.shape.window - 1 + WINDOW_SLACK
        kv = self.kv.windowed(weights.sliding, most)
        return SequenceKV(self.prefix, self.ids, self.start, kv)

    def copied(self) -> SequenceKV:
        return SequenceKV(self.prefix, self.ids, self.start, self.kv.copied())


def kv_bytes(weights: TextWeights, tokens: int, held: int | None = None) -> int:
    """Keys and values of ``tokens`` tokens; sliding layers hold at most ``held`` of them."""
    short = tokens if held is None else min(tokens, held)
    per_token = weights.shape.kv_bytes(weights.dtype.itemsize)
    return per_token * sum(short if sliding else tokens for sliding in weights.sliding)


SLOT_GROWTH = 64
"""Slots get room in steps of this many tokens."""


class KVSlots:
    """Buffers in which sequences go on a few tokens at a time, a slot each.

    New tokens are written behind what a slot holds and only count once they are committed, so draft
    tokens cost nothing to take back. Room for ``least`` slots is made at once. Not thread-safe.
    """

    def __init__(self, weights: TextWeights, layout: Layout, *, least: int = 0) -> None:
        self._weights, self._least = weights, least
        self.layout: Layout = layout
        self._axis = 1 + _TOKENS[layout]
        self._layers: list[LayerKV] = []
        self.held: dict[bool, list[int]] = {kind: [] for kind in set(weights.sliding)}
        """Tokens in every slot, by kind of layer (sliding or not)."""

    def __len__(self) -> int:
        return len(next(iter(self.held.values())))

    @property
    def bytes(self) -> int:
        return sum(key.nbytes + value.nbytes for key, value in self._layers)

    def add(self, kv: KVSegment, room: int) -> int:
        """Copy a segment into the next slot, with room for so many more tokens; its number.

        Where there is no memory for it, the slots are those they were.
        """
        number, sliding = len(self), self._weights.sliding
        joining = {kind: kv.held(sliding.index(kind)) for kind in self.held}
        self._reserve(number + 1, room, joining)
        for (keys, values), (key, value) in zip(self._layers, kv.layers, strict=True):
            for buffer, part in ((keys, key), (values, value)):
                slot, count = buffer[number], part.shape[self._axis - 1]
                # What an earlier one left is masked, but a NaN shines through a mask.
                slot.narrow(self._axis - 1, count, slot.shape[self._axis - 1] - count).zero_()
                slot.narrow(self._axis - 1, 0, count).copy_(part)
        for kind, count in joining.items():
            self.held[kind].append(count)
        return number

    def remove(self, number: int) -> int | None:
        """Free a slot; the last one moves into it. Returns the moved one's former number."""
        last = len(self) - 1
        if number != last:
            for keys, values in self._layers:
                keys[number], values[number] = keys[last], values[last]
        for held in self.held.values():
            held[number] = held[last]
            held.pop()
        return last if number != last else None

    def segment(self, number: int) -> KVSegment:
        """What a slot holds, copied out of it."""
        layers = []
        for (keys, values), kind in zip(self._layers, self._weights.sliding, strict=True):
            count = self.held[kind][number]
            layers.append(
                (
                    keys[number].narrow(self._axis - 1, 0, count).clone(),
                    values[number].narrow(self._axis - 1, 0, count).clone(),
                )
            )
        return KVSegment(tuple(layers), self.layout)

    def reserve(self, room: int) -> None:
        """Make sure that every slot takes so many more tokens; buffers may move."""
        self._reserve(len(self), room, {})

    @property
    def layers(self) -> Sequence[LayerKV]:
        """For backends: (slots, kv_heads, room, head_dim) heads first, (slots, room, kv_heads,
        head_dim) tokens first."""
        return self._layers

    def write(
        self,
        layer: int,
        slots: torch.Tensor,
        at: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> None:
        """Put new tokens (tokens, kv_heads, head_dim) at places ``at`` of their slots."""
        for buffer, part in zip(self._layers[layer], (key, value), strict=True):
            by_token = buffer.transpose(1, 2) if self.layout == "heads first" else buffer
            by_token[slots, at] = part

    def commit(self, counts: Sequence[int]) -> None:
        """The first so many tokens that were written behind each slot count from now on."""
        for held in self.held.values():
            for number, count in enumerate(counts):
                held[number] += count

    def _reserve(self, slots: int, room: int, joining: Mapping[bool, int]) -> None:
        """Room for ``slots`` that each get ``room`` more tokens, one of them ``joining`` with so
        many, by kind of layer."""
        weights, shape = self._weights, self._weights.shape
        for layer, kind in enumerate(weights.sliding):
            needed = max([*self.held[kind], joining.get(kind, 0)]) + room
            have_slots = have_room = 0
            if layer < len(self._layers):
                have_slots = self._layers[layer][0].shape[0]
                have_room = self._layers[layer][0].shape[self._axis]
            if have_slots >= slots and have_room >= needed:
                continue
            rows = max(slots, 2 * have_slots, self._least) if have_slots < slots else have_slots
            tokens = max(-(-needed // SLOT_GROWTH) * SLOT_GROWTH, have_room)
            size = [rows, shape.kv_heads, shape.head_dim]
            size.insert(self._axis, tokens)
            fresh = [
                torch.zeros(size, dtype=weights.dtype, device=weights.device) for _ in range(2)
            ]
            if have_slots:
                for new, old in zip(fresh, self._layers[layer], strict=True):
                    new[:have_slots].narrow(self._axis, 0, have_room).copy_(old)
                self._layers[layer] = (fresh[0], fresh[1])
            else:
                self._layers.append((fresh[0], fresh[1]))


@dataclass(frozen=True, eq=False)
class Slot:
    """What one slot holds of a sequence that ends at position ``end``."""

    slots: KVSlots
    number: int
    prefix: PrefixKV | None
    end: int
