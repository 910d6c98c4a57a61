"""Rows that go on a few tokens at a time: their own keys in buffers, their policies' keys shared.

Every row owns a slot, (slots, kv_heads, room, head_dim) a layer. New tokens are written behind what
a slot holds and only count once they are committed, so guesses cost nothing to take back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from worker.judge.engine.forward import Forward
from worker.judge.engine.keys import LayerKV, OwnKV, PrefixKV
from worker.judge.engine.step import Held, Step

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
        states = self.states(ids, commit=commit)
        asked = [each[len(each) - count :] for each, count in zip(states, wanted, strict=True)]
        return list(torch.split(self._forward.logits(torch.cat(asked)), list(wanted)))

    @torch.inference_mode()
    def states(
        self,
        ids: Sequence[Sequence[int]],
        guesses: Sequence[Sequence[Sequence[int]]] = (),
        *,
        commit: bool = True,
    ) -> list[torch.Tensor]:
        """What the last layer makes of ``ids[n]`` in slot n, and of each of ``guesses[n]`` behind.

        (tokens, hidden) each, the row's own before its guesses; guesses are never committed.
        """
        there = Held(self._held, self._ends, self._prefixes)
        step = Step(there, ids, guesses or [()] * len(ids), self._weights)
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
            attended = step.attention(number, layer.sliding, query, self._layers[number])
            x = forward.finish(layer, x, attended)
        if commit:
            for number, new in enumerate(ids):
                self._ends[number] += len(new)
                self._ids[number] += tuple(new)
                for held in self._held.values():
                    if held:
                        held[number] += len(new)
        return list(torch.split(x, step.counts))

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
