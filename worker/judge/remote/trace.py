"""A reasoning trace in an answer that was asked to think, wherever the server put it."""

from __future__ import annotations

from worker.contracts.codes import SkippedReasoning
from worker.judge.base import Thought
from worker.judge.remote.answer import Answer
from worker.judge.remote.reader import answered_from
from worker.judge.think import skipped, usable


def trace_of(answer: Answer, max_tokens: int) -> str | Thought:
    """The trace, or the Thought that says why there is none.

    It stands in the text between ``<think>`` and ``</think>``, or, where the server has a parser
    for it, in a field of its own. One longer than ``max_tokens`` counts as unclosed, as it would
    be where writing stops there.
    """
    if answer.trace is not None and answer.trace.strip():
        trace = answer.trace.strip().removeprefix("<think>").removesuffix("</think>").strip()
        if not answer.text and answer.cut:
            return skipped(SkippedReasoning.UNCLOSED, trace)
        start = answer.start
    else:
        found = usable(answer.text)
        if isinstance(found, Thought):
            return found
        trace, start = found, answer.place(answered_from(answer))
    if sum(1 for token in answer.tokens if token.end <= start) > max_tokens:
        return skipped(SkippedReasoning.UNCLOSED, trace)
    return trace or skipped(SkippedReasoning.EMPTY)
