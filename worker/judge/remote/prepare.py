"""From a request to the texts that are sent: sanitised and folded, as in front of a local model.

The server's tokenizer is not here, so the known control strings of Gemma 3 stand for its added
tokens, and the length of earlier turns is estimated. Whether the judged turn fits, the server says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.codes import UndecidedReason
from worker.contracts.verdict import ContextUse
from worker.errors import Undecided
from worker.guard.context import fold_context
from worker.guard.sanitise import Sanitiser
from worker.images import JudgeImage
from worker.judgement import JudgeRequest, Rubric

NO_TEXT = "(image without text)"
"""Stands for the missing text of an image: the model refuses an image without any."""
BYTES_A_TOKEN = 3
"""Bytes of UTF-8 that one token stands for at least, in ordinary text: the estimate is high."""


@dataclass(frozen=True)
class Prepared:
    """One request, ready to be sent. ``alone`` is ``user`` without the earlier turns in ``used``.

    ``names`` are the control strings that were sanitised.
    """

    user: str
    alone: str
    response: str | None
    rubric: Rubric
    image: JudgeImage | None
    used: ContextUse
    names: tuple[str, ...]


class Preparer:
    """Prepares requests; safe from several threads."""

    def __init__(self, context_budget: int) -> None:
        self._context_budget = context_budget
        # No tokenizer to ask whether a sanitised text still spells a token.
        self._sanitise = Sanitiser({}, lambda _: ())

    def prepare(self, request: JudgeRequest) -> Prepared:
        """Sanitise everything, and fold in what fits of the earlier turns, newest first.

        Raises:
            Undecided: ``empty_message``; ``invalid_field`` where a text is no Unicode.
        """
        user, found = self._sanitised(request.user)
        response = None
        if request.response is not None and request.response.strip():
            response, more = self._sanitised(request.response)
            found |= more
        if not user:
            if request.image is None:
                raise Undecided(UndecidedReason.EMPTY_MESSAGE, field="messages")
            user = NO_TEXT
        turns, more = self._earlier(request.earlier)
        used = ContextUse(included=len(turns), omitted=len(request.earlier) - len(turns))
        return Prepared(
            user=fold_context(turns, user),
            alone=user,
            response=response,
            rubric=request.rubric,
            image=request.image,
            used=used,
            names=tuple(sorted(found | more)),
        )

    def _sanitised(self, text: str) -> tuple[str, frozenset[str]]:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Undecided(
                UndecidedReason.INVALID_FIELD, field="messages", detail="a lone surrogate"
            ) from error
        return self._sanitise(text.strip())

    def _earlier(
        self, earlier: Sequence[tuple[str, str]]
    ) -> tuple[list[tuple[str, str]], frozenset[str]]:
        room = self._context_budget * BYTES_A_TOKEN
        turns: list[tuple[str, str]] = []
        found: frozenset[str] = frozenset()
        for role, text in reversed(earlier):
            if len(text) > room:
                break
            sanitised, names = self._sanitised(text)
            room -= len(f"{role}: {sanitised}\n".encode())
            if room < 0:
                break
            turns.insert(0, (role, sanitised))
            found |= names
        return turns, found
