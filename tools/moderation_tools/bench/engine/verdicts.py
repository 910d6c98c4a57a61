"""Verdicts per second: the engine beside ``transformers.generate``, and where its cost goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from moderation_tools.bench.engine.clock import in_turns
from moderation_tools.bench.engine.generate import ANSWER_TOKENS, generate
from moderation_tools.bench.engine.workload import (
    EVENT,
    IMAGE,
    TAIL,
    Lengths,
    Workload,
    behind_image,
)
from worker.judge.engine.batch import InputSequence
from worker.judge.engine.forward import Forward
from worker.judge.engine.prefix_cache import PrefixCache

BUDGET = 64 * 2**30
"""Bytes for policies: none is computed twice here."""
IMAGE_WAYS = ("one by one", "together", "seen before", "seen before under the policy")


@dataclass(frozen=True)
class Rig:
    """One model under the engine."""

    model: Any
    forward: Forward

    @property
    def vocabulary(self) -> int:
        """Token ids there are."""
        return int(self.model.config.text_config.vocab_size)

    def prefixes(self) -> PrefixCache:
        """A fresh store of policies."""
        return PrefixCache(self.forward, BUDGET)

    def flops(self, lengths: Lengths) -> float:
        """FLOPs of one verdict: matrices, last layer and head at the label rows only, attention."""
        weights = self.forward.weights
        shape = weights.shape
        own, asked = EVENT + TAIL + 3, 4
        per_layer = [
            sum(m.weight.numel() for m in (layer.qkv, layer.out, layer.gate_up, layer.down))
            for layer in weights.layers
        ]
        matrices = 2 * own * sum(per_layer[:-1]) + 2 * own * weights.layers[-1].qkv.weight.numel()
        last = weights.layers[-1]
        rest = sum(m.weight.numel() for m in (last.out, last.gate_up, last.down))
        head = self.vocabulary * shape.hidden
        seen = 0
        for layer in weights.layers:
            prefix = lengths.prefix
            if layer.sliding:
                prefix = min(prefix, shape.window - 1)
            seen += own * (prefix + own // 2)
        attention = 4 * seen * shape.heads * shape.head_dim
        return float(matrices + 2 * asked * (rest + head) + attention)


def verdict_call(rig: Rig, rows: list[InputSequence], batch: int) -> Callable[[], None]:
    """Labels of all rows, ``batch`` rows a forward, keys kept as the worker keeps them."""

    def call() -> None:
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            rig.forward.run(part, keep=[True] * len(part))

    return call


def beside_generate(
    rig: Rig, lengths: Lengths, *, events: int, batch: int, rounds: int
) -> dict[str, float]:
    """Seconds for ``events`` verdicts of the engine and of generate in batches of 8."""
    work = Workload(rig.vocabulary, lengths)
    rows = work.rows(rig.prefixes(), events)
    prompts = [policy + own for policy, own in work.contexts(events)]
    return in_turns(
        {
            "engine": verdict_call(rig, rows, batch),
            "generate": lambda: generate(rig.model, prompts, 8, ANSWER_TOKENS),
        },
        rounds,
    )


def costs(rig: Rig, *, events: int, batch: int, rounds: int) -> dict[str, float]:
    """Seconds for ``events`` verdicts under one policy, under fifty, and under a long one."""
    calls: dict[str, Callable[[], object]] = {}
    for name, lengths in {
        "1 policy of 320": Lengths(320),
        "50 policies of 320": Lengths(320, 50),
        "1 policy of 1,000": Lengths(1000),
        "1 policy of 4,000": Lengths(4000),
    }.items():
        rows = Workload(rig.vocabulary, lengths).rows(rig.prefixes(), events)
        calls[name] = verdict_call(rig, rows, batch)
    return in_turns(calls, rounds)


def images(
    rig: Rig, *, events: int, rounds: int, ways: Sequence[str] = IMAGE_WAYS
) -> dict[str, float]:
    """Seconds for ``events`` image verdicts, by way.

    One by one and together, of images not seen before; together, of images whose embedding is
    kept, and of those whose keys and values are kept, so that their text alone is computed.
    """
    size = rig.model.config.vision_config.image_size
    work = Workload(rig.vocabulary, Lengths(320))
    prefixes = rig.prefixes()
    device, dtype = rig.forward.weights.device, rig.forward.weights.dtype
    pixels = torch.rand(events, 3, size, size, device=device).to(dtype)

    @torch.inference_mode()
    def embed(part: torch.Tensor) -> list[torch.Tensor]:
        return list(rig.model.model.get_image_features(part).pooler_output)

    seen = embed(pixels)
    rows = work.rows(prefixes, events, seen)
    kept = rig.forward.run(
        [InputSequence(row.ids[:IMAGE], row.prefix, image=row.image) for row in rows],
        keep=[True] * events,
    ).kept
    known = [behind_image(row, own) for row, own in zip(rows, kept, strict=True) if own is not None]

    def one_by_one() -> None:
        for n in range(events):
            embed(pixels[n : n + 1])
            rig.forward.run(rows[n : n + 1], keep=[True])

    def together() -> None:
        embed(pixels)
        rig.forward.run(rows, keep=[True] * events)

    def repeated() -> None:
        rig.forward.run(rows, keep=[True] * events)

    def gone_on() -> None:
        rig.forward.run(known, keep=[True] * events)

    calls = dict(zip(IMAGE_WAYS, (one_by_one, together, repeated, gone_on), strict=True))
    return in_turns({way: calls[way] for way in ways}, rounds)
