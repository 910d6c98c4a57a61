"""One text as the several texts it may be meant as, and one phrase as it may be written.

    level       views of a text that was folded to what a person reads (``worker.text.fold``)
    exact       the text as it was written, NFC
    normalised  words: case and punctuation folded, cut in front of raised and enclosed signs
                bare words: no diacritics, vowel marks, tatweel; one form for letters of many forms
                unmasked words: lookalikes as the Latin letters they imitate
    loose       squeezed words: punctuation taken out
                spelled words: letters that stand alone, joined
                all of them with digits and signs read as letters (1 as i and as l)

A phrase has its own words and its bare words, so that what a list writes with accents is found
without, and the other way round. Letters of their own keep their mark at ``normalised``: ñ is no n
(año, ano), й no и. Everything is linear in the text, and bounded where a form has several letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

from worker.text.characters import (
    GENERIC_MARKS,
    MARKS,
    NO_WIDTH,
    SLICE,
    TAGS,
    UNSPACED,
    bounded,
    by_slices,
)
from worker.text.fold import fold
from worker.text.lookalikes import unmasked

Match = Literal["exact", "normalised", "loose"]
LEVELS: tuple[Match, ...] = ("exact", "normalised", "loose")

_LONGEST_FORM = 4
"""Letters that one character may stand for; U+FDFA, a sentence of 18, stays what it is."""
_PLANE_2 = 0x20000
_INVISIBLE = re.compile(
    f"[{NO_WIDTH}{TAGS}\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]+"
)
_SIGN_FORMS = ("<super>", "<sub>")
_FORM = re.compile("<[^>]*>")


class _Table(dict[int, str | None]):
    """A table for ``str.translate`` that is made as characters come; planes of Han stay out of it,
    so that hostile text cannot fill the memory.
    """

    def make(self, character: str) -> str | None:
        raise NotImplementedError

    def __missing__(self, code: int) -> str | None:
        made = self.make(chr(code))
        if code < _PLANE_2:
            self[code] = made
        return made


def _form(character: str) -> str:
    """The characters that one stands for: its compatibility form, within bounds."""
    form = unicodedata.normalize("NFKC", character)
    return form if len(form) <= _LONGEST_FORM else character


class _Words(_Table):
    """Letters, marks and numbers in lower case; emoji stand alone, punctuation is what is given."""

    def __init__(self, punctuation: str | None) -> None:
        self._punctuation = punctuation

    def make(self, character: str) -> str | None:
        if _INVISIBLE.match(character):
            return None
        if character.isspace():
            return " "
        category = unicodedata.category(character)
        form = _form(character).casefold()
        if form != character.casefold() and form.isalnum():
            sign = category[0] not in "LM" and category != "Nd"
            if sign or unicodedata.decomposition(character).startswith(_SIGN_FORMS):
                return f" {form} "  # cocaine² is the word, and a 2
            return form
        if category[0] in "LMN":
            return character.casefold()
        return f" {character} " if category == "So" else self._punctuation


_WORDS, _SQUEEZED = _Words(" "), _Words(None)

# Vowel marks of Arabic and Hebrew, tatweel, nukta: left out or put in at will.
_OPTIONAL = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u08d3-\u08ff\u093c\u09bc\u0a3c\u0abc\u0b3c"
    f"{GENERIC_MARKS}]"
)
_ONE_FORM = {
    **dict.fromkeys("أإآٱ", "ا"),
    **dict.fromkeys("ىیېے", "ي"),
    **dict.fromkeys("ةہەھۀ", "ه"),
    **dict.fromkeys("کڪ", "ك"),
    "ؤ": "و",
    "ئ": "ي",
    "ı": "i",
    "\u0901": "\u0902",
    "\u0981": "\u0982",
    "\u00df": "ss",
    **{chr(code): chr(code - 0x60) for code in range(0x30A1, 0x30F7)},  # katakana as hiragana
}
_OF_THEIR_OWN = frozenset("ñÑйЙ")


class _Bare(_Table):
    """A character without what may be left out of it; case and punctuation stay."""

    def make(self, character: str) -> str | None:
        if _INVISIBLE.match(character) or _OPTIONAL.match(character):
            return None
        if character in _OF_THEIR_OWN:
            return character
        form = _form(character)
        return "".join(
            _ONE_FORM.get(each, each)
            for letter in form
            for each in (letter if letter in _OF_THEIR_OWN else _stripped(letter))
        )


def _stripped(letter: str) -> str:
    """The letter without generic marks; digits of every script as ASCII."""
    if letter in _ONE_FORM:
        return letter
    number = unicodedata.decimal(letter, None)
    if number is not None:
        return str(number)
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) == 1 or not all(map(_OPTIONAL.match, parts[1:])):
        return letter
    return parts[0]


_BARE = _Bare()
_STRAY = re.compile(f"(?<=[A-Za-z])[{MARKS}]+")
_WITHOUT_OWN = str.maketrans("ñйÑЙ", "nиNИ")
# Words of scripts that write blanks begin and end at a blank, beside a script that writes none too.
_BORDER = re.compile(f"(?<=[{UNSPACED}])(?=[^{UNSPACED} ])|(?<=[^{UNSPACED} ])(?=[{UNSPACED}])")
_ANY_UNSPACED = re.compile(f"[{UNSPACED}]")

_LONE = re.compile(r"(?<!\S)\S(?:\s+\S(?!\S)){1,1000}")
_BLANKS = re.compile(" {2,}")
_GAP = re.compile(r"\s+")
_TOKEN = re.compile(r"\S+")
_ENDS = "!|+€.,;:?)]}\"'"
_SIGNS = "013457@$!|+€"
_LETTER = re.compile(r"[^\W\d_]")
_READINGS = tuple(str.maketrans("03457@$+€1!|", f"oeastaste{one * 3}") for one in "il")


def written(text: str) -> str:
    """The text as it is compared exactly: NFC, nothing else."""
    if text.isascii():
        return text
    return by_slices(lambda part: unicodedata.normalize("NFC", bounded(part)), text)


def words(text: str) -> str:
    """The text in lower case, with single blanks between what counts as words."""
    if text.isascii():
        return _single_blanks(by_slices(lambda part: part.lower().translate(_WORDS), text))
    return _spaced(by_slices(_worded, written(text)))


def _worded(text: str) -> str:
    return unicodedata.normalize("NFC", text.translate(_WORDS))


def _spaced(text: str) -> str:
    if _ANY_UNSPACED.search(text):
        text = by_slices(lambda part: _BORDER.sub(" ", part), text)
    return _single_blanks(text)


def _single_blanks(text: str) -> str:
    if len(text) <= SLICE:
        return " ".join(text.split())
    # A slice leaves one blank of a run, so two may meet at a cut.
    return by_slices(lambda part: _BLANKS.sub(" ", part), text).replace("  ", " ").strip()


def visible(text: str) -> str:
    """The text without characters that nobody sees."""
    return _INVISIBLE.sub("", text) if _INVISIBLE.search(text) else text


def bare(text: str) -> str:
    """The text without what may be left out of letters; case and punctuation are still there."""
    if text.isascii():
        return text
    return by_slices(_bare, written(text))


def _bare(text: str) -> str:
    return unicodedata.normalize("NFC", _STRAY.sub("", text.translate(_BARE)))


def forms(phrase: str, match: Match) -> tuple[str, ...]:
    """A phrase as it is looked for: its words, and in texts that leave marks out its bare words."""
    if match == "exact":
        return (written(phrase),)
    plain = fold(phrase).text
    stripped = bare(plain)
    found = [words(plain), words(stripped)]
    if match == "loose":
        found.append(words(stripped.translate(_WITHOUT_OWN)))
    return tuple(dict.fromkeys(found))


class View(NamedTuple):
    """One reading of a text; ``plain``: nothing was taken off its letters.

    ``breaks`` is None of a text in words; of spelled letters, in runs with blanks between them, it
    holds where a wider gap stood.
    """

    level: Match
    text: str
    plain: bool = False
    breaks: frozenset[int] | None = None


def views(text: str, *, loose: bool) -> Iterator[View]:
    """Every different view of a text, the plain one first, with the level from which it counts."""
    seen = {plain := words(text)}
    yield View("normalised", plain, plain=True)
    shown = [text.lower() if text.isascii() else bare(text)]
    if not text.isascii():
        yield from _new("normalised", words(shown[0]), seen)
        latin = unmasked(shown[0])
        if latin != shown[0]:
            yield from _new("normalised", words(latin), seen)
            shown.append(latin)
    if not loose:
        return
    for each in dict.fromkeys(one.translate(_WITHOUT_OWN) for one in shown):
        yield from _loosely(each, seen)
        if _has_readings(each):
            for table in _READINGS:
                yield from _loosely(_read(each, table), seen)


def _loosely(text: str, seen: set[str]) -> Iterator[View]:
    yield from _new("loose", words(text), seen)
    squeezed = by_slices(lambda part: part.translate(_SQUEEZED), text)
    yield from _new("loose", _spaced(squeezed), seen)
    spelled = _Spelled(squeezed)
    if spelled.runs:
        yield from _new("loose", _spaced(spelled.in_place), seen)
        for read in dict.fromkeys((spelled.runs, *(_read(spelled.runs, t) for t in _READINGS))):
            yield View("loose", read, breaks=spelled.breaks)


def _new(level: Match, view: str, seen: set[str]) -> Iterator[View]:
    if view not in seen:
        seen.add(view)
        yield View(level, view)


class _Spelled:
    """Letters that stand alone, joined: ``in_place`` in their text, cut where a gap is wider than
    the others, and as ``runs`` with a blank between two, where ``breaks`` has the wide gaps.
    """

    def __init__(self, squeezed: str) -> None:
        placed: list[str] = []
        runs: list[str] = []
        breaks: set[int] = set()
        at = end = 0
        for match in _LONE.finditer(squeezed):
            between = squeezed[end : match.start()]
            if runs and not between.isspace():  # else it is one run, too long for one match
                runs.append(" ")
                at += 1
            letters = _GAP.sub("", match[0])
            gaps = [len(gap) for gap in _GAP.findall(match[0])]
            narrow = min(gaps)
            wide = [place for place, gap in enumerate(gaps, start=1) if gap > narrow]
            breaks.update(at + place for place in wide)
            words = [letters[start:stop] for start, stop in pairwise([0, *wide, len(letters)])]
            placed += [between, " ".join(words) if len(letters) > 2 else match[0]]
            runs.append(letters)
            at += len(letters)
            end = match.end()
        self.in_place = "".join([*placed, squeezed[end:]])
        self.runs = "".join(runs)
        self.breaks = frozenset(breaks)


def _has_readings(text: str) -> bool:
    """Whether a sign stands before a letter, or one that ends no sentence behind one."""
    for sign in _SIGNS:
        at = text.find(sign)
        while at >= 0:
            behind = sign not in "!|+€" and at > 0 and text[at - 1].isalpha()
            if behind or text[at + 1 : at + 2].isalpha():
                return True
            at = text.find(sign, at + 1)
    return False


def _read(text: str, table: dict[int, int]) -> str:
    """Digits and signs as letters, in words that have letters besides."""

    def token(match: re.Match[str]) -> str:
        found = match[0]
        if not _LETTER.search(found):
            return found
        word = found.rstrip(_ENDS)  # "now!" is no "nowi"
        return by_slices(lambda part: part.translate(table), word) + found[len(word) :]

    return _TOKEN.sub(token, text)
