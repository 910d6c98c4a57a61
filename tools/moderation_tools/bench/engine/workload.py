"""Events of the real template's lengths, as token ids (reference: template of the model card)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker.judge.engine.batch import ImageSpan, InputSequence
from worker.judge.engine.kv_cache import SequenceKV
from worker.judge.engine.prefix_cache import PrefixCache

EVENT = 50
"""Tokens of an event's own text."""
TAIL = 140
"""Tokens of the constant text behind it."""
ANSWER = 3
"""Tokens of ``User Safety:``, behind which the label is read."""
IMAGE = 256
"""Soft tokens of an image."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a policy's prefix, and how many policies take turns."""

    prefix: int
    policies: int = 1


class Workload:
    """Seeded random token ids of given lengths."""

    def __init__(self, vocabulary: int, lengths: Lengths, seed: int = 1) -> None:
        self._draw = torch.Generator().manual_seed(seed)
        self._vocabulary = vocabulary
        self.policies = [self.ids(lengths.prefix) for _ in range(lengths.policies)]

    def ids(self, count: int) -> tuple[int, ...]:
        """``count`` token ids."""
        drawn = torch.randint(16, self._vocabulary - 16, (count,), generator=self._draw)
        return tuple(drawn.tolist())

    def contexts(self, count: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(policy, event and tail) of ``count`` events; policies take turns."""
        return [
            (self.policies[n % len(self.policies)], self.ids(EVENT + TAIL)) for n in range(count)
        ]

    def rows(
        self, prefixes: PrefixCache, count: int, pictures: list[torch.Tensor] | None = None
    ) -> list[InputSequence]:
        """The same as the engine computes them: prefix shared, labels wanted."""
        rows = []
        for number, (policy, own) in enumerate(self.contexts(count)):
            picture = None
            if pictures is not None:
                own = self.ids(IMAGE) + own
                picture = ImageSpan(1, pictures[number][: IMAGE - 1])
            ids = own + self.ids(ANSWER)
            wanted = tuple(range(len(own) - 1, len(ids)))
            rows.append(
                InputSequence(ids=ids, prefix=prefixes.get(policy), image=picture, wanted=wanted)
            )
        return rows


def behind_image(row: InputSequence, known: SequenceKV) -> InputSequence:
    """An image event's row as it is computed once its image is ``known`` under its policy."""
    wanted = tuple(place - IMAGE for place in row.wanted)
    return InputSequence(ids=row.ids[IMAGE:], prefix=row.prefix, past=known, wanted=wanted)
