"""Writing reasoning traces greedily, several together, one token a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.contracts.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.decode import GreedyStream, Writing, Written
from worker.judge.labelling import decode_text
from worker.judge.labels import AnswerTokens
from worker.judge.reading import Trace, TraceAsk

CLOSE = "</think>"
_CLOSE_TOKENS = len(CLOSE)
"""Most tokens that can spell ``</think>``: one a byte."""


class TraceWriter:
    """One group of traces (``device.Traces``).

    A trace ends where the answer begins behind ``</think>``, at the end of turn, or with its
    budget. The answer itself is read by logits afterwards, so it is not written here.
    """

    def __init__(
        self, model: Any, answer: AnswerTokens, tokenizer: Any, asks: Sequence[TraceAsk], pad: int
    ) -> None:
        self._tokenizer, self._answer = tokenizer, answer
        self._stream = GreedyStream(
            model,
            [ask.context for ask in asks],
            [ask.budget for ask in asks],
            pad=pad,
            writing=Writing(answer.stop, (answer.safe, answer.unsafe), self._answering),
        )

    @property
    def active(self) -> bool:
        return self._stream.active

    def step(self) -> list[tuple[int, Trace | Undecided]]:
        return [(row, self._trace(self._stream.written[row])) for row in self._stream.step()]

    def drop(self, index: int) -> None:
        self._stream.drop(index)

    def _answering(self, written: Written) -> bool:
        """Whether the last token is the answer's first, with nothing since ``</think>``."""
        if written.ids[-1] != self._answer.user[0]:
            return False
        recent = decode_text(self._tokenizer, written.ids[-_CLOSE_TOKENS - 4 : -1])
        return recent.rstrip().endswith(CLOSE)

    def _trace(self, written: Written) -> Trace | Undecided:
        if written.ended == "not_finite":
            return Undecided(UndecidedReason.NOT_FINITE, detail="the trace's logits are not finite")
        ids = written.ids[:-1] if written.ended == "text" else written.ids
        text = decode_text(self._tokenizer, ids)
        if written.ended != "text" and CLOSE in text:
            end = text.rindex(CLOSE) + len(CLOSE)
            count = next(n for n in range(1, len(ids) + 1) if self._length(ids[:n]) >= end)
            ids = ids[:count]
            text = decode_text(self._tokenizer, ids)
        return Trace(tuple(ids), text, written.ended)

    def _length(self, ids: Sequence[int]) -> int:
        return len(decode_text(self._tokenizer, ids))
