"""From a judge's contexts to rows of the packed forward, and on from what was computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worker.judge.decode import Context, Writing, Written, write_step
from worker.judge.engine.forward import Forward
from worker.judge.engine.keys import OwnKV, windowed
from worker.judge.engine.packing import Picture, Row
from worker.judge.engine.prefixes import Prefixes
from worker.judge.engine.slots import Slots

SLACK = 64
"""Tokens that sliding layers keep beyond their window, so that a row's end can be taken back."""


def shared(mine: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens two texts have in common from their start."""
    for count, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        if one != other:
            return count
    return min(len(mine), len(theirs))


def row_for(
    context: Context,
    prefixes: Prefixes,
    *,
    tail: Sequence[int] = (),
    known: OwnKV | None = None,
    embedding: torch.Tensor | None = None,
) -> Row:
    """The row that computes a context and ``tail`` behind it, but for what is ``known`` of it.

    The last token of the context is always computed: its logits are asked for.
    """
    own = context.ids[context.policy :]
    if known is not None:
        common = min(shared(own, known.ids), len(own) - 1)
        known = known.cut(common, prefixes.window)
    if known is not None:
        return Row(ids=(*own[len(known.ids) :], *tail), prefix=known.prefix, past=known)
    prefix = prefixes.get(context.ids[: context.policy]) if context.policy else None
    picture = None
    if embedding is not None:
        picture = Picture(context.types.index(1) - context.policy, embedding)
    return Row(ids=(*own, *tail), prefix=prefix, picture=picture)


def trimmed(own: OwnKV, forward: Forward) -> OwnKV:
    """The same row, with sliding layers cut to what can still be seen from its end."""
    weights = forward.weights
    sliding = [layer.sliding for layer in weights.layers]
    layers = windowed(own.layers, sliding, weights.shape.window - 1 + SLACK)
    return OwnKV(own.prefix, own.ids, own.start, tuple(layers))


class ComputedRows:
    """Implements ``labelling.Computed``: rows that went through the packed forward."""

    def __init__(self, forward: Forward, rows: Sequence[OwnKV]) -> None:
        self._forward, self._rows = forward, rows

    def logits_of(
        self, rows: Sequence[int], contexts: Sequence[Context], counts: Sequence[int]
    ) -> list[torch.Tensor]:
        slots, pending = self._slots(rows, contexts, counts)
        return slots.extend(pending, counts)

    def write(
        self,
        rows: Sequence[int],
        contexts: Sequence[Context],
        budgets: Sequence[int],
        writing: Writing,
    ) -> list[Written]:
        slots, pending = self._slots(rows, contexts, [1] * len(rows))
        written = [Written(budget) for budget in budgets]
        while any(pending):
            open_rows = [n for n, ids in enumerate(pending) if ids]
            logits = slots.extend(pending, [1 if ids else 0 for ids in pending])
            stacked = torch.cat([logits[n] for n in open_rows])
            tokens = write_step(stacked, [written[n] for n in open_rows], writing)
            pending = [()] * len(pending)
            for n, token in zip(open_rows, tokens, strict=True):
                if not written[n].ended:
                    pending[n] = (token,)
        return written

    def row(self, row: int) -> OwnKV:
        """Copied out of the batch, which would stay in memory with it."""
        own = trimmed(self._rows[row], self._forward)
        layers = tuple((key.clone(), value.clone()) for key, value in own.layers)
        return OwnKV(own.prefix, own.ids, own.start, layers)

    def _slots(
        self, rows: Sequence[int], contexts: Sequence[Context], counts: Sequence[int]
    ) -> tuple[Slots, list[tuple[int, ...]]]:
        """Slots that hold what each context shares with its row, and the tokens that are left."""
        slots, pending = Slots(self._forward), []
        window = self._forward.weights.shape.window
        for row, context, count in zip(rows, contexts, counts, strict=True):
            own = context.ids[context.policy :]
            known = self._rows[row]
            held = known.cut(min(shared(own, known.ids), len(own) - count), window)
            assert held is not None, "rows keep more than a window behind their end"
            pending.append(own[len(held.ids) :])
            slots.add(held, len(pending[-1]))
        return slots, pending
