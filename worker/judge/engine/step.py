"""One step of rows in slots: their new tokens, packed, and who of them sees what.

Behind a row's own new tokens there may be guesses of what follows, each a branch of its own::

    slot    k k k k k | t t | a a | b b b        a and b begin at one position
    sees    a: k, t, a before it                 b: k, t, b before it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from worker.judge.engine.attention import Part, attend, fold, merge, unfold
from worker.judge.engine.before import ALL, Near, added, before, near
from worker.judge.engine.keys import LayerKV, PrefixKV
from worker.judge.engine.weights import TextWeights

_NOWHERE = 1 << 30
"""Place of padding: behind everything, so that nothing real sees it."""


class Held(NamedTuple):
    """What every slot holds: tokens by kind of layer, the position behind them, the prefix."""

    counts: dict[bool, list[int]]
    ends: list[int]
    prefixes: list[PrefixKV | None]


class Step:
    """The new tokens of all slots. ``counts`` are those of each, ``width`` the most."""

    def __init__(
        self,
        held: Held,
        ids: Sequence[Sequence[int]],
        guesses: Sequence[Sequence[Sequence[int]]],
        weights: TextWeights,
    ) -> None:
        self._prefixes, self._shape, self._dtype = held.prefixes, weights.shape, weights.dtype
        device = weights.device
        rows = [_laid_out(own, after) for own, after in zip(ids, guesses, strict=True)]
        self.counts = [len(row) for row in rows]
        self.width = max(self.counts)
        self.tokens = torch.tensor([each.token for row in rows for each in row], device=device)
        owners = [n for n, count in enumerate(self.counts) for _ in range(count)]
        self.slots = torch.tensor(owners, device=device)
        self._offsets = torch.tensor([n for c in self.counts for n in range(c)], device=device)
        self.positions = torch.tensor(
            [held.ends[n] + each.place for n, row in enumerate(rows) for each in row],
            device=device,
        )
        places = torch.full((len(rows), self.width), _NOWHERE)
        branches = torch.zeros_like(places)
        for n, row in enumerate(rows):
            if row:
                places[n, : len(row)] = torch.tensor([each.place for each in row])
                branches[n, : len(row)] = torch.tensor([each.branch for each in row])
        self._places, self._branches = places.to(device), branches.to(device)
        sliding = {layer.sliding for layer in weights.layers}
        counts = {kind: torch.tensor(held.counts[kind], device=device) for kind in sliding}
        self.writes = {kind: counts[kind][self.slots] + self._offsets for kind in sliding}
        # Known on the host: asking the device would wait for it.
        lengths = {kind: max(held.counts[kind]) + self.width for kind in sliding}
        self._masks = {kind: self._mask(kind, counts[kind], lengths[kind]) for kind in sliding}
        self._shared = self._policies(owners)
        self._near: dict[int, Near | None] = {}

    def attention(
        self, number: int, sliding: bool, query: torch.Tensor, layer: LayerKV
    ) -> torch.Tensor:
        """(tokens, heads x head_dim); ``layer`` are the slots' buffers, new tokens among them."""
        shape, rows = self._shape, len(self.counts)
        padded = query.new_zeros(rows, self.width, *query.shape[1:])
        padded[self.slots, self._offsets] = query
        mask, length = self._masks[sliding]
        keys, values = layer
        out, lse = attend(
            fold(padded, shape.kv_heads),
            keys[:rows, :, :length],
            values[:rows, :, :length],
            shape.scale,
            mask,
        )
        part = unfold(out, lse, self.width)
        own = Part(part.out[self.slots, self._offsets], part.lse[self.slots, self._offsets])
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

    def _mask(self, sliding: bool, held: torch.Tensor, length: int) -> tuple[torch.Tensor, int]:
        """Who sees which of the slots' first ``length`` keys, and how many these are.

        What a slot holds ends where its new tokens begin, so a distance between places of its
        buffer is one between positions; a guess begins again behind the row's own tokens.
        """
        new = torch.arange(length, device=held.device)[None, :] - held[:, None]
        among = new.clamp(0, self.width - 1)
        keys = torch.where(new < 0, new, self._places.gather(1, among))[:, None, :]
        branch = torch.where(new < 0, 0, self._branches.gather(1, among))[:, None, :]
        keys = torch.where(new[:, None, :] < self.width, keys, _NOWHERE)
        asked = self._places[:, :, None]
        seen = (keys <= asked) & ((branch == 0) | (branch == self._branches[:, :, None]))
        if sliding:
            seen &= asked - keys < self._shape.window
        return added(seen, self._shape, self._dtype), length

    def _policies(self, owners: Sequence[int]) -> list[tuple[PrefixKV, torch.Tensor]]:
        """The tokens of every policy with a prefix."""
        found: dict[int, tuple[PrefixKV, list[int]]] = {}
        for token, owner in enumerate(owners):
            prefix = self._prefixes[owner]
            if prefix is not None:
                found.setdefault(id(prefix), (prefix, []))[1].append(token)
        device = self.slots.device
        return [(prefix, torch.tensor(own, device=device)) for prefix, own in found.values()]


class _New(NamedTuple):
    """A new token: how far behind what its slot holds, and of which guess (0: of none)."""

    token: int
    place: int
    branch: int


def _laid_out(own: Sequence[int], guesses: Sequence[Sequence[int]]) -> list[_New]:
    row = [_New(token, place, 0) for place, token in enumerate(own)]
    for branch, guess in enumerate(guesses, start=1):
        row += [_New(token, len(own) + n, branch) for n, token in enumerate(guess)]
    return row
