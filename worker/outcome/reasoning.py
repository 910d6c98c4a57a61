"""THINK in the verdict: three sentences at most, and the reason where a trace does not count."""

from __future__ import annotations

import re
from collections.abc import Sequence

from worker.contracts.verdict import Reasoning
from worker.judgement import Judgement
from worker.outcome.passes import Reading
from worker.policy.model import ThinkWhen

MAX_SENTENCES = 3
MAX_CHARACTERS = 1_000
"""Of the trace in a verdict; a sentence without an end must not outgrow its record."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？।])\s*")


def shorten(trace: str) -> str:
    """The first three sentences of a trace, in at most 1,000 characters."""
    sentences = _SENTENCE_END.split(" ".join(trace.split()))
    return " ".join(sentences[:MAX_SENTENCES])[:MAX_CHARACTERS]


def merged_reasoning(
    when: ThinkWhen, judgements: Sequence[Judgement], readings: Sequence[Reading]
) -> tuple[Reasoning | None, tuple[str, ...]]:
    """The verdict's reasoning and the whole traces of every pass that thought.

    The trace of an unsafe pass is shown before that of a safe one. ``skipped`` is set where any
    wanted trace is missing or did not count.
    """
    if when == "never":
        return None, ()
    thoughts = [
        (reading.unsafe, judgement.thought, reading.skipped)
        for judgement, reading in zip(judgements, readings, strict=True)
        if judgement.thought is not None
    ]
    if not thoughts:
        return None, ()
    ordered = sorted(thoughts, key=lambda thought: not thought[0])
    traces = tuple(thought.trace for _, thought, _ in ordered if thought.trace)
    skipped = next((skipped for _, _, skipped in ordered if skipped is not None), None)
    shown = shorten(traces[0]) if traces else None
    return Reasoning(mode=when, trace=shown, skipped=skipped), traces
