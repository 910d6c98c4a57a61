"""One forward of the text model over a varlen batch: from token ids to what is asked for.

What the plain model computes and nobody looks at is left out: padding, logits of tokens that are
not asked about (1.34 GFLOP each at the 4B shape), and in the last layer everything of those tokens
but their keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.judge.engine.backend import Backend
from worker.judge.engine.backends import choose, make
from worker.judge.engine.batch import InputSequence, VarlenBatch
from worker.judge.engine.kv_cache import LayerKV, SequenceKV
from worker.judge.engine.model import TextWeights


@dataclass(frozen=True)
class Forwarded:
    """By sequence, in the caller's order: logits (wanted, vocabulary) in float32, keys and values.

    ``kept`` covers a sequence's own ids, without branches; None where they were not to be kept.
    """

    logits: list[torch.Tensor]
    kept: list[SequenceKV | None]


class Forward:
    """Runs batches through one set of weights.

    Not thread-safe: it belongs to the device thread.
    """

    def __init__(self, weights: TextWeights, backend: Backend | None = None) -> None:
        self.weights = weights
        self.backend = backend or make(choose("auto", weights.device), weights)

    @torch.inference_mode()
    def run(self, sequences: Sequence[InputSequence], *, keep: Sequence[bool] = ()) -> Forwarded:
        """Logits of every sequence's wanted tokens; keys and values of those marked in ``keep``."""
        batch = VarlenBatch(sequences)
        kept = dict(enumerate(keep))
        layers: list[LayerKV] | None = [] if any(kept.values()) else None
        h = self.hidden(batch, layers)
        logits = self.logits(h) if batch.wanted else h.new_empty(0, 0)
        return self._apart(batch, logits, layers or [], kept)

    @torch.inference_mode()
    def hidden(self, batch: VarlenBatch, layers: list[LayerKV] | None = None) -> torch.Tensor:
        """What the last layer and the final norm make of the wanted tokens, (wanted, hidden).

        Every layer's keys and values are added to ``layers``.
        """
        weights, backend, shape = self.weights, self.backend, self.weights.shape
        plan = backend.plan(batch)
        rotations = weights.rotations(plan.positions)
        x: torch.Tensor = weights.embed(plan.ids)
        for start, image in batch.images:
            x[start + image.start : start + image.end] = image.embedding.to(x)
        h: Any = backend.norm(x, 0)
        for number, layer in enumerate(weights.layers):
            query, key, value = backend.project(layer, h, rotations[layer.sliding])
            if layers is not None:
                layers.append((key, value))
            if number == shape.layers - 1:
                if not batch.wanted:
                    return x.new_empty(0, shape.hidden)
                query, x = query[plan.wanted], x[plan.wanted]
            out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
            backend.attend(plan, number, query, key, value, out)
            x, h = backend.finish(number, x, out.flatten(1))
        states: torch.Tensor = h
        return states

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The head: (tokens, vocabulary) in float32."""
        logits: torch.Tensor = self.weights.head(hidden).float()
        return logits

    def _apart(
        self,
        batch: VarlenBatch,
        logits: torch.Tensor,
        layers: list[LayerKV],
        keep: dict[int, bool],
    ) -> Forwarded:
        """What belongs to which sequence, in the caller's order."""
        found: list[torch.Tensor] = [logits] * len(batch.sequences)
        kept: list[SequenceKV | None] = [None] * len(batch.sequences)
        start = 0
        for index, each, span in zip(batch.order, batch.sequences, batch.spans, strict=True):
            found[index] = logits[start : start + len(each.wanted)]
            start += len(each.wanted)
            if keep.get(index):
                kept[index] = self._kept(each, span, layers)
        return Forwarded(found, kept)

    def _kept(self, sequence: InputSequence, span: range, layers: list[LayerKV]) -> SequenceKV:
        new = self.backend.segment(layers, span.start, span.start + len(sequence.ids))
        past = sequence.past
        if past is None:
            return SequenceKV(sequence.prefix, sequence.ids, sequence.start, new)
        assert isinstance(past, SequenceKV)
        joined = past.kv.followed_by(new)
        return SequenceKV(sequence.prefix, past.ids + sequence.ids, past.start, joined)
