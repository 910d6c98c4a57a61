"""Writing reasoning traces greedily: when one is finished, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.local.draft_tokens import reasoning_draft
from worker.judge.local.label_scores import AnswerTokens, decode_text
from worker.judge.local.requests import ReasoningRequest, ReasoningResult
from worker.judge.reference.decode import GreedyStream, Writing, Written

CLOSE = "</think>"
_CLOSE_TOKENS = len(CLOSE)
"""Most tokens that can spell ``</think>``: one a byte."""


class ReasoningRules:
    """When a trace ends, and what it is then.

    It ends where the answer begins behind ``</think>``, at the end of turn, or with its budget. The
    answer itself is read by logits afterwards, so it is not written here.
    """

    def __init__(self, answer: AnswerTokens, tokenizer: Any) -> None:
        self._answer, self._tokenizer = answer, tokenizer
        self.draft = reasoning_draft(answer, tokenizer)
        self.writing = Writing(answer.stop, (answer.safe, answer.unsafe), self._answering)

    def trace(self, written: Written, known: object = None) -> ReasoningResult | Undecided:
        """What was written, up to the end of ``</think>``."""
        if written.ended == "not_finite":
            return Undecided(UndecidedReason.NOT_FINITE, detail="the trace's logits are not finite")
        ids = written.ids[:-1] if written.ended == "text" else written.ids
        text = decode_text(self._tokenizer, ids)
        if written.ended != "text" and CLOSE in text:
            end = text.rindex(CLOSE) + len(CLOSE)
            count = next(n for n in range(1, len(ids) + 1) if self._length(ids[:n]) >= end)
            ids = ids[:count]
            text = decode_text(self._tokenizer, ids)
        return ReasoningResult(tuple(ids), text, written.ended, known)

    def _answering(self, written: Written) -> bool:
        """Whether the last token is the answer's first, with nothing since ``</think>``."""
        if written.ids[-1] != self._answer.user[0]:
            return False
        recent = decode_text(self._tokenizer, written.ids[-_CLOSE_TOKENS - 4 : -1])
        return recent.rstrip().endswith(CLOSE)

    def _length(self, ids: Sequence[int]) -> int:
        return len(decode_text(self._tokenizer, ids))


class PlainReasoning:
    """Traces of the plain model (``device.ReasoningLane``): what starts together is written
    together.

    Groups take turns, one token of one group a step, so a new trace never waits for an old one.
    """

    def __init__(self, model: Any, answer: AnswerTokens, tokenizer: Any, pad: int) -> None:
        self._model, self._pad = model, pad
        self._rules = ReasoningRules(answer, tokenizer)
        self._groups: list[tuple[int, GreedyStream]] = []
        self._started = 0

    @property
    def active(self) -> bool:
        return bool(self._groups)

    def add(self, asks: Sequence[ReasoningRequest]) -> range:
        stream = GreedyStream(
            self._model,
            [ask.context for ask in asks],
            [ask.budget for ask in asks],
            pad=self._pad,
            writing=self._rules.writing,
        )
        self._groups.append((self._started, stream))
        self._started += len(asks)
        return range(self._started - len(asks), self._started)

    def step(self) -> list[tuple[int, ReasoningResult | Undecided]]:
        first, stream = self._groups.pop(0)
        ended = [(first + row, self._rules.trace(stream.written[row])) for row in stream.step()]
        if stream.active:
            self._groups.append((first, stream))
        return ended

    def drop(self, number: int) -> None:
        for first, stream in self._groups:
            if first <= number < first + len(stream.written):
                stream.drop(number - first)
