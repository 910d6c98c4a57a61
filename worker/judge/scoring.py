"""One model's reading of a batch of contexts: labels first, then categories where one is unsafe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.contracts.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.judge.base import Side
from worker.judge.labelling import MIN_CONSTANT, Labeller, Limits, Sides
from worker.judge.labels import AnswerTokens
from worker.judge.naming import Namer
from worker.judge.reading import Ask, Reading


class Reader:
    """The plain reading of one model: every pass is a whole forward, nothing is reused.

    Faster engines are checked against it. Not thread-safe: it belongs to the device thread.
    """

    def __init__(
        self,
        model: Any,
        answer: AnswerTokens,
        tokenizer: Any,
        limits: Limits,
        *,
        min_constant: float = MIN_CONSTANT,
    ) -> None:
        self._labeller = Labeller(model, answer, tokenizer, limits, min_constant=min_constant)
        self._namer = Namer(model, answer, tokenizer, limits, self._labeller.pad)

    def read(self, asks: Sequence[Ask]) -> list[Reading | Undecided]:
        """A reading of every context, or why there is none; order kept."""
        sides = self._labeller.label(asks)
        readings: list[Reading | Undecided] = []
        unsafe: list[tuple[int, tuple[Label, Label | None]]] = []
        for index, (ask, each) in enumerate(zip(asks, sides, strict=True)):
            if isinstance(each, Undecided):
                readings.append(each)
                continue
            readings.append(Reading(user=each.user, response=each.response, tokens=each.tokens))
            labels = _counted(each, ask.threshold)
            if "unsafe" in labels:
                unsafe.append((index, labels))
        named = self._namer.name(
            [asks[index] for index, _ in unsafe], [labels for _, labels in unsafe]
        )
        for (index, _), found in zip(unsafe, named, strict=True):
            reading = readings[index]
            assert isinstance(reading, Reading)
            if not found.finite:
                readings[index] = Undecided(
                    UndecidedReason.NOT_FINITE, detail="the logits of the categories are not finite"
                )
                continue
            readings[index] = Reading(
                user=reading.user,
                response=reading.response,
                categories=found.categories,
                floor_score=found.floor_score,
                tokens=reading.tokens + found.tokens,
            )
        return readings


def _counted(sides: Sides, threshold: float) -> tuple[Label, Label | None]:
    """The labels as they count: greedily unsafe, or unsafe by the threshold alone."""

    def counts(side: Side) -> Label:
        return "unsafe" if side.label == "unsafe" or side.score >= threshold else "safe"

    return counts(sides.user), counts(sides.response) if sides.response else None
