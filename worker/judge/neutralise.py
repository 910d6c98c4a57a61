"""Control strings of the prompt in user text, defused: a person reads the same, the model cannot.

The chat template writes user text raw into the one turn that also holds the instructions, so every
added token of the tokenizer and every literal of the template must lose its meaning inside it. A
``WORD JOINER`` (U+2060, no width) after the first character does that; where a tokenizer drops it,
look-alike characters stand in. Added tokens that are only white space (Gemma 3 has runs of line
ends and blanks) control nothing and are left alone.

Matching ignores case, full-width forms, zero-width characters and the amount of white space, so
variants are found and reported too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache

from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.guard.base import GuardModel

JOINER = "\u2060"
_LOOKALIKE = {"<": "‹", ">": "›", "[": "⟦", "]": "⟧", "/": "∕", "#": "♯", "|": "∣"}
"""None of these has a compatibility form that leads back."""
_NO_WIDTH = frozenset(
    ["\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u3164", "\uffa0"]
    + [chr(selector) for selector in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))]
)
"""Characters without width that are not of the category Cf: fillers and variation selectors."""
_DIGITS = re.compile(r"\d+")

Encode = Callable[[str], Sequence[int]]
"""Token ids of a text, without any token the text does not spell."""


class Neutraliser:
    """Defuses the control strings of one family of guards and one tokenizer.

    ``added`` maps every added token to its id; ``harmless`` are ids that user text may hold anyway
    (the token for the unknown); ``encode`` is the tokenizer itself, asked once per text.
    """

    def __init__(
        self,
        guard: GuardModel,
        added: dict[str, int],
        encode: Encode,
        harmless: Collection[int] = (),
    ) -> None:
        self._encode = encode
        controls = {token: number for token, number in added.items() if not _is_blank(token)}
        self._ids = frozenset(controls.values()) - frozenset(harmless)
        self._names, self._pattern = _compile([*controls, *template_literals(guard)])

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that no neutralised text is ever encoded to."""
        return self._ids

    def __call__(self, text: str) -> tuple[str, frozenset[str]]:
        """The text with every control string defused, and the canonical names of those found.

        Raises:
            Undecided: the tokenizer finds a control token even in the defused text.
        """
        defused, names = self._break(text)
        if not names and not self._leaks(text):
            return text, names
        if self._leaks(defused):
            defused = "".join(_LOOKALIKE.get(_fold(each), each) for each in defused)
            if self._leaks(defused):
                raise Undecided(
                    UndecidedReason.JUDGE_REJECTED, detail="a control token cannot be neutralised"
                )
            names = names or frozenset({"added token"})
        return defused, names

    def _leaks(self, text: str) -> bool:
        return not self._ids.isdisjoint(self._encode(text))

    def _break(self, text: str) -> tuple[str, frozenset[str]]:
        skeleton, where = _skeleton(text)
        found: set[str] = set()
        cuts: set[int] = set()
        for match in self._pattern.finditer(skeleton):
            assert match.lastgroup is not None
            found.add(self._names[match.lastgroup])
            start, end = match.span(match.lastgroup)
            first, last = (where[start], where[end - 1]) if where else (start, end - 1)
            span = text[first : last + 1]
            if not any(_fold(character) == "" for character in span):
                cuts.add(first + 1)
        if not cuts:
            return text, frozenset(found)
        pieces, previous = [], 0
        for cut in sorted(cuts):
            pieces.append(text[previous:cut])
            previous = cut
        return JOINER.join([*pieces, text[previous:]]), frozenset(found)


def template_literals(guard: GuardModel) -> tuple[str, ...]:
    """What steers the model by its text, whatever the tokenizer."""
    return tuple(each.text for each in guard.control_strings if each.sanitised and not each.token)


def known_tokens(guard: GuardModel) -> tuple[str, ...]:
    """What steers the model by its token, for where there is no tokenizer to ask."""
    return tuple(each.text for each in guard.control_strings if each.sanitised and each.token)


def _is_blank(token: str) -> bool:
    return not token.replace("▁", " ").strip()


def _compile(literals: Iterable[str]) -> tuple[dict[str, str], re.Pattern[str]]:
    """One pattern for all; looked up ahead, so that overlapping strings are all found.

    Tokens that differ in their number only (``<unused17>``) share one alternative and one name.
    """
    families = {_DIGITS.sub("0", literal): literal for literal in literals}
    names: dict[str, str] = {}
    alternatives = []
    for literal in sorted(families, key=len, reverse=True):
        group = f"c{len(names)}"
        names[group] = _DIGITS.sub("N", families[literal])
        alternatives.append(f"(?P<{group}>{_flexible(literal)})")
    return names, re.compile(f"(?=(?:{'|'.join(alternatives)}))")


def _flexible(literal: str) -> str:
    folded = "".join(_fold(character) for character in literal)
    body = r"\s*".join(re.escape(word) for word in folded.split())
    body = body.replace(":", r"\s*:") if folded.endswith(":") else body
    body = _DIGITS.sub(lambda _: r"\d+", body)
    before = r"(?<!\w)" if literal.startswith("/") else ""
    after = r"(?!\w)" if literal[-1:].isalnum() and literal.startswith("/") else ""
    return f"{before}{body}{after}"


@lru_cache(maxsize=16_384)
def _fold(character: str) -> str:
    """One character as it is compared: compatible form, lower case; "" where it has no width."""
    if unicodedata.category(character) == "Cf" or character in _NO_WIDTH:
        return ""
    folded = unicodedata.normalize("NFKC", character).casefold()
    return folded if not folded.isspace() else " "


def _skeleton(text: str) -> tuple[str, list[int]]:
    """The text as it is compared, and for each of its characters the index in ``text``.

    The list is empty where the two run in step (plain ASCII).
    """
    if text.isascii():
        return text.lower(), []
    folded: list[str] = []
    where: list[int] = []
    for index, character in enumerate(text):
        for piece in _fold(character):
            folded.append(piece)
            where.append(index)
    return "".join(folded), where
