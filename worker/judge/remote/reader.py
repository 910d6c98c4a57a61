"""From an answer to labels with scores, names with scores, and places where the floor may stand."""

from __future__ import annotations

import math
from dataclasses import dataclass

from worker.contracts.codes import UndecidedReason
from worker.contracts.verdict import Label
from worker.errors import Undecided
from worker.judge.base import CategoryScore, Rubric, Side
from worker.judge.parse import label_match, line_match, split_categories, split_trace
from worker.judge.remote.answer import Answer
from worker.judge.remote.score import score_label


@dataclass(frozen=True)
class Line:
    """A category line: its names, the byte behind its colon, and where each name ends.

    ``complete`` is False where the budget cut it off.
    """

    categories: tuple[CategoryScore, ...]
    start: int
    ends: tuple[int, ...]
    complete: bool


@dataclass(frozen=True)
class Sides:
    """Both labels as they were written, and the category line behind them, if there is one."""

    user: Side
    response: Side | None
    line: Line | None

    @property
    def written_unsafe(self) -> bool:
        return "unsafe" in (self.user.label, self.response.label if self.response else None)

    @property
    def chance(self) -> float:
        """P(unsafe) of the side the model thinks worse of."""
        return max(self.user.score, self.response.score if self.response else 0.0)


def read_sides(answer: Answer, *, response: bool, rubric: Rubric) -> Sides:
    """Read labels and category line; ``response`` says whether a response was sent.

    Raises:
        Undecided: a label is missing, or has no score; the detail never quotes the text.
    """
    start = answered_from(answer)
    user = _side(answer, start, "User Safety")
    answered = _side(answer, start, "Response Safety") if response else None
    sides = Sides(user, answered, None)
    if not sides.written_unsafe:
        return sides
    return Sides(user, answered, _line(answer, start, rubric))


def read_line(answer: Answer, *, response: bool, rubric: Rubric) -> Line | None:
    """The category line of an answer whose labels were preferred; None where there is none.

    The labels must be there, and one of them unsafe; their scores are those of the first answer.
    """
    start = answered_from(answer)
    try:
        fields = ("User Safety", "Response Safety") if response else ("User Safety",)
        labels = {label_match(answer.text[start:], field)[1].lower() for field in fields}
    except Undecided:
        return None
    return _line(answer, start, rubric) if "unsafe" in labels else None


def answered_from(answer: Answer) -> int:
    """Character of the text at which the answer proper begins, behind a trace.

    Raises:
        Undecided: a trace was opened and never closed.
    """
    _, rest = split_trace(answer.text)
    return len(answer.text) - len(rest)


def _side(answer: Answer, start: int, field: str) -> Side:
    match = label_match(answer.text[start:], field)
    colon = match[0].index(":") + 1 + match.start()
    written: Label = "unsafe" if match[1].lower() == "unsafe" else "safe"
    label = answer.place(start + match.start(1))
    return score_label(answer, answer.place(start + colon), label, written)


def _line(answer: Answer, start: int, rubric: Rubric) -> Line | None:
    match = line_match(answer.text[start:], "Safety Categories")
    if match is None:
        return None
    first = start + match.start(1)
    categories, ends = [], []
    for named in split_categories(match[1].rstrip(), rubric):
        begin, end = answer.place(first + named.start), answer.place(first + named.end)
        categories.append(CategoryScore(name=named.name, score=_probability(answer, begin, end)))
        ends.append(end)
    cut = answer.cut and start + match.end() == len(answer.text)
    return Line(tuple(categories), answer.place(first), tuple(ends), not cut)


def _probability(answer: Answer, begin: int, end: int) -> float:
    """Product over the tokens that touch the bytes of a name."""
    return math.exp(
        sum(each.logprob for each in answer.tokens if each.start < end and each.end > begin)
    )


def unclosed(answer: Answer) -> bool:
    """Whether a trace was begun and its end never written."""
    if answer.trace is not None:
        return not answer.text and answer.cut
    try:
        split_trace(answer.text)
    except Undecided as error:
        return error.reason is UndecidedReason.MALFORMED_OUTPUT
    return False
