"""The category line of contexts with an unsafe side: names, their probabilities, and the floor's.

The line is decoded greedily behind the labels, ``…⏎Safety Categories:``. A category's score is the
product of the probabilities of the tokens that spell its name, given everything before it. The
floor's score is the probability that the line goes on with its full name (the comma in front of it
included), the largest over all places: first, and after each category that was named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.contracts.verdict import Label
from worker.guard.answer import NamedCategory, split_categories
from worker.guard.taxonomy import FLOOR
from worker.judge.local.draft_tokens import NameDrafts
from worker.judge.local.label_scores import AnswerTokens, Computed, Limits, decode_text
from worker.judge.local.requests import ScoreRequest
from worker.judge.reference.decode import Context, Writing, Written, chunks
from worker.judgement import CategoryScore


@dataclass(frozen=True)
class Named:
    """The categories of one context, and the probability of the floor's name among them.

    ``complete`` is False where the line was cut off by its budget, ``finite`` where its logits were
    not finite.
    """

    categories: tuple[CategoryScore, ...]
    floor: float
    tokens: int
    complete: bool = True
    finite: bool = True


class Namer:
    """Names categories behind computed contexts."""

    def __init__(self, answer: AnswerTokens, tokenizer: Any, limits: Limits) -> None:
        self._answer, self._tokenizer, self._limits = answer, tokenizer, limits
        self._drafts = NameDrafts(answer, tokenizer)

    def name(
        self,
        computed: Computed,
        rows: Sequence[int],
        asks: Sequence[ScoreRequest],
        labels: Sequence[tuple[Label, Label | None]],
    ) -> list[Named]:
        """The category line behind each context's labels; order kept.

        ``rows`` are the asks' rows among the computed.
        """
        contexts = self._behind(asks, labels)
        lines = self._write(computed, rows, contexts, asks)
        places: list[tuple[int, Context, tuple[int, ...]]] = []
        found: list[list[tuple[NamedCategory, float]]] = []
        for index, (ask, context, line) in enumerate(zip(asks, contexts, lines, strict=True)):
            ends = _token_ends(self._tokenizer, line.ids)
            text = decode_text(self._tokenizer, line.ids)
            named = split_categories(text.split("\n")[0], ask.rubric)
            found.append([(each, _probability(line, ends, each)) for each in named])
            places.append((index, context, self._answer.floor))
            for each in named:
                count = next(n for n, end in enumerate(ends, start=1) if end >= each.end)
                after = context.extended(line.ids[:count])
                follows = text[each.end : ends[count - 1]]
                if follows == "":
                    next_name = (*self._answer.comma, *self._answer.floor)
                    places.append((index, after, next_name))
                elif follows == ",":  # one token spells the end of the name and the comma
                    places.append((index, after, self._answer.floor))
        floors = self._floor(computed, rows, places)
        return [
            self._named(categories, floor, line)
            for categories, floor, line in zip(found, floors, lines, strict=True)
        ]

    def floor(
        self,
        computed: Computed,
        rows: Sequence[int],
        asks: Sequence[ScoreRequest],
        labels: Sequence[tuple[Label, Label | None]],
    ) -> list[float]:
        """The floor's name as the first category behind each context's labels; NaN where none."""
        contexts = self._behind(asks, labels)
        places = [(index, each, self._answer.floor) for index, each in enumerate(contexts)]
        return self._floor(computed, rows, places)

    def _behind(
        self, asks: Sequence[ScoreRequest], labels: Sequence[tuple[Label, Label | None]]
    ) -> list[Context]:
        return [
            ask.context.extended((*self._answer.spell(*sides), *self._answer.categories))
            for ask, sides in zip(asks, labels, strict=True)
        ]

    def _named(
        self, found: list[tuple[NamedCategory, float]], floor: float, line: Written
    ) -> Named:
        categories = tuple(CategoryScore(name=each.name, score=score) for each, score in found)
        named_floor = max((c.score or 0.0 for c in categories if c.name == FLOOR), default=0.0)
        finite = line.ended != "not_finite" and not math.isnan(floor)
        complete = line.ended != "length"
        return Named(categories, max(floor, named_floor), len(line.ids), complete, finite)

    def _write(
        self,
        computed: Computed,
        rows: Sequence[int],
        contexts: Sequence[Context],
        asks: Sequence[ScoreRequest],
    ) -> list[Written]:
        answer = self._answer

        def ends_line(line: Written) -> bool:
            return "\n" in decode_text(self._tokenizer, line.ids[-1:])

        writing = Writing(answer.stop, (answer.safe, answer.unsafe), ends_line)
        budgets = [ask.category_budget for ask in asks]
        drafts = [self._drafts.of(ask.rubric) for ask in asks]
        return computed.write(rows, contexts, budgets, writing, drafts)

    def _floor(
        self,
        computed: Computed,
        rows: Sequence[int],
        places: Sequence[tuple[int, Context, tuple[int, ...]]],
    ) -> list[float]:
        """Per row the largest probability of the floor's name; NaN where it has none."""
        floors = [0.0] * len(rows)
        extended = [context.extended(name) for _, context, name in places]
        for chunk in chunks(extended, self._limits.rows, self._limits.tokens):
            logits = computed.logits_of(
                [rows[places[place][0]] for place in chunk],
                [extended[place] for place in chunk],
                [len(places[place][2]) + 1 for place in chunk],
            )
            for place, each in zip(chunk, logits, strict=True):
                index, _, name = places[place]
                own = each[:-1].float()
                column = torch.tensor(name, device=own.device)[:, None]
                spelled = torch.log_softmax(own, -1).gather(1, column)
                probability = math.exp(float(spelled.sum()))
                if not bool(torch.isfinite(own).all()):
                    probability = math.nan
                floors[index] = max(floors[index], probability, key=_nan_first)
        return floors


def _nan_first(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _token_ends(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Where each token ends in the decoded text, in characters."""
    return [len(decode_text(tokenizer, ids[: count + 1])) for count in range(len(ids))]


def _probability(line: Written, ends: Sequence[int], named: NamedCategory) -> float:
    """Product over the tokens that touch the name's characters."""
    logprob, start = 0.0, 0
    for end, token in zip(ends, line.logprobs, strict=True):
        if start < named.end and end > named.start:
            logprob += token
        start = end
    return math.exp(logprob)
