"""Control strings of the prompt in user text lose their meaning; a person reads the same.

The chat template writes user text raw into the one turn that also holds the instructions, so every
added token of the tokenizer and every literal of the template is broken inside it: a WORD JOINER
(U+2060, no width) behind its first character does that. Where a tokenizer drops the joiner,
look-alike characters stand in.

Matching ignores case, forms of letters, characters without width, and white space where the string
has a blank. It is one pass of Aho and Corasick's automaton over the text without all that, so the
time is linear in the text, whatever it holds.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

from ahocorasick_rs import AhoCorasick, MatchKind

from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.guard.control_strings import CONTROL_STRINGS, ControlString, steers_nothing
from worker.text.characters import NO_WIDTH, SLICE, TAGS
from worker.text.recent import Recent

JOINER: Final = "\u2060"
_LOOKALIKE = dict(zip("<>[]/#|", "‹›⟦⟧∕♯∣", strict=True))
"""None of these has a compatibility form that leads back."""
_LONGEST_NUMBER = 6
_DIGITS = re.compile(r"[0-9]+")
_PLANE_2 = 0x20000
_LINE_ENDS = "\n\r\x0b\x0c\x85\u2028\u2029"
_SEEN = re.compile(f"[^{NO_WIDTH}{TAGS}]")

Encode = Callable[[str], Sequence[int]]
"""Token ids of a text, without any token the text does not spell."""


class _Compared(dict[int, str | None]):
    """A table for ``str.translate``: a character as it is compared, or nothing.

    One character stays one: a form of several (a ligature, a word in one sign) is left as it is.
    """

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        if code >= _PLANE_2:  # no letter of a control string has a form there: nothing to remember
            return character if _SEEN.match(character) else None
        folded: str | None = None
        if not character.isspace() and _SEEN.match(character):
            folded = unicodedata.normalize("NFKC", character).casefold()
            if folded.isdecimal():
                folded = "0"
            elif len(folded) != 1:
                folded = character
        self[code] = folded
        return folded


_compared = _Compared()


class Sanitiser:
    """Sanitises text in front of one tokenizer. Safe from several threads; remembers the last
    texts, for an event has one text and many contexts.

    ``added`` maps every added token to its id; ``harmless`` are ids that user text may hold anyway
    (the token for the unknown); ``encode`` is the tokenizer itself, asked once per text, or twice
    where something was found.
    """

    def __init__(
        self, added: dict[str, int], encode: Encode, harmless: Collection[int] = ()
    ) -> None:
        self._encode = encode
        controls = {token: number for token, number in added.items() if not steers_nothing(token)}
        self._ids = frozenset(controls.values()) - frozenset(harmless)
        known = {_DIGITS.sub("0", each.text) for each in CONTROL_STRINGS}
        others = dict.fromkeys(map(_numberless, controls))
        self._recent = Recent(self._sanitised)
        self._finder = _Finder(
            (*CONTROL_STRINGS, *(each for each in others if each.text not in known))
        )

    @property
    def control_ids(self) -> frozenset[int]:
        """Ids that no sanitised text is ever encoded to."""
        return self._ids

    def __call__(self, text: str) -> tuple[str, frozenset[str]]:
        """The text with every control string broken, and the canonical names of those found.

        Raises:
            Undecided: the tokenizer finds a control token even in the sanitised text.
        """
        return self._recent(text)

    def _sanitised(self, text: str) -> tuple[str, frozenset[str]]:
        sanitised, names = self._break(text)
        if not self._leaks(sanitised):
            return sanitised, names
        sanitised = "".join(_LOOKALIKE.get(_compared[ord(each)] or "", each) for each in sanitised)
        if self._leaks(sanitised):
            raise Undecided(
                UndecidedReason.JUDGE_REJECTED, detail="a control token cannot be neutralised"
            )
        return sanitised, names or frozenset({"added token"})

    def _leaks(self, text: str) -> bool:
        return not self._ids.isdisjoint(self._encode(text))

    def _break(self, text: str) -> tuple[str, frozenset[str]]:
        found: set[str] = set()
        cuts: set[int] = set()
        for literal, first, last in self._finder.matches(text):
            found.add(literal.name)
            if all(map(_SEEN.match, text[first : last + 1])):
                cuts.add(first + 1)
        if not cuts:
            return text, frozenset(found)
        places = [0, *sorted(cuts), len(text)]
        pieces = (text[start:end] for start, end in pairwise(places))
        return JOINER.join(pieces), frozenset(found)


def find_control_string(text: str) -> ControlString | None:
    """The first control string in a text that no policy may hold, or None."""
    return next((each for each, _, _ in _refused.matches(text)), None)


class _Finder:
    """Where control strings stand in a text."""

    def __init__(self, literals: Iterable[ControlString]) -> None:
        self._patterns: list[tuple[ControlString, re.Pattern[str]]] = []
        keys: list[str] = []
        for literal in literals:
            key = literal.text.translate(_compared)
            written = re.compile(_written(literal))
            lengths = range(1, _LONGEST_NUMBER + 1) if literal.numbered else (1,)
            for length in lengths:
                keys.append(key.replace("0", "0" * length) if literal.numbered else key)
                self._patterns.append((literal, written))
        self._longest = max(map(len, keys))
        self._automaton = AhoCorasick(keys, MatchKind.Standard)

    def matches(self, text: str) -> Iterator[tuple[ControlString, int, int]]:
        """Each with the first and last index in the text."""
        compared = "".join(
            text[start : start + SLICE].translate(_compared) for start in range(0, len(text), SLICE)
        )
        where: Sequence[int] | None = None
        for start in range(0, len(compared), SLICE):
            part = compared[start : start + SLICE + self._longest - 1]
            for index, begin, end in self._automaton.find_matches_as_indexes(
                part, overlapping=True
            ):
                if begin >= SLICE:
                    continue  # the next part has it
                if where is None:
                    where = _places(text, compared)
                literal, written = self._patterns[index]
                first, last = where[start + begin], where[start + end - 1]
                if _stands(text, first, last, literal, written):
                    yield literal, first, last


def _places(text: str, compared: str) -> Sequence[int]:
    """For each character that is compared its index in the text."""
    if len(compared) == len(text):
        return range(len(text))
    return array("L", (i for i, each in enumerate(text) if _compared[ord(each)] is not None))


def _stands(
    text: str, first: int, last: int, literal: ControlString, written: re.Pattern[str]
) -> bool:
    """Whether white space stands only where the literal has some, and around it what must."""
    span = text[first : last + 1]
    if any(map(str.isspace, span)):
        spelled = "".join(" " if each.isspace() else each.translate(_compared) for each in span)
        if not written.fullmatch(spelled):
            return False
    if literal.line:
        before = first - 1
        while before >= 0 and text[before] not in _LINE_ENDS:
            if _compared[ord(text[before])] is not None:
                return False
            before -= 1
    if literal.text.startswith("/"):
        before_it, behind = text[first - 1 : first], text[last + 1 : last + 2]
        return not _of_word(before_it) and not _of_word(behind)
    return True


def _of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _written(literal: ControlString) -> str:
    """A pattern of the literal with any white space where it has a blank, and before a colon."""
    words = [re.escape(word.translate(_compared)) for word in literal.text.split()]
    body = r"\s*".join(words).replace(":", r"\s*:")
    return body.replace("0", "0+") if literal.numbered else body


def _numberless(token: str) -> ControlString:
    """An added token; those that differ in a number only count as one."""
    text, numbers = _DIGITS.subn("0", token)
    return ControlString(text, token=True, numbered=numbers > 0)


_refused = _Finder(each for each in CONTROL_STRINGS if each.refused)
