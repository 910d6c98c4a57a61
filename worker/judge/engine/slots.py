"""Rows that go on a few tokens at a time: their own keys in buffers, their policies' keys shared.

Every row owns a slot, (slots, kv_heads, room, head_dim) a layer. New tokens are written behind what
a slot holds and only count once they are committed, so a guess costs nothing to take back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from worker.judge.engine.attention import Part, attend, fold, merge, unfold
from worker.judge.engine.before import ALL, Near, added, before, near
from worker.judge.engine.forward import Forward
from worker.judge.engine.keys import LayerKV, OwnKV, PrefixKV

_GROWTH = 64
"""Slots get room in steps of this many tokens."""


class Slots:
    """Rows in slots 0, 1, 2 … of one model; room for ``rows`` of them is made at once.

    Not thread-safe: it belongs to the device thread.
    """

    def __init__(self, forward: Forward, *, rows: int = 0) -> None:
        self._forward, self._weights, self._rows = forward, forward.weights, rows
        self._sliding = [layer.sliding for layer in self._weights.layers]
        self._layers: list[LayerKV] = []
        self._held: dict[bool, list[int]] = {False: [], True: []}
        self._ends: list[int] = []
        self._prefixes: list[PrefixKV | None] = []
        self._ids: list[tuple[int, ...]] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, own: OwnKV, room: int) -> int:
        """Give a row the next slot, with room for that many more tokens; returns its number.

        Where there is no memory for it, the slots are those they were.
        """
        number = len(self._ends)
        held = {
            kind: own.layers[self._sliding.index(kind)][0].shape[1] for kind in set(self._sliding)
        }
        self._reserve(number + 1, room, held)
        for (keys, values), (key, value) in zip(self._layers, own.layers, strict=True):
            # What an earlier row left is masked, but a NaN shines through a mask.
            keys[number, :, key.shape[1] :], values[number, :, key.shape[1] :] = 0, 0
            keys[number, :, : key.shape[1]] = key
            values[number, :, : value.shape[1]] = value
        for kind, count in held.items():
            self._held[kind].append(count)
        self._ends.append(own.end)
        self._prefixes.append(own.prefix)
        self._ids.append(own.ids)
        self._starts.append(own.start)
        return number

    def remove(self, number: int) -> int | None:
        """Free a slot; the last row moves into it. Returns the moved row's former number."""
        last = len(self._ends) - 1
        if number != last:
            for keys, values in self._layers:
                keys[number], values[number] = keys[last], values[last]
        columns: list[list[Any]] = [self._ends, self._prefixes, self._ids, self._starts]
        for column in (*columns, *(held for held in self._held.values() if held)):
            column[number] = column[last]
            column.pop()
        return last if number != last else None

    def own(self, number: int) -> OwnKV:
        """Keys and values of a slot's committed tokens, copied out of it."""
        layers = []
        for (keys, values), kind in zip(self._layers, self._sliding, strict=True):
            held = self._held[kind][number]
            layers.append((keys[number, :, :held].clone(), values[number, :, :held].clone()))
        return OwnKV(self._prefixes[number], self._ids[number], self._starts[number], tuple(layers))

    @torch.inference_mode()
    def extend(
        self, ids: Sequence[Sequence[int]], wanted: Sequence[int], *, commit: bool = True
    ) -> list[torch.Tensor]:
        """Go on with ``ids[n]`` in slot n (none where empty); logits of its last ``wanted[n]``.

        (wanted, vocabulary) each, in float32. Without ``commit`` the slots stay as they were.
        """
        step = _Step(self, ids)
        forward, weights = self._forward, self._weights
        self._reserve(len(self), step.width, {})
        rotations = weights.rotations(step.positions)
        x: torch.Tensor = weights.embed(step.tokens)
        for number, layer in enumerate(weights.layers):
            query, key, value = forward.project(layer, x, rotations[layer.sliding])
            keys, values = self._layers[number]
            at = step.writes[layer.sliding]
            keys[step.slots, :, at] = key
            values[step.slots, :, at] = value
            x = forward.finish(layer, x, step.attention(number, layer.sliding, query))
        if commit:
            for number, new in enumerate(ids):
                self._ends[number] += len(new)
                self._ids[number] += tuple(new)
                for held in self._held.values():
                    if held:
                        held[number] += len(new)
        ends = step.ends
        rows = [n for end, count in zip(ends, wanted, strict=True) for n in range(end - count, end)]
        logits = forward.logits(x[torch.tensor(rows, dtype=torch.long, device=x.device)])
        return list(torch.split(logits, list(wanted)))

    def _reserve(self, slots: int, room: int, joining: Mapping[bool, int]) -> None:
        """Make the buffers large enough for ``slots`` rows that each get ``room`` more tokens, one
        of which is ``joining`` with so many, by kind of layer."""
        shape, weights = self._weights.shape, self._weights
        for number, kind in enumerate(self._sliding):
            needed = max([*self._held[kind], joining.get(kind, 0)]) + room
            have = self._layers[number][0].shape if number < len(self._layers) else (0, 0, 0, 0)
            if have[0] >= slots and have[2] >= needed:
                continue
            rows = max(slots, 2 * have[0], self._rows) if have[0] < slots else have[0]
            tokens = max(-(-needed // _GROWTH) * _GROWTH, have[2])
            size = (rows, shape.kv_heads, tokens, shape.head_dim)
            fresh = tuple(
                torch.zeros(size, dtype=weights.dtype, device=weights.device) for _ in range(2)
            )
            if number < len(self._layers):
                for new, old in zip(fresh, self._layers[number], strict=True):
                    new[: have[0], :, : have[2]] = old
                self._layers[number] = (fresh[0], fresh[1])
            else:
                self._layers.append((fresh[0], fresh[1]))


class _Step:
    """New tokens of all slots, packed, and who of them sees what."""

    def __init__(self, slots: Slots, ids: Sequence[Sequence[int]]) -> None:
        self._all, self._shape = slots, slots._weights.shape
        device = slots._weights.device
        counts = [len(new) for new in ids]
        self.width = max(counts)
        self.ends: list[int] = []
        end = 0
        for count in counts:
            end += count
            self.ends.append(end)
        self.tokens = torch.tensor([token for new in ids for token in new], device=device)
        owners = [n for n, count in enumerate(counts) for _ in range(count)]
        offsets = [n for count in counts for n in range(count)]
        self.slots = torch.tensor(owners, device=device)
        self.offsets = torch.tensor(offsets, device=device)
        self.positions = torch.tensor(
            [slots._ends[n] + k for n, k in zip(owners, offsets, strict=True)], device=device
        )
        kinds = set(slots._sliding)
        held = {kind: torch.tensor(slots._held[kind], device=device) for kind in kinds}
        self.writes = {kind: held[kind][self.slots] + self.offsets for kind in kinds}
        self._masks = {kind: self._mask(kind, held[kind]) for kind in kinds}
        self._shared = self._policies(owners)
        self._near: dict[int, Near | None] = {}

    def attention(self, number: int, sliding: bool, query: torch.Tensor) -> torch.Tensor:
        """(tokens, heads x head_dim)."""
        shape, rows = self._shape, len(self._all)
        padded = query.new_zeros(rows, self.width, *query.shape[1:])
        padded[self.slots, self.offsets] = query
        mask, length = self._masks[sliding]
        keys, values = self._all._layers[number]
        out, lse = attend(
            fold(padded, shape.kv_heads),
            keys[:rows, :, :length],
            values[:rows, :, :length],
            shape.scale,
            mask,
        )
        part = unfold(out, lse, self.width)
        own = Part(part.out[self.slots, self.offsets], part.lse[self.slots, self.offsets])
        for prefix, index in self._shared:
            behind = self._behind(prefix, index, number, sliding, query[index])
            if behind is not None:
                merged = merge(Part(own.out[index], own.lse[index]), behind)
                own.out[index] = merged.out
        return own.out.flatten(1)

    def _behind(
        self,
        prefix: PrefixKV,
        index: torch.Tensor,
        number: int,
        sliding: bool,
        query: torch.Tensor,
    ) -> Part | None:
        """Queries of one policy's rows with its prefix; None where none sees any of it."""
        layer = prefix.layers[number]
        seen: Near | None = ALL
        if sliding:
            if id(prefix) not in self._near:
                first, count = prefix.first(number), layer[0].shape[1]
                self._near[id(prefix)] = near(
                    self.positions[index], first, count, self._shape, query.dtype
                )
            seen = self._near[id(prefix)]
        return before(query, layer, seen, self._shape)

    def _mask(self, sliding: bool, held: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Who sees which of the slots' keys, and how many of these there are."""
        length = int(held.max()) + self.width
        keys = torch.arange(length, device=held.device)
        last = held[:, None] + torch.arange(self.width, device=held.device)[None, :]
        seen = keys[None, None, :] <= last[:, :, None]
        if sliding:
            # Within a slot, a distance between slots of a buffer is a distance between positions.
            seen &= last[:, :, None] - keys[None, None, :] < self._shape.window
        return added(seen, self._shape, self._all._weights.dtype), length

    def _policies(self, owners: Sequence[int]) -> list[tuple[PrefixKV, torch.Tensor]]:
        """The tokens of every policy with a prefix."""
        found: dict[int, tuple[PrefixKV, list[int]]] = {}
        for token, owner in enumerate(owners):
            prefix = self._all._prefixes[owner]
            if prefix is not None:
                found.setdefault(id(prefix), (prefix, []))[1].append(token)
        device = self._all._weights.device
        return [(prefix, torch.tensor(own, device=device)) for prefix, own in found.values()]
