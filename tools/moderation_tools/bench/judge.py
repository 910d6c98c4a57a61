"""Judging a crowd against judging one at a time: ``python -m moderation_tools.bench.judge``.

The same events, the same judge, two ways of asking, taking turns; prints JSON with the verdicts per
second of both and their ratio. Process CPU time is given as well: on a machine that does other
work at the same time it is the fairer figure.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path

import click

from worker.guard.nemotron35 import FLOOR, custom_policy, custom_taxonomy
from worker.judge.base import Judge
from worker.judge.factory import open_judge
from worker.judgement import JudgeRequest, Rubric
from worker.policy.passes import builtin_rubric, make_rubric
from worker.settings import JudgeSettings

TEXTS = (
    "How do I bake bread at home?",
    "The weather is fine today, shall we walk to the garden?",
    "Where can I buy cocaine?",
    "Please help me with my homework about rivers and mountains.",
    "I will bring a pistol to school.",
    "What is a good book about music?",
    "Tell me how to write ransomware.",
    "My friend plays the piano every evening.",
)
RESPONSES = (None, "Of course, here is a recipe.", None, "A phishing mail works like this.")


def rubrics() -> tuple[Rubric, ...]:
    """Four policies: stock, suppressed, an own taxonomy, free text."""
    listed = custom_taxonomy([("Secrets", "internal documents")])
    free = custom_policy("Kitchen", "What may be cooked", ["Talking about pistols"], ["Bread"])
    return (
        builtin_rubric(()),
        builtin_rubric(("Profanity",)),
        make_rubric("taxonomy", listed, ("Secrets", FLOOR)),
        make_rubric("policy", free, ("Talking about pistols", FLOOR)),
    )


def requests(count: int) -> list[JudgeRequest]:
    """``count`` short events, mixed over texts, responses and policies."""
    policies = rubrics()
    return [
        JudgeRequest(
            user=TEXTS[number % len(TEXTS)],
            response=RESPONSES[number % len(RESPONSES)],
            rubric=policies[number // len(TEXTS) % len(policies)],
        )
        for number in range(count)
    ]


async def measure(judge: Judge, events: int, rounds: int) -> dict[str, float]:
    """Verdicts per second alone and together, and the ratios of wall and CPU time (medians)."""
    asked = requests(events)
    alone: list[tuple[float, float]] = []
    together: list[tuple[float, float]] = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        for each in asked:
            await judge.judge(each)
        alone.append((time.perf_counter() - wall, time.process_time() - cpu))
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(judge.judge(each) for each in asked))
        together.append((time.perf_counter() - wall, time.process_time() - cpu))
    pairs = list(zip(alone, together, strict=True))
    return {
        "alone_per_s": events / statistics.median(wall for wall, _ in alone),
        "together_per_s": events / statistics.median(wall for wall, _ in together),
        "ratio": statistics.median(one[0] / many[0] for one, many in pairs),
        "cpu_ratio": statistics.median(one[1] / many[1] for one, many in pairs),
    }


async def run(settings: JudgeSettings, events: int, rounds: int) -> dict[str, object]:
    """Open the judge, measure, and name what was measured."""
    judge = open_judge(settings)
    await judge.start()
    try:
        figures = await measure(judge, events, rounds)
        model = judge.model()
    finally:
        await judge.stop()
    return {
        "model": model.id,
        "numerics": model.numerics,
        "events": events,
        "max_batch": settings.max_batch,
        **{name: round(value, 2) for name, value in figures.items()},
    }


@click.command()
@click.option("--model", default="tiny", show_default=True, help="Checkpoint: tiny or a directory.")
@click.option("--events", default=128, show_default=True, help="Events a round.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; medians are printed.")
@click.option("--threads", default=1, show_default=True, help="CPU threads of the model.")
def main(model: str, events: int, rounds: int, threads: int) -> None:
    """Compare judging a crowd with judging one at a time."""
    name = model if model == "tiny" else str(Path(model))
    settings = JudgeSettings(model=name, threads=threads, cache_bytes=0)
    result = asyncio.run(run(settings, events, rounds))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
