"""The constant text of an answer as token ids, and the two tokens that carry a label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from worker.contracts.verdict import Label
from worker.errors import ConfigurationError
from worker.policy.taxonomy import FLOOR

Encode = Callable[[str], Sequence[int]]

USER = "User Safety:"
RESPONSE = "\nResponse Safety:"
CATEGORIES = "\nSafety Categories:"


class AnswerTokens(NamedTuple):
    """Pieces whose concatenation is the token sequence of a whole answer.

    ``user + (safe,) + response + (unsafe,) + categories + floor`` spells
    ``User Safety: safe⏎Response Safety: unsafe⏎Safety Categories: Sexual (minor)``.
    ``comma`` stands between categories; ``stop`` ends an answer.
    """

    user: tuple[int, ...]
    safe: int
    unsafe: int
    response: tuple[int, ...]
    categories: tuple[int, ...]
    floor: tuple[int, ...]
    comma: tuple[int, ...]
    stop: frozenset[int]

    def label(self, label: Label) -> int:
        return self.unsafe if label == "unsafe" else self.safe

    def spell(self, user: Label, response: Label | None = None) -> tuple[int, ...]:
        """Token ids of the label lines."""
        spelled = (*self.user, self.label(user))
        if response is not None:
            spelled += (*self.response, self.label(response))
        return spelled


def answer_tokens(encode: Encode, stop: Sequence[int]) -> AnswerTokens:
    """Find the pieces in a tokenizer.

    Raises:
        ConfigurationError: a label is not one token of its own, or pieces merge across a seam.
    """
    user = tuple(encode(USER))
    safe = _rest(encode, USER, f"{USER} safe")
    unsafe = _rest(encode, USER, f"{USER} unsafe")
    if len(safe) != 1 or len(unsafe) != 1 or safe == unsafe:
        raise ConfigurationError(
            "tokenizer: ' safe' and ' unsafe' are not two single tokens after 'User Safety:'; "
            "use the checkpoint's own tokenizer"
        )
    lines = f"{USER} unsafe"
    response = _rest(encode, lines, f"{lines}{RESPONSE}")
    for label, token in (("safe", safe), ("unsafe", unsafe)):
        if _rest(encode, f"{lines}{RESPONSE}", f"{lines}{RESPONSE} {label}") != token:
            raise ConfigurationError(
                f"tokenizer: the label {label!r} is another token in the response line; "
                "use the checkpoint's own tokenizer"
            )
    named = f"{lines}{CATEGORIES}"
    return AnswerTokens(
        user=user,
        safe=safe[0],
        unsafe=unsafe[0],
        response=response,
        categories=_rest(encode, lines, named),
        floor=_rest(encode, named, f"{named} {FLOOR}"),
        comma=tuple(encode(",")),
        stop=frozenset(stop),
    )


def _rest(encode: Encode, start: str, whole: str) -> tuple[int, ...]:
    first, everything = tuple(encode(start)), tuple(encode(whole))
    if everything[: len(first)] != first:
        raise ConfigurationError(
            f"tokenizer: {start!r} is tokenised otherwise inside {whole!r}; "
            "use the checkpoint's own tokenizer"
        )
    return everything[len(first) :]
