"""One text as the several texts it may be meant as: what a reader sees behind a disguise.

    level       views of a text
    exact       the text, NFC
    normalised  words: compatibility forms, case, invisible characters, punctuation folded
                unmasked words: without diacritics, lookalikes as the Latin letters they imitate
    loose       squeezed words: punctuation taken out, spaced letters joined
                the same with digits and signs read as letters (1 as i and as l)

Phrases are folded once, as ``words``; every further view is of the text, never of the phrase.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Literal

from worker.text.lookalikes import unmasked

Match = Literal["exact", "normalised", "loose"]
LEVELS: tuple[Match, ...] = ("exact", "normalised", "loose")

# What nobody sees: format characters, surrogates (categories Cf, Cs), and what else Unicode calls
# Default_Ignorable_Code_Point.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]+"
)
_SPACE = 32


class _Words(dict[int, int | None]):
    """A table for ``str.translate``: letters, marks, numbers and emoji stay, white space is blank,
    and punctuation becomes what is given.
    """

    def __init__(self, punctuation: int | None) -> None:
        self._punctuation = punctuation

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        category = unicodedata.category(character)
        kept = category[0] in "LMN" or category == "So"
        blank = _SPACE if character.isspace() else self._punctuation
        self[code] = code if kept else blank
        return self[code]


_WORDS, _SQUEEZED = _Words(_SPACE), _Words(None)
_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)
_SPACED = re.compile(r"(?<!\w)(?:\w ){2,}\w(?!\w)")
_TOKEN = re.compile(r"\S+")
_ENDS = "!|+€.,;:?)]}\"'"
_SIGNS = "013457@$!|+€"
_LETTER = re.compile(r"[^\W\d_]")
_READINGS = tuple(str.maketrans("03457@$+€1!|", f"oeastaste{one * 3}") for one in "il")


def words(text: str) -> str:
    """The text folded: words in lower case with single blanks between them."""
    if text.isascii():
        return " ".join(text.lower().translate(_WORDS).split())
    folded = _compatible(_compatible(visible(text)).casefold())
    return " ".join(folded.translate(_WORDS).split())


def visible(text: str) -> str:
    """The text without characters that nobody sees."""
    return _INVISIBLE.sub("", text) if _INVISIBLE.search(text) else text


def _compatible(text: str) -> str:
    # Asking first costs a fraction of the work, and most texts are in this form already.
    if unicodedata.is_normalized("NFKC", text):
        return text
    return unicodedata.normalize("NFKC", text)


def written(text: str) -> str:
    """The text as it is compared exactly: NFC, nothing else."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def views(text: str, *, loose: bool) -> Iterator[tuple[Match, str]]:
    """Every different view of a text with the level from which it counts, the plain one first."""
    seen = {plain := words(text)}
    yield "normalised", plain
    shown = text.lower() if text.isascii() else _shown(text)
    if not text.isascii():
        yield from _new("normalised", words(shown), seen)
    if not loose:
        return
    yield from _squeezed(shown, seen)
    if _has_readings(shown):
        for table in _READINGS:
            reading = _read(shown, table)
            yield from _new("loose", words(reading), seen)
            yield from _squeezed(reading, seen)


def _squeezed(text: str, seen: set[str]) -> Iterator[tuple[Match, str]]:
    tokens = text.translate(_SQUEEZED).split()
    joined = " ".join(tokens)
    if len([token for token in tokens if len(token) == 1]) > 2:
        joined = _SPACED.sub(_without_blanks, joined)
    return _new("loose", joined, seen)


def _new(level: Match, view: str, seen: set[str]) -> Iterator[tuple[Match, str]]:
    if view not in seen:
        seen.add(view)
        yield level, view


def _shown(text: str) -> str:
    """Lower case, without generic diacritics and lookalikes; punctuation is still there."""
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", visible(text)))
    return _compatible(unmasked(unicodedata.normalize("NFC", bare)).casefold())


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
        return word.translate(table) + found[len(word) :]

    return _TOKEN.sub(token, text)


def _without_blanks(match: re.Match[str]) -> str:
    return match[0].replace(" ", "")
