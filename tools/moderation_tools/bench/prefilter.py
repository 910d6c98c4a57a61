"""What a prefilter costs an event: CPU time by the number of phrases, and of one cached answer.

Run it by ``python -m moderation_tools.bench.prefilter``.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable

from worker.judge.cache import CachingJudge
from worker.judge.scripted import ScriptedJudge
from worker.judgement import JudgeRequest
from worker.policy.passes import builtin_rubric
from worker.prefilter.normalise import Match
from worker.prefilter.phrases import PhraseList, PhraseMatcher

TEXT = (
    "Hello there, can you help me plan a museum visit for Sunday? I don't know which of the two "
    "I'd like best, and my sister has 3 kids who get bored after an hour or so. Is there a café?"
)
"""182 characters with what makes folding work: punctuation, a digit, an accent."""
SIZES = (10, 1_000, 10_000, 100_000)
_SEED = 20


def phrases(count: int) -> list[str]:
    """Made-up phrases of one to three words, the same ones every time."""
    source = random.Random(_SEED)  # noqa: S311 - nothing secret
    letters = "etaoinshrdlcumwfgypbvk"
    return [
        " ".join(
            "".join(source.choices(letters, k=source.randint(4, 9)))
            for _ in range(source.randint(1, 3))
        )
        for _ in range(count)
    ]


def matcher(count: int, match: Match) -> PhraseMatcher:
    """One list of ``count`` phrases."""
    return PhraseMatcher([PhraseList(phrases=phrases(count), match=match)])


def search_seconds(searcher: PhraseMatcher, rounds: int = 500) -> float:
    """CPU seconds of one search of ``TEXT``."""
    return _seconds(lambda: searcher.search(TEXT), rounds)


async def hit_seconds(rounds: int = 5_000) -> float:
    """CPU seconds of one answer from the cache."""
    judge = CachingJudge(ScriptedJudge(), 1 << 20)
    await judge.start()
    request = JudgeRequest(user=TEXT, response=None, rubric=builtin_rubric(()))
    await judge.judge(request)
    began = time.process_time()
    for _ in range(rounds):
        await judge.judge(request)
    took = time.process_time() - began
    await judge.stop()
    return took / rounds


def _seconds(work: Callable[[], object], rounds: int) -> float:
    began = time.process_time()
    for _ in range(rounds):
        work()
    return (time.process_time() - began) / rounds


def main() -> None:
    """Print the table."""
    lines = [f"{'phrases':>8} {'normalised':>11} {'loose':>9}   CPU µs an event"]
    for size in SIZES:
        cost = [
            min(search_seconds(made) for _ in range(5)) * 1e6
            for made in (matcher(size, "normalised"), matcher(size, "loose"))
        ]
        lines.append(f"{size:>8} {cost[0]:>11.1f} {cost[1]:>9.1f}")
    hit = min(asyncio.run(hit_seconds()) for _ in range(5)) * 1e6
    lines.append(f"an answer from the cache: {hit:.1f} µs")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
