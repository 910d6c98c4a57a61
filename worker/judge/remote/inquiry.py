"""One pass over one conversation: the answer, and what has to be asked again to know the floor.

::

    1  as it is                              labels, scores, the line where a side is written unsafe
    2  with `unsafe` preferred, just so far  the line, where a score counts that was written safe
    3  with the floor's next token preferred the floor's share, where alternatives leave it open

A preference (``logit_bias``) is as large as the gap in log-probability that it must close, so what
the server writes behind it is the model's own. Log-probabilities are those before any preference
(vLLM's default); a server that lists them after it makes a floor likelier, never less likely.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from worker.contracts.codes import UndecidedReason
from worker.errors import Undecided
from worker.judge.base import Rubric
from worker.judge.reading import Reading
from worker.judge.remote.answer import Answer
from worker.judge.remote.floor import Bound, bound, places
from worker.judge.remote.reader import Line, Sides, read_line, read_sides
from worker.judge.remote.vocabulary import Vocabulary
from worker.policy.floor import FLOOR_THRESHOLD
from worker.policy.taxonomy import FLOOR

MARGIN = 0.05
"""How far a preferred token is lifted above the one it replaces, in log-probability."""
MORE_QUESTIONS = 6
"""Most questions about the floor of one event; one token of its name a question."""

Put = Callable[[Mapping[int, float], Callable[[Answer], object]], Awaitable[Answer]]
"""Puts the question with these preferences; an answer the reader refuses is a failed one."""


@dataclass(frozen=True)
class _Floor:
    """The floor's share of the line: the most it can be, and whether that is all that is known."""

    share: float
    known: bool


class Inquiry:
    """Questions about one conversation. ``answers`` are all that came, the first one first."""

    def __init__(
        self,
        put: Put,
        vocabulary: Vocabulary | None,
        *,
        response: bool,
        rubric: Rubric,
        threshold: float,
    ) -> None:
        self._put, self._vocabulary = put, vocabulary
        self._response, self._rubric, self._threshold = response, rubric, threshold
        self.answers: list[Answer] = []

    async def reading(self, answer: Answer | None = None) -> Reading:
        """Everything that is read from one context; ``answer`` is the first one, if it is there.

        Raises:
            Undecided: the answer cannot be read, or it is called safe and whether it breaks the
                floor cannot be found out.
        """
        answer = answer or await self.ask({}, self._sides)
        sides = self._sides(answer)
        scores = [sides.user.score, sides.response.score if sides.response else 0.0]
        counted = sides.written_unsafe or max(scores) >= self._threshold
        reading = Reading(user=sides.user, response=sides.response)
        if not counted and max(scores) < FLOOR_THRESHOLD:
            return reading
        line, bias = sides.line, dict[int, float]()
        if not sides.written_unsafe:
            bias = self._preferring(self._threshold if counted else FLOOR_THRESHOLD)
            answer, line = await self._preferred(answer, bias)
        if line is None:
            return self._without_line(reading, counted)
        # As the local judge: of a safe event only the first name is asked for.
        looked_at = line if counted else replace(line, ends=())
        floor = await self._floor(answer, looked_at, bias, sides.chance)
        if not counted and not floor.known:
            raise _unchecked()
        return Reading(
            user=sides.user,
            response=sides.response,
            categories=line.categories if counted else (),
            categories_complete=not counted or (line.complete and floor.known),
            floor_score=sides.chance * floor.share,
        )

    def _sides(self, answer: Answer) -> Sides:
        return read_sides(answer, response=self._response, rubric=self._rubric)

    async def ask(self, bias: Mapping[int, float], check: Callable[[Answer], object]) -> Answer:
        """One answer; where ``check`` refuses it, the question has failed."""
        answer = await self._put(bias, check)
        self.answers.append(answer)
        return answer

    def _preferring(self, score: float) -> dict[int, float]:
        """The preference under which every side with this score or more is written unsafe."""
        if self._vocabulary is None:
            return {}
        score = max(score, 1e-6)
        return {self._vocabulary.unsafe: max(0.0, math.log((1.0 - score) / score)) + MARGIN}

    async def _preferred(self, first: Answer, bias: dict[int, float]) -> tuple[Answer, Line | None]:
        if not bias:
            return first, None
        try:
            answer = await self.ask(bias, lambda _: None)
            return answer, read_line(answer, response=self._response, rubric=self._rubric)
        except Undecided:  # the labels of the first answer stand all the same
            return first, None

    def _without_line(self, reading: Reading, counted: bool) -> Reading:
        """Unsafe without a category is never cleared; safe without a look at the floor is none."""
        if not counted:
            raise _unchecked()
        return msgspec.structs.replace(reading, categories_complete=False)

    async def _floor(
        self, answer: Answer, line: Line, bias: Mapping[int, float], chance: float
    ) -> _Floor:
        words = self._vocabulary
        spelled = max((c.score or 0.0 for c in line.categories if c.name == FLOOR), default=0.0)
        first, further = (words.first, words.further) if words else ((), ())
        asked = 0
        most, known = spelled, True
        for place in places(line.start, line.ends, first, further):
            found, preferred, current = bound(answer, place), dict(bias), answer
            while chance * found.most >= FLOOR_THRESHOLD > chance * found.spelled:
                if words is None or found.open is None or asked == MORE_QUESTIONS:
                    break
                asked += 1
                token = words.ids[found.open.token]
                preferred[token] = preferred.get(token, 0.0) + found.open.gap + MARGIN
                further_answer = await self._again(preferred, current, found)
                if further_answer is None:
                    break
                current = further_answer
                found = bound(current, place)
            settled = chance * found.most < FLOOR_THRESHOLD or found.spelled > 0.0
            if settled or (found.open is not None and self._names_floor(found.open.token)):
                most = max(most, found.most)
            else:
                most, known = max(most, found.spelled), False
        return _Floor(most, known or chance * most >= FLOOR_THRESHOLD)

    def _names_floor(self, token: bytes) -> bool:
        """Whether a token can only be the floor's name; a comma may stand before any other."""
        return self._vocabulary is not None and token in self._vocabulary.first

    async def _again(
        self, preferred: Mapping[int, float], current: Answer, found: Bound
    ) -> Answer | None:
        """The answer that goes on with the open token at its place; None where it does not."""
        assert found.open is not None
        at, token = found.open.at, found.open.token
        try:
            answer = await self.ask(preferred, lambda _: None)
        except Undecided:
            return None
        same = answer.spelled[:at] == current.spelled[:at]
        written = any(each.start == at and each.text == token for each in answer.tokens)
        return answer if same and written else None


def _unchecked() -> Undecided:
    return Undecided(
        UndecidedReason.FLOOR_UNCHECKED, detail="the server cannot be asked about the floor"
    )
