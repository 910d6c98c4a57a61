"""Sequences that go on a few tokens at a time: decode steps, and draft tokens verified together.

::

    …⏎Safety Categories: Sexual | [,]                 the names that go on like this are drafts,
                                | [ (minor) ,]        as branches that do not see each other

A draft costs its tokens in one forward. Of the drafts only what greedy decoding takes is written,
so the text is the one written without them, token for token (speculative decoding).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from worker.judge.engine.batch import InputSequence, VarlenBatch
from worker.judge.engine.forward import Forward
from worker.judge.engine.kv_cache import PrefixKV, SequenceKV, Slot
from worker.judge.reference.decode import Draft, Writing, Written, write_step


class DecodeBatch:
    """Sequences in KV slots 0, 1, 2 … of one model; room for ``least`` of them is made at once.

    Not thread-safe: it belongs to the device thread.
    """

    def __init__(self, forward: Forward, *, least: int = 0) -> None:
        self._forward = forward
        self.slots = forward.backend.slots(least)
        self._ends: list[int] = []
        self._prefixes: list[PrefixKV | None] = []
        self._ids: list[tuple[int, ...]] = []
        self._starts: list[int] = []

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, known: SequenceKV, room: int) -> int:
        """Give a sequence the next slot, with room for that many more tokens; its number.

        Where there is no memory for it, the others are as they were.
        """
        number = self.slots.add(known.kv, room)
        self._ends.append(known.end)
        self._prefixes.append(known.prefix)
        self._ids.append(known.ids)
        self._starts.append(known.start)
        return number

    def remove(self, number: int) -> int | None:
        """Free a slot; the last sequence moves into it. Returns its former number."""
        moved = self.slots.remove(number)
        columns: list[list[Any]] = [self._ends, self._prefixes, self._ids, self._starts]
        for column in columns:
            column[number] = column[-1]
            column.pop()
        return moved

    def sequence(self, number: int) -> SequenceKV:
        """Keys and values of a sequence's committed tokens, copied out of its slot."""
        kv = self.slots.segment(number)
        return SequenceKV(self._prefixes[number], self._ids[number], self._starts[number], kv)

    def extend(
        self, ids: Sequence[Sequence[int]], wanted: Sequence[int], *, commit: bool = True
    ) -> list[torch.Tensor]:
        """Go on with ``ids[n]`` in slot n (none where empty); logits of its last ``wanted[n]``.

        (wanted, vocabulary) each, in float32. Without ``commit`` the sequences stay as they were.
        """
        states = self.step(ids, commit=commit)
        asked = [each[len(each) - count :] for each, count in zip(states, wanted, strict=True)]
        return list(torch.split(self._forward.logits(torch.cat(asked)), list(wanted)))

    def step(
        self,
        ids: Sequence[Sequence[int]],
        drafts: Sequence[Sequence[Sequence[int]]] = (),
        *,
        commit: bool = True,
    ) -> list[torch.Tensor]:
        """Hidden states of ``ids[n]`` in slot n, and of each of ``drafts[n]`` behind.

        (tokens, hidden) each, the sequence's own before its drafts; drafts are never committed.
        """
        going = [n for n, own in enumerate(ids) if own]
        sequences = []
        for n in going:
            branches = tuple(map(tuple, drafts[n])) if drafts else ()
            count = len(ids[n]) + sum(map(len, branches))
            past = Slot(self.slots, n, self._prefixes[n], self._ends[n])
            sequences.append(
                InputSequence(
                    tuple(ids[n]), self._prefixes[n], past, branches, wanted=tuple(range(count))
                )
            )
        self.slots.reserve(max(each.count for each in sequences))
        hidden = self._forward.hidden(VarlenBatch(sequences))
        if commit:
            for n, new in enumerate(ids):
                self._ends[n] += len(new)
                self._ids[n] += tuple(new)
            self.slots.commit([len(new) for new in ids])
        counts = [0] * len(ids)
        for n, each in zip(going, sequences, strict=True):
            counts[n] = each.count
        return list(torch.split(hidden, counts))


MAX_DRAFT_TOKENS = 64
"""Tokens of one sequence's drafts in one forward."""


@torch.inference_mode()
def decode(
    forward: Forward,
    batch: DecodeBatch,
    pending: Sequence[Sequence[int]],
    written: Sequence[Written],
    drafts: Sequence[Draft],
    writing: Writing,
) -> list[tuple[int, ...]]:
    """Compute what is ``pending`` in every slot and write what follows: one token, or a draft more.

    Returns what is pending then; nothing in a sequence that has ended. Those with nothing pending
    rest.
    """
    going = [n for n, ids in enumerate(pending) if ids]
    tried: list[tuple[tuple[int, ...], ...]] = [()] * len(pending)
    for n in going:
        tried[n] = _bounded(drafts[n](written[n].ids))
    states = batch.step(pending, tried)
    at = {n: len(pending[n]) - 1 for n in going}
    new: list[tuple[int, ...]] = [()] * len(pending)
    while going:
        logits = forward.logits(torch.stack([states[n][at[n]] for n in going]))
        tokens = write_step(logits, [written[n] for n in going], writing)
        accepted = []
        for n, token in zip(going, tokens, strict=True):
            if written[n].ended:
                new[n] = ()
                continue
            new[n] += (token,)
            place = _place(tried[n], new[n])
            if place is not None:
                at[n] = len(pending[n]) + place
                accepted.append(n)
        going = accepted
    return new


def _bounded(drafts: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The first of them that take no more than ``MAX_DRAFT_TOKENS`` together."""
    kept, left = [], MAX_DRAFT_TOKENS
    for draft in drafts:
        left -= len(draft)
        if left < 0:
            break
        kept.append(draft)
    return tuple(kept)


def _place(drafts: Sequence[tuple[int, ...]], path: tuple[int, ...]) -> int | None:
    """Where a path ends among the drafts' tokens, one draft after the other; None outside them."""
    start = 0
    for draft in drafts:
        if draft[: len(path)] == path:
            return start + len(path) - 1
        start += len(draft)
    return None
