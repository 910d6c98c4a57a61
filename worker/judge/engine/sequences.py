"""From a judge's contexts to sequences of a varlen batch, and on from what was computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from worker.judge.engine.batch import ImageSpan, InputSequence
from worker.judge.engine.decode_batch import DecodeBatch, decode
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.kv_cache import SequenceKV
from worker.judge.engine.prefix_cache import PrefixCache
from worker.judge.reference.decode import Context, Draft, Writing, Written, no_draft


def common(mine: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens two texts have in common from their start."""
    for count, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        if one != other:
            return count
    return min(len(mine), len(theirs))


def going_on(context: Context, known: SequenceKV | None, window: int) -> SequenceKV | None:
    """What of ``known`` a context can go on from; None where it has to begin anew.

    The last token of the context is always computed: its logits are asked for.
    """
    if known is None:
        return None
    own = context.ids[context.policy :]
    known = known.cut(min(common(own, known.ids), len(own) - 1), window)
    image = _image(context)
    if known is not None and image is not None and len(known.ids) in image[1:]:
        return None  # it ends between tokens that see each other both ways
    return known


def shows(context: Context, known: SequenceKV | None) -> bool:
    """Whether an image lies behind what is known, so that its embedding is needed."""
    image = _image(context)
    return image is not None and (known is None or len(known.ids) <= image.start)


def _image(context: Context) -> range | None:
    """The image's tokens among the context's own."""
    if context.pixels is None:
        return None
    start = context.types.index(1) - context.policy
    return range(start, start + sum(context.types))


def sequence_for(
    context: Context,
    prefixes: PrefixCache,
    *,
    tail: Sequence[int] = (),
    known: SequenceKV | None = None,
    embedding: torch.Tensor | None = None,
) -> InputSequence:
    """The sequence that computes a context and ``tail`` behind it, but for what is ``known`` of it.

    ``known`` comes from ``going_on``; ``embedding`` is needed where it ``shows`` an image.
    """
    own = context.ids[context.policy :]
    image, done = None, len(known.ids) if known is not None else 0
    if shows(context, known):
        assert embedding is not None, "an image's tokens mean nothing without its embedding"
        image = ImageSpan(context.types.index(1) - context.policy - done, embedding)
    if known is not None:
        prefix = known.prefix
    else:
        prefix = prefixes.get(context.ids[: context.policy]) if context.policy else None
    return InputSequence(ids=(*own[done:], *tail), prefix=prefix, past=known, image=image)


def sequences_for(
    contexts: Sequence[Context],
    known: Sequence[SequenceKV | None],
    prefixes: PrefixCache,
    images: ImageEmbeddings,
    *,
    tail: Sequence[int] = (),
) -> list[InputSequence]:
    """``sequence_for`` of every context, with the images that are not part of what is known."""
    pairs = [
        (context, going_on(context, each, prefixes.window))
        for context, each in zip(contexts, known, strict=True)
    ]
    embeddings = iter(images.embed([context for context, each in pairs if shows(context, each)]))
    return [
        sequence_for(
            context,
            prefixes,
            tail=tail,
            known=each,
            embedding=next(embeddings) if shows(context, each) else None,
        )
        for context, each in pairs
    ]


class ComputedSequences:
    """Implements ``label_scores.Computed``: sequences that went through a forward."""

    def __init__(self, forward: Forward, known: Sequence[SequenceKV]) -> None:
        self._forward, self._known = forward, known

    def logits_of(
        self, rows: Sequence[int], contexts: Sequence[Context], counts: Sequence[int]
    ) -> list[torch.Tensor]:
        batch, pending = self._batch(rows, contexts, counts)
        return batch.extend(pending, counts)

    def write(
        self,
        rows: Sequence[int],
        contexts: Sequence[Context],
        budgets: Sequence[int],
        writing: Writing,
        drafts: Sequence[Draft] = (),
    ) -> list[Written]:
        written = [Written(budget) for budget in budgets]
        drafts = drafts or [no_draft] * len(rows)
        for part in self._alike(contexts):
            self._write(
                [rows[n] for n in part],
                [contexts[n] for n in part],
                [written[n] for n in part],
                [drafts[n] for n in part],
                writing,
            )
        return written

    def _alike(self, contexts: Sequence[Context]) -> Iterator[list[int]]:
        """Contexts whose slots, each as wide as the longest, take no more room than the batch."""
        lengths = [len(context) - context.policy for context in contexts]
        most = max(sum(lengths), sum(len(each.ids) for each in self._known))
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
        drafts: Sequence[Draft],
        writing: Writing,
    ) -> None:
        batch, pending = self._batch(rows, contexts, [1] * len(rows))
        while any(pending):
            pending = decode(self._forward, batch, pending, written, drafts, writing)

    def known(self, row: int) -> SequenceKV:
        """Copied out of the batch, which would stay in memory with it."""
        return self._known[row].trimmed(self._forward.weights).copied()

    def _batch(
        self, rows: Sequence[int], contexts: Sequence[Context], counts: Sequence[int]
    ) -> tuple[DecodeBatch, list[tuple[int, ...]]]:
        """A batch that holds what each context shares with its sequence, and what is left."""
        batch, pending = DecodeBatch(self._forward, least=len(rows)), []
        window = self._forward.weights.shape.window
        for row, context, count in zip(rows, contexts, counts, strict=True):
            own = context.ids[context.policy :]
            known = self._known[row]
            held = known.cut(min(common(own, known.ids), len(own) - count), window)
            assert held is not None, "sequences keep more than a window behind their end"
            pending.append(own[len(held.ids) :])
            batch.add(held, len(pending[-1]))
        return batch, pending
