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

_END = "\x1e"
_BULLET = r"(?:[-*+•‣▪–—·]|\(?\d{1,3}[.)])"
_SENTENCE_END = re.compile(
    # Latin, Cyrillic, Greek and Hebrew stops need white space behind them (3.5 is no end), and the
    # number of a list's entry is none. U+037E is Greek's question mark.
    r"(?<=[.!?…\u037e\u061f\u06d4])(?<!\s\d\.)(?<!\s\d\d\.)(?<!^\d\.)[\"'”’»)\]*_]*\s+"
    # Greek's question mark as keyboards write it.
    r"|(?<=[\u0370-\u03ff\u1f00-\u1fff];)\s+"
    # Scripts whose stops stand without white space: CJK, full width, Indic, Ethiopic, Khmer,
    # Burmese, Armenian, Tibetan; Arabic's and Urdu's are often written so too.
    r"|(?<=[。！？｡．।॥۔؟؛።፧។၊။։།])[\"'”’»」』）)\]*_]*\s*"
    # Thai has no stop: a blank between its words is where a sentence ends.
    r"|(?<=[\u0e00-\u0e7f])[ \t]+(?=[\u0e00-\u0e7f])"
    # A list is a sentence an entry, and paragraphs end sentences whatever they end in.
    rf"|\s*\n\s*(?={_BULLET}\s)|\s*\n\s*\n\s*"
)


def shorten(trace: str) -> str:
    """The first three sentences of a trace, in at most 1,000 characters."""
    # Brackets and quotes that close behind a stop belong to its sentence.
    ended = _SENTENCE_END.sub(lambda match: match[0].rstrip() + _END, trace.strip())
    sentences = (" ".join(each.split()) for each in ended.split(_END))
    return " ".join([each for each in sentences if each][:MAX_SENTENCES])[:MAX_CHARACTERS]


def merged_reasoning(
    when: ThinkWhen, judgements: Sequence[Judgement], readings: Sequence[Reading]
) -> tuple[Reasoning | None, tuple[str, ...]]:
    """The verdict's reasoning and the whole traces of every pass that thought.

    None where the policy never thinks; without trace and ``skipped`` where none was called for.
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
    ordered = sorted(thoughts, key=lambda thought: not thought[0])
    traces = tuple(thought.trace for _, thought, _ in ordered if thought.trace)
    skipped = next((skipped for _, _, skipped in ordered if skipped is not None), None)
    shown = shorten(traces[0]) if traces else None
    return Reasoning(mode=when, trace=shown, skipped=skipped), traces
