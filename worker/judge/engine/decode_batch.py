"""Rows that go on a few tokens at a time: KV slots, steps, and draft tokens verified together.

::

    …⏎Safety Categories: Sexual | [,]                 the names that go on like this are guesses,
                                | [ (minor) ,]        as branches that do not see each other

A guess costs its tokens in one forward. Of the guesses only what greedy decoding takes is written,
so the text is the one written without them, token for token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from worker.judge.engine.attention import (
    ALL,
    Near,
    Part,
    added,
    attend,
    before,
    fold,
    merge,
    near,
    unfold,
)
from worker.judge.engine.forward import Forward
from worker.judge.engine.kv_cache import LayerKV, OwnKV, PrefixKV
from worker.judge.engine.model import TextWeights
from worker.judge.reference.decode import Guess, Writing, Written, write_step

# One step of rows in slots: their new tokens, packed, and who of them sees what.
#
# Behind a row's own new tokens there may be guesses of what follows, each a branch of its own::
#
#     slot    k k k k k | t t | a a | b b b        a and b begin at one position
#     sees    a: k, t, a before it                 b: k, t, b before it

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


# Rows that go on a few tokens at a time: their own keys in buffers, their policies' keys shared.
#
# Every row owns a slot, (slots, kv_heads, room, head_dim) a layer. New tokens are written behind
# what
# a slot holds and only count once they are committed, so guesses cost nothing to take back.

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


MOST = 64
"""Tokens of one row's guesses in one forward."""


@torch.inference_mode()
def write_on(
    forward: Forward,
    slots: Slots,
    pending: Sequence[Sequence[int]],
    written: Sequence[Written],
    guesses: Sequence[Guess],
    writing: Writing,
) -> list[tuple[int, ...]]:
    """Compute what is ``pending`` in every slot and write what follows: one token, or a guess more.

    Returns what is pending then; nothing in a row that has ended. Rows with nothing pending rest.
    """
    rows = [n for n, ids in enumerate(pending) if ids]
    tried: list[tuple[tuple[int, ...], ...]] = [()] * len(pending)
    for n in rows:
        tried[n] = _bounded(guesses[n](written[n].ids))
    states = slots.states(pending, tried)
    at = {n: len(pending[n]) - 1 for n in rows}
    new: list[tuple[int, ...]] = [()] * len(pending)
    while rows:
        logits = forward.logits(torch.stack([states[n][at[n]] for n in rows]))
        tokens = write_step(logits, [written[n] for n in rows], writing)
        going = []
        for n, token in zip(rows, tokens, strict=True):
            if written[n].ended:
                new[n] = ()
                continue
            new[n] += (token,)
            place = _place(tried[n], new[n])
            if place is not None:
                at[n] = len(pending[n]) + place
                going.append(n)
        rows = going
    return new


def _bounded(guesses: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The first of them that take no more than ``MOST`` tokens together."""
    kept, left = [], MOST
    for guess in guesses:
        left -= len(guess)
        if left < 0:
            break
        kept.append(guess)
    return tuple(kept)


def _place(guesses: Sequence[tuple[int, ...]], path: tuple[int, ...]) -> int | None:
    """Where a path ends among the guesses' tokens, one guess after the other; None outside them."""
    start = 0
    for guess in guesses:
        if guess[: len(path)] == path:
            return start + len(path) - 1
        start += len(guess)
    return None
