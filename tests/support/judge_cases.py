"""Randomised requests that mix everything a batch can mix."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from worker.guard.nemotron35 import BUILTIN, FLOOR, custom_policy, custom_taxonomy
from worker.images import JudgeImage
from worker.judgement import JudgeRequest, Rubric, ThinkPlan
from worker.policy.passes import builtin_rubric, make_rubric

WORDS = (
    *("how", "do", "I", "bake", "bread", "with", "the", "assistant", "rating", "gun", "safe"),
    *("unsafe", "user", "xyzzy", "厨房", "привет", "content", "policy", "cake", "weather"),
)


def text(rng: random.Random, longest: int) -> str:
    """Words of a length drawn evenly on a logarithmic scale."""
    return " ".join(rng.choices(WORDS, k=int(longest ** rng.random())))


def image(rng: random.Random) -> JudgeImage:
    """A noisy picture, 20 to 90 pixels a side."""
    width, height = rng.randint(20, 90), rng.randint(20, 90)
    rgb = rng.randbytes(width * height * 3)
    return JudgeImage(sha256=hashlib.sha256(rgb).hexdigest(), width=width, height=height, rgb=rgb)


def rubrics(rng: random.Random, count: int) -> list[Rubric]:
    """Stock, suppressed, own taxonomies and free policies."""
    made = [builtin_rubric(())]
    while len(made) < count:
        kind = len(made) % 3
        if kind == 0:
            made.append(builtin_rubric(tuple(rng.sample(BUILTIN, rng.randint(1, 6)))))
        elif kind == 1:
            names = tuple(f"{word} matters" for word in rng.sample(WORDS, rng.randint(1, 5)))
            listed = custom_taxonomy([(name, "own") for name in names])
            made.append(make_rubric("taxonomy", listed, (*names, FLOOR)))
        else:
            forbidden = [text(rng, 12) for _ in range(rng.randint(1, 6))]
            allowed = [text(rng, 12) for _ in range(rng.randint(0, 4))]
            free = custom_policy("Kitchen", "What may be cooked", forbidden, allowed)
            made.append(make_rubric("policy", free, (*forbidden, FLOOR)))
    return made


def requests(
    seed: int, count: int, *, adapters: Sequence[str | None] = (None,), longest: int = 250
) -> list[JudgeRequest]:
    """``count`` requests over a dozen rubrics; a fifth with an image, half with a response."""
    rng = random.Random(seed)
    choices = rubrics(rng, 12)
    made = []
    for _ in range(count):
        turns = rng.choice((0, 0, 1, 4))
        made.append(
            JudgeRequest(
                user=text(rng, longest),
                response=text(rng, longest) if rng.random() < 0.5 else None,
                earlier=tuple((("user", "assistant")[n % 2], text(rng, 30)) for n in range(turns)),
                image=image(rng) if rng.random() < 0.2 else None,
                rubric=rng.choice(choices),
                adapter=rng.choice(adapters),
                think=ThinkPlan(threshold=rng.choice((0.3, 0.5, 0.7))),
            )
        )
    return made
