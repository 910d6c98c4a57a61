"""What greedy text is likely to go on with: names of categories, and the constant text of a trace.

Draft tokens save forwards where they are right and change nothing where they are wrong
(``decode.Draft``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from worker.guard.taxonomy import BUILTIN
from worker.judge.local.label_scores import AnswerTokens
from worker.judge.local.loading import encoder
from worker.judge.reference.decode import Draft
from worker.judgement import Rubric

_FRONT = "User Safety: unsafe\nSafety Categories:"


class NameDrafts:
    """Drafts in category lines: from its first token on, a name is what a rubric calls it."""

    def __init__(self, answer: AnswerTokens, tokenizer: Any) -> None:
        self._comma, self._encode = answer.comma, encoder(tokenizer)
        self._of = lru_cache(maxsize=1024)(self._spelled)

    def of(self, rubric: Rubric) -> Draft:
        """The draft for lines under a rubric: the names that begin like the last one, each with
        the comma that may follow."""
        names, comma = self._of(rubric), self._comma

        def draft(ids: Sequence[int]) -> list[tuple[int, ...]]:
            begun = _since(ids, comma)
            count = len(begun)
            if not count:
                return []  # any of them may come: the next token says which
            return [each[count:] for each in names if each[:count] == begun and len(each) > count]

        return draft

    def _spelled(self, rubric: Rubric) -> tuple[tuple[int, ...], ...]:
        known = dict.fromkeys(rubric.categories)
        if rubric.mode == "builtin":
            known.update(dict.fromkeys(BUILTIN))
        front = tuple(self._encode(_FRONT))
        spelled = []
        for name in known:
            ids = tuple(self._encode(f"{_FRONT} {name}"))
            if ids[: len(front)] == front:
                spelled.append((*ids[len(front) :], *self._comma))
        return tuple(spelled)


def reasoning_draft(answer: AnswerTokens, tokenizer: Any) -> Draft:
    """The opening tag at a trace's beginning; behind an empty line its end, and the answer's."""
    encode = encoder(tokenizer)
    opening = tuple(encode("<think>\n"))
    closing = (*encode("</think>"), answer.user[0])
    breaks = lru_cache(maxsize=1024)(lambda token: not tokenizer.decode([token]).strip("\n"))

    def draft(ids: Sequence[int]) -> list[tuple[int, ...]]:
        if not ids:
            return [opening]
        return [closing] if breaks(ids[-1]) else []

    return draft


def _since(ids: Sequence[int], comma: tuple[int, ...]) -> tuple[int, ...]:
    """The tokens behind the last comma."""
    size = len(comma)
    for start in range(len(ids) - size, -1, -1):
        if tuple(ids[start : start + size]) == comma:
            return tuple(ids[start + size :])
    return tuple(ids)
