"""Whether the hundred-thousandth event costs what the thousandth cost, in time and in memory.

The model is so small that its products do not matter; everything that the engine keeps and makes
for an event is there at full size: policies, packing, masks, images seen before, traces.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from moderation_tools.bench.engine.model import random_model
from moderation_tools.bench.engine.workload import IMAGE, Lengths, Workload
from worker.judge.engine.decode_batch import DecodeBatch
from worker.judge.engine.forward import Forward
from worker.judge.engine.image_embeddings import ImageEmbeddings
from worker.judge.engine.model import TextWeights
from worker.judge.engine.prefix_cache import PrefixCache
from worker.judge.reference.decode import Context

WARM_UP = 500
"""Events before the first one that counts."""
BATCH = 20
"""Events in one forward."""
POLICIES = 50
IMAGES = 400
"""Different images; an eighth of them are kept, so that embeddings come and go."""
TRACE = 4
"""Tokens of the trace that the first event of every batch gets."""


class Mark(NamedTuple):
    """After so many ``events``: seconds of process CPU time an event (median of the batches since
    the mark before), and ``resident`` bytes of the process."""

    events: int
    cpu: float
    resident: int


class _Stream:
    """Random events: all policies mixed, one in twenty with an image, one in twenty with THINK."""

    def __init__(self, device: torch.device) -> None:
        model = random_model("small", device, torch.float32)
        config = model.config
        self._forward = Forward(TextWeights(model))
        self._prefixes = PrefixCache(self._forward, 2**30)
        embedding = IMAGE * config.text_config.hidden_size * 4
        self._images = ImageEmbeddings(model, embedding * IMAGES // 8)
        self._work = Workload(config.text_config.vocab_size, Lengths(320, POLICIES))
        size = config.vision_config.image_size
        self._pixels = torch.rand(IMAGES, 3, size, size, device=device)
        self._shown = 0

    def batch(self) -> None:
        """Judge one batch of new events."""
        (embedding,) = self._images.embed([self._picture()])
        assert embedding is not None
        rows = self._work.rows(self._prefixes, BATCH - 1)
        rows += self._work.rows(self._prefixes, 1, [embedding])
        kept = self._forward.run(rows, keep=[True] * len(rows)).kept
        slots = DecodeBatch(self._forward)
        assert kept[0] is not None
        slots.add(kept[0], TRACE)
        for token in range(TRACE):
            slots.extend([(16 + token,)], [1])

    def _picture(self) -> Context:
        # Every second one was shown shortly before.
        number = self._shown // 2 % IMAGES if self._shown % 2 else self._shown * 7 % IMAGES
        self._shown += 1
        return Context((), pixels=self._pixels[number : number + 1], digest=str(number))


def marks(device: torch.device, at: Sequence[int]) -> Iterator[Mark]:
    """A mark at each of these numbers of events, ascending, behind the warm-up."""
    stream, done = _Stream(device), 0
    for _ in range(WARM_UP // BATCH):
        stream.batch()
    for events in at:
        costs = []
        while done < events:
            began = time.process_time()
            stream.batch()
            costs.append((time.process_time() - began) / BATCH)
            done += BATCH
        yield Mark(done, statistics.median(costs), _resident())


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
