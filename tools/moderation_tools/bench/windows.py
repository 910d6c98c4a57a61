"""Long texts in windows: false alarms and finds against the number of windows.

    python -m moderation_tools.bench.windows

An event is unsafe where any of its windows is, so every window is one more chance of a false alarm.
Prints, for texts of more and more windows, the share of harmless ones called unsafe and the share
of those with one harmful word somewhere that were found.
"""

from __future__ import annotations

import asyncio
import random

from moderation_tools.training.tiny.lexicon import HARMFUL, NEUTRAL
from worker.contracts.event import Event, Message
from worker.contracts.verdict import SourceRef
from worker.policy.parse import parse_policy
from worker.processing.session import open_session
from worker.processing.windows import OVERLAP
from worker.settings import Settings

CONTEXT = 1_024
"""Tokens of one context here; small, so that many windows cost little."""
WINDOW = 3_000
"""Characters of the texts' windows, about; what fits into ``CONTEXT`` behind the stock policy."""
SOURCE = SourceRef(topic="windows", partition=0, offset=0, timestamp=0)


def text(rng: random.Random, windows: int, harmful: bool) -> str:
    """Everyday words, as many as so many windows take, one of them harmful or none."""
    words: list[str] = []
    while sum(len(word) + 1 for word in words) < windows * (WINDOW - OVERLAP):
        words.append(rng.choice(NEUTRAL))
    if harmful:
        words[rng.randrange(len(words))] = rng.choice(HARMFUL["Malware"])
    return " ".join(words)


async def main(texts: int = 20) -> None:
    """Print the table."""
    rng = random.Random(3)  # noqa: S311 - to be repeated, not to be secret
    stock = parse_policy("name: stock\nversion: 1\nowner: x\ntopics: []\n")
    judge = {"max_context": CONTEXT, "context_budget": 0, "max_windows": 64, "cache_bytes": 0}
    async with open_session(Settings(judge=judge)) as session:

        async def unsafe(windows: int, harmful: bool) -> int:
            found = 0
            for _ in range(texts):
                message = Message(role="user", text=text(rng, windows, harmful))
                event = Event(id="e", conversation_id="c", messages=(message,))
                verdict = (await session.evaluator.evaluate(event, stock, SOURCE)).verdict
                found += verdict.outcome == "unsafe"
            return found

        print(f"{texts} texts a cell, {session.judge.model().id}, contexts of {CONTEXT} tokens\n")
        print("| windows, about | harmless texts called unsafe | harmful word found |")
        print("| --- | --- | --- |")
        for windows in (1, 2, 4, 8):
            alarms, finds = await unsafe(windows, False), await unsafe(windows, True)
            print(f"| {windows} | {alarms / texts:.0%} | {finds / texts:.0%} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
