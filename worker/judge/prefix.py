"""Contexts that went through the model once, and forwards that go on from there.

Rows are padded on the left from the first slot and end together, so the kept slots (all but the
last ``keep``) hold no padding behind a token and a row's sliding window stays in place. That makes
going on exact for Gemma 3 (transformers 5.17), below and above its window: attention masks count
slots. Images are whole in the kept part; their tokens attend both ways there, and text behind them
looks back as always.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from worker.judge.decode import Context, GreedyStream, Guess, Writing, Written, last_logits


class Prefix:
    """Keys and values of ``contexts``, all but their last slots; never written to again.

    A row may be gone on from any number of times, with any context that shares its kept tokens.
    """

    def __init__(self, model: Any, contexts: Sequence[Context], pad: int, cache: Any) -> None:
        self._model, self._pad, self._cache = model, pad, cache
        width = max(len(context) for context in contexts)
        self._offsets = [width - len(context) for context in contexts]
        self._kept: int = cache.get_seq_length()

    @classmethod
    def compute(
        cls, model: Any, contexts: Sequence[Context], pad: int, keep: int
    ) -> tuple[Prefix, torch.Tensor]:
        """The prefix without the last ``keep`` slots, and their logits: (rows, keep, vocabulary).

        Every layer holds every slot of the batch while the prefix lives, sliding layers too.
        """
        cache = DynamicCache(config=model.config)
        cache.activate_past_recording()  # else a window that is full could not be cut
        logits = last_logits(model, contexts, pad, keep, cache)
        cache.crop(-logits.shape[1])
        for layer in cache.layers:
            if getattr(layer, "record_past", False):
                layer.record_past = False
        return cls(model, contexts, pad, cache), logits

    def width(self, row: int, context: Context) -> int:
        """Slots that a context takes in this row; rows of one width can be written together."""
        return self._offsets[row] + len(context)

    def inputs(self, rows: Sequence[int], contexts: Sequence[Context]) -> dict[str, Any]:
        """Model inputs that go on with ``contexts`` in ``rows`` (repeats allowed), padded right.

        The mask covers the kept slots too: (rows, kept + new); ids and positions only the new ones.

        Raises:
            ValueError: an image's tokens are among the new ones.
        """
        width = max(self.width(row, each) for row, each in zip(rows, contexts, strict=True))
        ids = torch.full((len(rows), width), self._pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for place, (row, context) in enumerate(zip(rows, contexts, strict=True)):
            start, end = self._offsets[row], self.width(row, context)
            if any(context.types[max(self._kept - start, 0) :]):
                raise ValueError("an image's tokens can only be computed with the whole context")
            ids[place, start:end] = torch.tensor(context.ids)
            mask[place, start:end] = 1
        device = self._model.device
        return {
            "input_ids": ids[:, self._kept :].to(device),
            "attention_mask": mask.to(device),
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, self._kept :].to(device),
            "past_key_values": self._fork(rows),
        }

    @torch.inference_mode()
    def logits_of(
        self, rows: Sequence[int], contexts: Sequence[Context], counts: Sequence[int]
    ) -> list[torch.Tensor]:
        """Per context the logits of its last ``count`` tokens: (count, vocabulary) each."""
        inputs = self.inputs(rows, contexts)
        ends = [
            self.width(row, context) - self._kept
            for row, context in zip(rows, contexts, strict=True)
        ]
        spans = [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
        wanted = sorted({slot for span in spans for slot in span})
        places = torch.tensor(wanted, device=self._model.device)
        logits = self._model(**inputs, logits_to_keep=places, use_cache=True).logits
        order = {slot: n for n, slot in enumerate(wanted)}
        return [logits[n, [order[slot] for slot in span]] for n, span in enumerate(spans)]

    def write(
        self,
        rows: Sequence[int],
        contexts: Sequence[Context],
        budgets: Sequence[int],
        writing: Writing,
        guesses: Sequence[Guess] = (),
    ) -> list[Written]:
        """Greedy text behind every context; those that end in one slot are written together."""
        written: dict[int, Written] = {}
        widths = [self.width(row, context) for row, context in zip(rows, contexts, strict=True)]
        for width in sorted(set(widths)):
            same = [n for n, each in enumerate(widths) if each == width]
            stream = GreedyStream(
                self._model,
                [contexts[n] for n in same],
                [budgets[n] for n in same],
                pad=self._pad,
                writing=writing,
                prefix=self,
                prefix_rows=[rows[n] for n in same],
            )
            written.update(zip(same, stream.run(), strict=True))
        return [written[n] for n in range(len(rows))]

    def row(self, row: int) -> None:
        """Nothing outlives the batch."""

    def _fork(self, rows: Sequence[int]) -> DynamicCache:
        """A cache to write on. Layers replace their tensors and never change them, so rows that
        are all taken are shared, and others copied."""
        forked = copy.copy(self._cache)
        forked.layers = [copy.copy(layer) for layer in self._cache.layers]
        if list(rows) != list(range(len(self._offsets))):
            forked.batch_select_indices(torch.tensor(rows, device=self._model.device))
        return forked
