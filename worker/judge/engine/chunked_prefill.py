"""Chunked prefill: a long context computed chunk by chunk between the batches of short ones.

Each chunk meets the policy's keys, the keys of the chunks before it, and itself. Sliding layers
forget what lies more than a window back, so only the full layers grow with the context.
"""

from __future__ import annotations

import dataclasses

from worker.judge.engine.batch import ImageSpan, InputSequence
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.kv_cache import SequenceKV
from worker.judge.engine.prefix_cache import PrefixCache
from worker.judge.engine.sequences import sequences_for
from worker.judge.local.requests import ScoreRequest


class ChunkedPrefill:
    """Implements ``device.Prefill`` for one request. Belongs to the device thread."""

    def __init__(
        self,
        forward: Forward,
        prefixes: PrefixCache,
        images: ImageEmbeddings,
        request: ScoreRequest,
        chunk: int,
    ) -> None:
        self._forward, self._prefixes, self._images = forward, prefixes, images
        self._ask, self._chunk = request, chunk
        self._whole: InputSequence | None = None
        self._past: SequenceKV | None = None
        self._done = 0

    def step(self) -> ScoreRequest | None:
        if self._whole is None:
            context = self._ask.context
            (self._whole,) = sequences_for([context], [None], self._prefixes, self._images)
        whole = self._whole
        if len(whole.ids) - self._done > self._chunk:
            self._compute(whole, self._end(whole))
        if len(whole.ids) - self._done > self._chunk:
            return None
        return dataclasses.replace(self._ask, known=self._past)

    def _end(self, whole: InputSequence) -> int:
        """Where the next chunk ends; an image's tokens see each other, so it is never cut."""
        end = min(self._done + self._chunk, len(whole.ids) - 1)
        image = whole.image
        if image is not None and image.start < end < image.end:
            return image.end
        return end

    def _compute(self, whole: InputSequence, end: int) -> None:
        start = self._done
        image = whole.image
        if image is not None and not start <= image.start < end:
            image = None
        elif image is not None:
            image = ImageSpan(image.start - start, image.embedding)
        chunk = InputSequence(
            ids=whole.ids[start:end], prefix=whole.prefix, past=self._past, image=image
        )
        kept = self._forward.run([chunk], keep=[True]).kept[0]
        assert kept is not None
        self._past, self._done = kept.trimmed(self._forward.weights), end
