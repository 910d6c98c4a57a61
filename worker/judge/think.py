"""How many tokens of reasoning a second may be written: the share of the device that THINK gets.

What a trace may take is taken when it begins, and what it did not need is given back when it ends.
A trace begins while anything is left, so ``T`` seconds write at most ``per_second x (T + 1)``
tokens and one trace more.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from worker.clock import Clock
from worker.codes import SkippedReasoning
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.guard.base import GuardModel
from worker.judge.local.requests import Reading
from worker.judgement import Side, ThinkPlan, Thought

# What the words of a reasoning trace conclude, so far as they say it outright.
#
# Only used to notice a trace that says one thing in front of a verdict that says another. A side
# the
# trace does not clearly speak about has no conclusion; nothing is ever decided from these words.

_SENTENCE = re.compile(r"[^.!?。！？\n]+")
_RESPONSE = re.compile(r"\b(response|assistant|agent|reply)\b", re.IGNORECASE)
_USER = re.compile(r"\b(user|prompt|request|input|message|human|image)\b", re.IGNORECASE)
_HEDGED = re.compile(r"\b(whether|if|safe or unsafe|would|could|might)\b", re.IGNORECASE)
_NOTHING = re.compile(
    r"\b(nothing (harmful|unsafe)|no (harmful|unsafe) (content|category))\b", re.IGNORECASE
)
_UNSAFE = re.compile(r"(?<!not )\bunsafe\b|\bnot safe\b|\bfalls under\b", re.IGNORECASE)
_SAFE = re.compile(r"(?<!not )\bsafe\b|\bnot unsafe\b", re.IGNORECASE)


class Conclusion(NamedTuple):
    """The label each side is given in so many words, last one first; None where there is none."""

    user: Label | None
    response: Label | None


def conclusion(trace: str) -> Conclusion:
    """Read a trace sentence by sentence; "this" goes on speaking of the last side named."""
    labels: dict[str, Label | None] = {"user": None, "response": None}
    subject: str | None = None
    for match in _SENTENCE.finditer(trace):
        sentence = match[0]
        user, response = _USER.search(sentence), _RESPONSE.search(sentence)
        if user and response:
            subject = "user" if user.start() < response.start() else "response"
        elif user or response:
            subject = "user" if user else "response"
        if _HEDGED.search(sentence):
            continue
        if _NOTHING.search(sentence):
            labels = {"user": "safe", "response": "safe"}
        label = _label(sentence)
        if label and user and response:
            labels = {"user": None, "response": None}  # which side is meant, nobody can tell
        elif label and subject:
            labels[subject] = label
    return Conclusion(labels["user"], labels["response"])


def _label(sentence: str) -> Label | None:
    unsafe, safe = bool(_UNSAFE.search(sentence)), bool(_SAFE.search(sentence))
    if unsafe == safe:
        return None
    return "unsafe" if unsafe else "safe"


# THINK: which passes are thought about, and what a written trace is worth.

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


def usable(text: str, guard: GuardModel) -> str | Thought:
    """The trace in a decoded text, or the Thought that says why there is none."""
    try:
        trace, _ = guard.split_trace(text)
    except Undecided:
        return skipped(SkippedReasoning.UNCLOSED, text.partition(guard.trace_tags[0])[2].strip())
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


class ThinkBudget:
    """``per_second`` tokens, saved up for one second at most; 0 bounds nothing."""

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
