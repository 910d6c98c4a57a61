"""Image embeddings: the vision tower in batches, its results kept by content digest."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from worker.judge.reference.decode import Context

TOWER_BATCH = 16
"""Images in one forward of the vision tower."""


class ImageEmbeddings:
    """Soft tokens of images, (tokens, hidden) each. The least recently used go first.

    Not thread-safe: it belongs to the device thread.
    """

    def __init__(self, model: Any, budget: int) -> None:
        self._model, self._budget = model, budget
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._kept)

    @torch.inference_mode()
    def embed(self, contexts: Sequence[Context]) -> list[torch.Tensor | None]:
        """The image of every context, None where there is none; each is computed once."""
        found: dict[int, torch.Tensor] = {}
        fresh: dict[str, list[int]] = {}
        for place, context in enumerate(contexts):
            if context.pixels is None:
                continue
            kept = self._kept.get(context.digest) if context.digest else None
            if kept is None:
                fresh.setdefault(context.digest or f"#{place}", []).append(place)
            else:
                self._kept.move_to_end(context.digest)
                found[place] = kept
                self.hits += 1
        places = list(fresh.values())
        for start in range(0, len(places), TOWER_BATCH):
            batch = places[start : start + TOWER_BATCH]
            pixels = torch.cat([contexts[same[0]].pixels for same in batch])  # type: ignore[misc]
            outputs = self._model.model.get_image_features(pixels.to(self._model.device))
            for same, embedding in zip(batch, outputs.pooler_output, strict=True):
                self.misses += 1
                self.hits += len(same) - 1
                found.update(dict.fromkeys(same, embedding))
                self._keep(contexts[same[0]].digest, embedding)
        return [found.get(place) for place in range(len(contexts))]

    def _keep(self, digest: str, embedding: torch.Tensor) -> None:
        if not digest or embedding.nbytes > self._budget or not torch.isfinite(embedding).all():
            return  # what is no number may be one the next time
        self._kept[digest] = embedding.clone()  # not a view of the whole batch
        self.bytes += embedding.nbytes
        while self.bytes > self._budget:
            _, gone = self._kept.popitem(last=False)
            self.bytes -= gone.nbytes
