"""THINK: which passes are thought about, and what a written trace is worth."""

from __future__ import annotations

from worker.contracts.codes import SkippedReasoning
from worker.errors import Undecided
from worker.judge.base import Side, ThinkPlan, Thought
from worker.judge.conclusion import conclusion
from worker.judge.parse import split_trace
from worker.judge.reading import Reading

MIN_TRACE = 16
"""Tokens below which a trace is not begun: it could not be closed."""


def wanted(plan: ThinkPlan, user: Side, response: Side | None) -> bool:
    """Whether the no-think scores call for a trace under this plan."""
    score = max(user.score, response.score if response is not None else 0.0)
    low, high = plan.band
    match plan.when:
        case "always":
            return True
        case "unsafe":
            return score >= plan.threshold
        case "uncertain":
            return low <= score <= high
        case _:
            return False


def skipped(reason: SkippedReasoning, trace: str = "") -> Thought:
    """A trace that does not count, and why."""
    return Thought(trace=trace, skipped=reason.value)


def usable(text: str) -> str | Thought:
    """The trace in a decoded text, or the Thought that says why there is none."""
    try:
        trace, _ = split_trace(text)
    except Undecided:
        return skipped(SkippedReasoning.UNCLOSED, text.partition("<think>")[2].strip())
    if not trace:
        return skipped(SkippedReasoning.EMPTY)
    return trace


def concluded(trace: str, reading: Reading) -> Thought:
    """The trace with the verdict read behind it; contradictory where its words say another."""
    words = conclusion(trace)
    contradicts = words.user not in (None, reading.user.label) or (
        reading.response is not None and words.response not in (None, reading.response.label)
    )
    return Thought(
        trace=trace,
        user=reading.user,
        response=reading.response,
        categories=reading.categories,
        categories_complete=reading.categories_complete,
        floor_score=reading.floor_score,
        skipped=SkippedReasoning.CONTRADICTORY.value if contradicts else None,
    )
