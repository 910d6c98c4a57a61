"""One model's reading of a batch of contexts: labels first, then categories where one is unsafe."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from worker.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.judge.local.category_decoding import Namer
from worker.judge.local.label_scores import (
    MIN_CONSTANT,
    AnswerTokens,
    Computed,
    Labeller,
    Limits,
    Sides,
)
from worker.judge.local.requests import ScoreRequest, ScoreResult
from worker.judge.reference.decode import chunks
from worker.judge.think import wanted
from worker.judgement import Side
from worker.policy.floor import FLOOR_THRESHOLD


class Labelling(Protocol):
    """Labels of a batch, and its computed contexts to go on from (``labelling.Labeller``)."""

    def label(self, asks: Sequence[ScoreRequest]) -> tuple[Computed, list[Sides | Undecided]]: ...


class Reader:
    """The reading of one model: a batch goes through it once, everything else goes on from there.

    ``split`` gives the indexes of asks that fit one forward together. Not thread-safe: it belongs
    to the device thread.
    """

    def __init__(
        self,
        labelling: Labelling,
        namer: Namer,
        split: Callable[[Sequence[ScoreRequest]], Iterable[Sequence[int]]],
    ) -> None:
        self._labelling, self._namer, self._split = labelling, namer, split

    def read(self, asks: Sequence[ScoreRequest]) -> list[ScoreResult | Undecided]:
        """A reading of every context, or why there is none; order kept."""
        found: dict[int, ScoreResult | Undecided] = {}
        for chunk in self._split(asks):
            readings = self._read([asks[index] for index in chunk])
            found.update(zip(chunk, readings, strict=True))
        return [found[index] for index in range(len(asks))]

    def _read(self, asks: Sequence[ScoreRequest]) -> list[ScoreResult | Undecided]:
        """Readings of what fits one forward; its keys and values are freed with the call."""
        computed, sides = self._labelling.label(asks)
        readings: list[ScoreResult | Undecided] = []
        unsafe: list[_Behind] = []
        suspected: list[_Behind] = []
        for index, (ask, each) in enumerate(zip(asks, sides, strict=True)):
            if isinstance(each, Undecided):
                readings.append(each)
                continue
            thinks = wanted(ask.think, each.user, each.response)
            kept = computed.known(index) if thinks else None
            readings.append(
                ScoreResult(user=each.user, response=each.response, tokens=each.tokens, known=kept)
            )
            if "unsafe" in (labels := _counted(each, ask.threshold)):
                unsafe.append(_Behind(index, labels))
            elif "unsafe" in (labels := _counted(each, FLOOR_THRESHOLD)):
                suspected.append(_Behind(index, labels))
        if unsafe:
            self._name(computed, asks, unsafe, readings)
        if suspected:
            self._look_for_floor(computed, asks, suspected, readings)
        return readings

    def _name(
        self,
        computed: Computed,
        asks: Sequence[ScoreRequest],
        unsafe: Sequence[_Behind],
        readings: list[ScoreResult | Undecided],
    ) -> None:
        """The category line of what counts as unsafe."""
        named = self._namer.name(
            computed,
            [each.place for each in unsafe],
            [asks[each.place] for each in unsafe],
            [each.labels for each in unsafe],
        )
        for each, found in zip(unsafe, named, strict=True):
            reading = readings[each.place]
            assert isinstance(reading, ScoreResult)
            readings[each.place] = (
                msgspec.structs.replace(
                    reading,
                    categories=found.categories,
                    categories_complete=found.complete,
                    floor_score=_chance_unsafe(reading) * found.floor,
                    tokens=reading.tokens + found.tokens,
                )
                if found.finite
                else _not_finite()
            )

    def _look_for_floor(
        self,
        computed: Computed,
        asks: Sequence[ScoreRequest],
        suspected: Sequence[_Behind],
        readings: list[ScoreResult | Undecided],
    ) -> None:
        """The floor of what counts as safe, but not so surely that it cannot break the floor.

        Below ``FLOOR_THRESHOLD`` the product with P(unsafe) cannot reach it, whatever the name.
        """
        floors = self._namer.floor(
            computed,
            [each.place for each in suspected],
            [asks[each.place] for each in suspected],
            [each.labels for each in suspected],
        )
        for each, floor in zip(suspected, floors, strict=True):
            reading = readings[each.place]
            assert isinstance(reading, ScoreResult)
            score = _chance_unsafe(reading) * floor
            readings[each.place] = (
                _not_finite()
                if math.isnan(score)
                else msgspec.structs.replace(reading, floor_score=score)
            )


def plain_reader(
    model: Any,
    answer: AnswerTokens,
    tokenizer: Any,
    limits: Limits,
    *,
    min_constant: float = MIN_CONSTANT,
) -> Reader:
    """The reader that runs the model as transformers does: what every faster one must equal."""
    labeller = Labeller(model, answer, tokenizer, min_constant=min_constant)

    def split(asks: Sequence[ScoreRequest]) -> Iterable[Sequence[int]]:
        return chunks([labeller.asked(ask) for ask in asks], limits.rows, limits.tokens)

    return Reader(labeller, Namer(answer, tokenizer, limits), split)


class _Behind(NamedTuple):
    """A context (its place in the batch) whose categories are asked for, behind these labels."""

    place: int
    labels: tuple[Label, Label | None]


def _chance_unsafe(reading: ScoreResult) -> float:
    """P(unsafe) of the side the model thinks worse of."""
    return max(reading.user.score, reading.response.score if reading.response else 0.0)


def _not_finite() -> Undecided:
    return Undecided(
        UndecidedReason.NOT_FINITE, detail="the logits of the categories are not finite"
    )


def _counted(sides: Sides, threshold: float) -> tuple[Label, Label | None]:
    """The labels as they count: greedily unsafe, or unsafe by the threshold alone."""

    def counts(side: Side) -> Label:
        return "unsafe" if side.label == "unsafe" or side.score >= threshold else "safe"

    return counts(sides.user), counts(sides.response) if sides.response else None
