"""A long context, computed piece by piece between the batches of short ones.

Each piece meets the policy's keys, the keys of the pieces before it, and itself. Sliding layers
forget what lies more than a window back, so only the full layers grow with the context.
"""

from __future__ import annotations

import dataclasses

from worker.judge.engine.batch import Picture, Row
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.kv_cache import OwnKV
from worker.judge.engine.prefix_cache import Prefixes
from worker.judge.engine.sequences import rows_for, trimmed
from worker.judge.local.requests import Ask


class LongContext:
    """Implements ``device.Prefill`` for one ask. Belongs to the device thread."""

    def __init__(
        self,
        forward: Forward,
        prefixes: Prefixes,
        images: ImageEmbeddings,
        ask: Ask,
        piece: int,
    ) -> None:
        self._forward, self._prefixes, self._images = forward, prefixes, images
        self._ask, self._piece = ask, piece
        self._row: Row | None = None
        self._past: OwnKV | None = None
        self._done = 0

    def step(self) -> Ask | None:
        if self._row is None:
            context = self._ask.context
            (self._row,) = rows_for([context], [None], self._prefixes, self._images)
        row = self._row
        if len(row.ids) - self._done > self._piece:
            self._compute(row, self._end(row))
        if len(row.ids) - self._done > self._piece:
            return None
        return dataclasses.replace(self._ask, row=self._past)

    def _end(self, row: Row) -> int:
        """Where the next piece ends; an image's tokens see each other, so it is never cut."""
        end = min(self._done + self._piece, len(row.ids) - 1)
        picture = row.picture
        if picture is not None and picture.start < end < picture.end:
            return picture.end
        return end

    def _compute(self, row: Row, end: int) -> None:
        start = self._done
        picture = row.picture
        if picture is not None and not start <= picture.start < end:
            picture = None
        elif picture is not None:
            picture = Picture(picture.start - start, picture.embedding)
        piece = Row(ids=row.ids[start:end], prefix=row.prefix, past=self._past, picture=picture)
        kept = self._forward.run([piece], keep=[True]).kept[0]
        assert kept is not None
        self._past, self._done = trimmed(kept, self._forward), end
