"""From a judge's contexts to rows of the packed forward, and on from what was computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from worker.judge.engine.batch import Picture, Row
from worker.judge.engine.decode_batch import Slots, write_on
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.kv_cache import OwnKV, windowed
from worker.judge.engine.prefix_cache import Prefixes
from worker.judge.reference.decode import Context, Guess, Writing, Written, no_guess

SLACK = 64
"""Tokens that sliding layers keep beyond their window, so that a row's end can be taken back."""


def shared(mine: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens two texts have in common from their start."""
    for count, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        if one != other:
            return count
    return min(len(mine), len(theirs))


def going_on(context: Context, known: OwnKV | None, window: int) -> OwnKV | None:
    """What of ``known`` a context can go on from; None where it has to begin anew.

    The last token of the context is always computed: its logits are asked for.
    """
    if known is None:
        return None
    own = context.ids[context.policy :]
    known = known.cut(min(shared(own, known.ids), len(own) - 1), window)
    picture = _picture(context)
    if known is not None and picture is not None and len(known.ids) in picture[1:]:
        return None  # it ends between tokens that see each other both ways
    return known


def shows(context: Context, known: OwnKV | None) -> bool:
    """Whether an image lies behind what is known, so that its embedding is needed."""
    picture = _picture(context)
    return picture is not None and (known is None or len(known.ids) <= picture.start)


def _picture(context: Context) -> range | None:
    """The image's tokens among the context's own."""
    if context.pixels is None:
        return None
    start = context.types.index(1) - context.policy
    return range(start, start + sum(context.types))


def row_for(
    context: Context,
    prefixes: Prefixes,
    *,
    tail: Sequence[int] = (),
    known: OwnKV | None = None,
    embedding: torch.Tensor | None = None,
) -> Row:
    """The row that computes a context and ``tail`` behind it, but for what is ``known`` of it.

    ``known`` comes from ``going_on``; ``embedding`` is needed where the row ``shows`` an image.
    """
    own = context.ids[context.policy :]
    picture, done = None, len(known.ids) if known is not None else 0
    if shows(context, known):
        assert embedding is not None, "an image's tokens mean nothing without its embedding"
        picture = Picture(context.types.index(1) - context.policy - done, embedding)
    if known is not None:
        prefix = known.prefix
    else:
        prefix = prefixes.get(context.ids[: context.policy]) if context.policy else None
    return Row(ids=(*own[done:], *tail), prefix=prefix, past=known, picture=picture)


def rows_for(
    contexts: Sequence[Context],
    known: Sequence[OwnKV | None],
    prefixes: Prefixes,
    images: ImageEmbeddings,
    *,
    tail: Sequence[int] = (),
) -> list[Row]:
    """``row_for`` of every context, with the images that are not part of what is known."""
    pairs = [
        (context, going_on(context, each, prefixes.window))
        for context, each in zip(contexts, known, strict=True)
    ]
    embeddings = iter(images.embed([context for context, each in pairs if shows(context, each)]))
    return [
        row_for(
            context,
            prefixes,
            tail=tail,
            known=each,
            embedding=next(embeddings) if shows(context, each) else None,
        )
        for context, each in pairs
    ]


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
        guesses: Sequence[Guess] = (),
    ) -> list[Written]:
        written = [Written(budget) for budget in budgets]
        guesses = guesses or [no_guess] * len(rows)
        for part in self._alike(contexts):
            self._write(
                [rows[n] for n in part],
                [contexts[n] for n in part],
                [written[n] for n in part],
                [guesses[n] for n in part],
                writing,
            )
        return written

    def _alike(self, contexts: Sequence[Context]) -> Iterator[list[int]]:
        """Contexts whose slots, each as wide as the longest, take no more room than the batch."""
        lengths = [len(context) - context.policy for context in contexts]
        most = max(sum(lengths), sum(len(row.ids) for row in self._rows))
        part: list[int] = []
        for n in sorted(range(len(contexts)), key=lambda n: -lengths[n]):
            if part and lengths[part[0]] * (len(part) + 1) > most:
                yield part
                part = []
            part.append(n)
        if part:
            yield part

    def _write(
        self,
        rows: Sequence[int],
        contexts: Sequence[Context],
        written: Sequence[Written],
        guesses: Sequence[Guess],
        writing: Writing,
    ) -> None:
        slots, pending = self._slots(rows, contexts, [1] * len(rows))
        while any(pending):
            pending = write_on(self._forward, slots, pending, written, guesses, writing)

    def row(self, row: int) -> OwnKV:
        """Copied out of the batch, which would stay in memory with it."""
        own = trimmed(self._rows[row], self._forward)
        layers = tuple((key.clone(), value.clone()) for key, value in own.layers)
        return OwnKV(own.prefix, own.ids, own.start, layers)

    def _slots(
        self, rows: Sequence[int], contexts: Sequence[Context], counts: Sequence[int]
    ) -> tuple[Slots, list[tuple[int, ...]]]:
        """Slots that hold what each context shares with its row, and the tokens that are left."""
        slots, pending = Slots(self._forward, rows=len(rows)), []
        window = self._forward.weights.shape.window
        for row, context, count in zip(rows, contexts, counts, strict=True):
            own = context.ids[context.policy :]
            known = self._rows[row]
            held = known.cut(min(shared(own, known.ids), len(own) - count), window)
            assert held is not None, "rows keep more than a window behind their end"
            pending.append(own[len(held.ids) :])
            slots.add(held, len(pending[-1]))
        return slots, pending
