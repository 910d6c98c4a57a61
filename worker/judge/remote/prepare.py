"""From a request to the texts that are sent: sanitised, and as many earlier turns as fit.

The server's tokenizer is not here, so the control strings that the family is known to have stand
for its added tokens, and the length of earlier turns is estimated. Whether the judged turn fits,
the server says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from worker.codes import UndecidedReason
from worker.contracts.verdict import ContextUse
from worker.errors import Undecided
from worker.guard.base import GuardModel
from worker.guard.sanitise import Sanitiser
from worker.images import JudgeImage
from worker.judgement import JudgeRequest

BYTES_A_TOKEN = 3
"""Bytes of UTF-8 that one token stands for at least, in ordinary text: the estimate is high."""


@dataclass(frozen=True)
class Prepared:
    """One request, ready to be sent. ``earlier`` are the turns that fit, oldest first, as ``used``
    counts them; ``names`` are the control strings that were sanitised.
    """

    user: str
    response: str | None
    earlier: tuple[tuple[str, str], ...]
    image: JudgeImage | None
    used: ContextUse
    names: tuple[str, ...]


class Preparer:
    """Prepares requests; safe from several threads."""

    def __init__(self, guard: GuardModel, context_budget: int) -> None:
        self._guard, self._context_budget = guard, context_budget
        # No tokenizer to ask whether a sanitised text still spells a token.
        self._sanitise = Sanitiser(guard, {}, lambda _: ())

    def prepare(self, request: JudgeRequest) -> Prepared:
        """Sanitise everything, and keep what fits of the earlier turns, newest first.

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
            user = self._guard.no_text
        turns, more = self._earlier(request.earlier)
        return Prepared(
            user=user,
            response=response,
            earlier=tuple(turns),
            image=request.image,
            used=ContextUse(included=len(turns), omitted=len(request.earlier) - len(turns)),
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
