"""The labels of a batch of contexts, from the logits behind the answer's constant text.

For each context the constant text is appended and one forward gives, by causality, exactly the
logits that step-by-step decoding would see::

    prompt | User Safety: [?]                              without a response
    prompt | User Safety: [?] safe ⏎Response Safety: [?]    with one

``[?]`` is where ``safe`` and ``unsafe`` compete: P(unsafe) is the softmax over those two. The
response is read behind the user label that greedy decoding takes, so a user labelled unsafe costs
its response a second forward. Where the constant text is not what the model would have written
(P below ``min_constant``), the answer is decoded greedily and parsed instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.contracts.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.judge.base import Side
from worker.judge.decode import Context, GreedyStream, Written, chunks, last_logits
from worker.judge.labels import AnswerTokens
from worker.judge.parse import parse_answer
from worker.judge.reading import Ask

MIN_CONSTANT = 0.5
"""Above one half every constant token is the likeliest one, so greedy decoding writes it too."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one forward: rows, and tokens with padding."""

    rows: int
    tokens: int


@dataclass(frozen=True)
class Sides:
    """Both labels of one context, and the tokens decoded for them."""

    user: Side
    response: Side | None
    tokens: int = 0


class Labeller:
    """Reads labels with one model. Not thread-safe: it belongs to the device thread."""

    def __init__(
        self,
        model: Any,
        answer: AnswerTokens,
        tokenizer: Any,
        limits: Limits,
        *,
        min_constant: float = MIN_CONSTANT,
    ) -> None:
        self._model, self._answer, self._tokenizer, self._limits = model, answer, tokenizer, limits
        self._min_constant = min_constant
        self.pad: int = tokenizer.pad_token_id or 0

    def label(self, asks: Sequence[Ask]) -> list[Sides | Undecided]:
        """Both sides of every context, or why there are none; order kept."""
        results: list[Sides | Undecided | None] = [None] * len(asks)
        answer = self._answer
        first = (*answer.user,)
        both = (*answer.user, answer.safe, *answer.response)
        tails = [both if ask.response else first for ask in asks]
        second: list[int] = []
        written: list[int] = []
        for index, logits in self._tail_logits([ask.context for ask in asks], tails):
            ask, tail = asks[index], tails[index]
            user = self._competition(logits, tail, len(answer.user))
            response = self._competition(logits, tail, len(tail)) if ask.response else None
            if user is None or (response is None and ask.response):
                results[index] = _not_finite()
            elif user[1] < self._min_constant:
                written.append(index)
            elif response is None:
                results[index] = Sides(user[0], None)
            elif user[0].label == "unsafe":
                second.append(index)
                results[index] = Sides(user[0], None)
            elif response[1] < self._min_constant:
                written.append(index)
            else:
                results[index] = Sides(user[0], response[0])
        written += self._second(asks, second, results)
        self._write(asks, written, results)
        return [_known(result) for result in results]

    def _second(
        self, asks: Sequence[Ask], second: Sequence[int], results: list[Sides | Undecided | None]
    ) -> list[int]:
        """Responses behind a user labelled unsafe; returns those to be written instead."""
        answer, written = self._answer, []
        tail = (*answer.user, answer.unsafe, *answer.response)
        for place, logits in self._tail_logits(
            [asks[index].context for index in second], [tail] * len(second)
        ):
            index = second[place]
            response = self._competition(logits, tail, len(tail))
            sides = results[index]
            assert isinstance(sides, Sides)
            if response is None:
                results[index] = _not_finite()
            elif response[1] < self._min_constant:
                written.append(index)
            else:
                results[index] = Sides(sides.user, response[0])
        return written

    def _tail_logits(
        self, contexts: Sequence[Context], tails: Sequence[tuple[int, ...]]
    ) -> list[tuple[int, torch.Tensor]]:
        """Per context the log-probabilities at the tail: row ``i`` predicts ``tail[i]``."""
        extended = [context.extended(tail) for context, tail in zip(contexts, tails, strict=True)]
        found = []
        for chunk in chunks(extended, self._limits.rows, self._limits.tokens):
            keep = max(len(tails[index]) for index in chunk) + 1
            logits = last_logits(self._model, [extended[index] for index in chunk], self.pad, keep)
            for row, index in enumerate(chunk):
                own = logits[row, -len(tails[index]) - 1 :].float()
                found.append((index, torch.log_softmax(own, -1)))
        return found

    def _competition(
        self, logprobs: torch.Tensor, tail: tuple[int, ...], position: int
    ) -> tuple[Side, float] | None:
        """The side labelled at ``position``, and the probability that greedy text gets there.

        None where the logits are not finite. The constants counted are those since the last label.
        """
        if not bool(torch.isfinite(logprobs).all()):
            return None
        answer = self._answer
        start = 0 if position == len(answer.user) else len(answer.user) + 1
        constants = sum(float(logprobs[i, tail[i]]) for i in range(start, position))
        safe, unsafe = (float(logprobs[position, token]) for token in (answer.safe, answer.unsafe))
        mass = math.exp(safe) + math.exp(unsafe)
        return side(safe, unsafe), math.exp(constants) * mass

    def _write(
        self, asks: Sequence[Ask], indexes: Sequence[int], results: list[Sides | Undecided | None]
    ) -> None:
        """Decode whole answers where the constant text is improbable, and parse them."""
        contexts = [asks[index].context for index in indexes]
        for chunk in chunks(contexts, self._limits.rows, self._limits.tokens):
            stream = GreedyStream(
                self._model,
                [contexts[place] for place in chunk],
                [asks[indexes[place]].category_budget for place in chunk],
                pad=self.pad,
                stop=self._answer.stop,
                labels=(self._answer.safe, self._answer.unsafe),
            )
            for place, written in zip(chunk, stream.run(), strict=True):
                index = indexes[place]
                try:
                    results[index] = self._parsed(asks[index], written)
                except Undecided as error:
                    results[index] = error

    def _parsed(self, ask: Ask, written: Written) -> Sides:
        if written.ended == "not_finite":
            raise _not_finite()
        text = decode_text(self._tokenizer, written.ids)
        parsed = parse_answer(text, response=ask.response, rubric=ask.rubric)
        user = self._written_side(written, "User Safety", parsed.user)
        response = None
        if parsed.response is not None:
            response = self._written_side(written, "Response Safety", parsed.response)
        return Sides(user, response, len(written.ids))

    def _written_side(self, written: Written, field: str, label: Label) -> Side:
        """The score at the token that wrote the label, where it competed there."""
        for position in range(len(written.ids)):
            text = decode_text(self._tokenizer, written.ids[: position + 1])
            if field in text and text.rpartition(field)[2].strip(" \t:"):
                scored = side(*written.labels[position])
                if scored.label == label:
                    return scored
                break
        return Side(label=label, score=1.0 if label == "unsafe" else 0.0)


def side(safe: float, unsafe: float) -> Side:
    """The side two label logits (or log-probabilities) describe; a tie is unsafe."""
    score = 1.0 / (1.0 + math.exp(min(safe - unsafe, 700.0)))
    return Side(label="unsafe" if unsafe >= safe else "safe", score=score)


def decode_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """Text of token ids, nothing left out and nothing tidied."""
    text: str = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return text


def _not_finite() -> Undecided:
    return Undecided(UndecidedReason.NOT_FINITE, detail="the model's logits are not finite")


def _known(result: Sides | Undecided | None) -> Sides | Undecided:
    assert result is not None
    return result
