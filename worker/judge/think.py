"""THINK: which passes are thought about, what a written trace is worth, and how much is written."""

from __future__ import annotations

from worker.clock import Clock
from worker.codes import SkippedReasoning
from worker.errors import Undecided
from worker.guard.answer import split_trace
from worker.judge.local.requests import ScoreResult
from worker.judgement import Side, ThinkPlan, Thought

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


def concluded(trace: str, reading: ScoreResult) -> Thought:
    """The trace with the verdict read behind it.

    Whether it contradicts the score is for the labels of the two to say, never for its words: a
    user's own "this is safe" is quoted in them. ``worker.outcome.passes`` compares.
    """
    return Thought(
        trace=trace,
        user=reading.user,
        response=reading.response,
        categories=reading.categories,
        categories_complete=reading.categories_complete,
        floor_score=reading.floor_score,
    )


class ThinkBudget:
    """How many tokens of traces may be written a second: the share of the device that THINK gets.

    ``per_second`` tokens are saved up for one second at most; 0 bounds nothing. What a trace may
    take is taken when it begins, and what it did not need is given back when it ends. A trace
    begins while anything is left, so ``T`` seconds write at most ``per_second x (T + 1)`` tokens
    and one trace more.
    """

    def __init__(self, per_second: int, clock: Clock) -> None:
        self._per_second, self._clock = per_second, clock
        self._left, self._at = float(per_second), clock.monotonic()

    def take(self, tokens: int) -> bool:
        """Whether a trace of so many tokens may begin now; they are taken if so."""
        if not self._per_second:
            return True
        now = self._clock.monotonic()
        self._add(self._per_second * (now - self._at))
        self._at = now
        if self._left <= 0:
            return False
        self._left -= tokens
        return True

    def give_back(self, tokens: int) -> None:
        """What a trace had taken and did not write."""
        self._add(tokens)

    def _add(self, tokens: float) -> None:
        self._left = min(self._left + tokens, float(self._per_second))
