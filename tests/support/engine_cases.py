"""Contexts of random tokens for the engine: every length on both sides of a small window."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import torch

from tests.support.checkpoints import make_checkpoint
from worker.judge.engine.kv_cache import KVSegment
from worker.judge.local.loading import Checkpoint
from worker.judge.local.requests import ScoreRequest
from worker.judge.reference.decode import Context
from worker.policy.passes import builtin_rubric

WINDOW = 48
"""Sliding window of these checkpoints: a context crosses it cheaply."""
IMAGE = 16
"""Soft tokens of an image: a third of the window."""
FIRST, LAST = 20, 880
"""Token ids of ordinary text."""
RUBRIC = builtin_rubric(())


def small_window(directory: Path) -> Path:
    """A checkpoint with that window and two adapters."""
    return make_checkpoint(
        directory, window=WINDOW, image_tokens=IMAGE, adapters={"first": 2, "second": 3}
    )


@dataclass(frozen=True)
class Case:
    """One context, the same with the other THINK switch, and how it is judged."""

    context: Context
    thinking: Context
    response: bool
    adapter: str | None
    threshold: float

    def ask(self, **changes: Any) -> ScoreRequest:
        given: dict[str, Any] = {
            "context": self.context,
            "response": self.response,
            "rubric": RUBRIC,
            "threshold": self.threshold,
            "category_budget": 10,
        }
        return ScoreRequest(**(given | changes))


def text(rng: random.Random, longest: int, shortest: int = 1) -> tuple[int, ...]:
    """Tokens of a number drawn evenly on a logarithmic scale."""
    count = round(shortest * (longest / shortest) ** rng.random())
    return tuple(rng.randint(FIRST, LAST) for _ in range(count))


def picture(rng: random.Random) -> tuple[torch.Tensor, str]:
    """Pixels (1, 3, 56, 56) as the image processor scales them, and a digest."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    pixels = torch.rand(1, 3, 56, 56, generator=generator) * 2 - 1
    return pixels, hashlib.sha256(pixels.numpy().tobytes()).hexdigest()


def of_no_numbers(kv: KVSegment) -> KVSegment:
    """Keys and values of the same tokens, all NaN."""
    layers = tuple((torch.full_like(k, nan), torch.full_like(v, nan)) for k, v in kv.layers)
    return KVSegment(layers, kv.layout)


class Source:
    """Cases over ``policies`` policies, a fifth with an image, some of them seen before."""

    def __init__(
        self, checkpoint: Checkpoint, seed: int, *, policies: int = 50, longest: int = 3 * WINDOW
    ) -> None:
        config = checkpoint.model.config
        self._image = (
            config.boi_token_index,
            *[config.image_token_id] * IMAGE,
            config.eoi_token_index,
        )
        self.rng, self._longest = random.Random(seed), longest
        self.policies = [text(self.rng, 3 * WINDOW) for _ in range(policies)]
        self._pictures = [picture(self.rng) for _ in range(12)]
        self._tails = [text(self.rng, 8, 6) for _ in range(3)]

    def cases(self, count: int, adapters: Sequence[str | None] = (None,)) -> list[Case]:
        return [self.case(self.rng.choice(adapters)) for _ in range(count)]

    def case(self, adapter: str | None = None, *, image: bool | None = None) -> Case:
        rng = self.rng
        policy = rng.choice(self.policies)
        own = text(rng, self._longest)
        shown, place = None, 0
        if image if image is not None else rng.random() < 0.2:
            shown = rng.choice(self._pictures)
            place = rng.randint(0, min(len(own), WINDOW))
        return self._made(policy, own, shown, place, adapter)

    def showing(self, policy: int, image: int, adapter: str | None = None) -> Case:
        """Fresh text behind an image that stands where the template has it: behind the policy."""
        own = text(self.rng, self._longest)
        return self._made(self.policies[policy], own, self._pictures[image], 0, adapter)

    def _made(
        self,
        policy: tuple[int, ...],
        own: tuple[int, ...],
        shown: tuple[torch.Tensor, str] | None,
        place: int,
        adapter: str | None,
    ) -> Case:
        rng = self.rng
        pixels, digest = shown or (None, "")
        types: tuple[int, ...] = ()
        if shown:
            own = (*own[:place], *self._image, *own[place:])
        tail = rng.choice(self._tails)
        ids = (*policy, *own, *tail)
        if pixels is not None:
            types = tuple(int(token == self._image[1]) for token in ids)
        switched = (*ids[:-4], FIRST if ids[-4] != FIRST else LAST, *ids[-3:])
        return Case(
            Context(ids, types, pixels, len(policy), digest),
            Context(switched, types, pixels, len(policy), digest),
            rng.random() < 0.5,
            adapter,
            rng.choice((0.3, 0.5, 0.7)),
        )

    def batches(self, cases: Sequence[Case]) -> Iterator[list[Case]]:
        """Cases of one adapter at a time, one to forty together."""
        for adapter in dict.fromkeys(case.adapter for case in cases):
            left = [case for case in cases if case.adapter == adapter]
            while left:
                count = self.rng.randint(1, 40)
                yield left[:count]
                left = left[count:]
