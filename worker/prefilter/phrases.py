"""Phrases found in a text, all at once: one pass of Aho and Corasick's automaton over each view.

The automaton is ``ahocorasick_rs``; its cost does not depend on how many phrases there are. A hit
counts where the phrase stands as words of its own, outside of every allowed phrase. Where words
begin and end is part of what is searched for, so that a text of a million letters in one word meets
a list of such letters once, and not at every place.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from ahocorasick_rs import AhoCorasick, MatchKind

from worker.prefilter.normalise import LEVELS, Match, View, forms, views, words, written
from worker.text.characters import MARKS, SPACING_MARKS, UNSPACED, by_slices
from worker.text.fold import fold

CHUNK = 16_384
"""Characters looked through at once; bounds the memory of the matches in a hostile text."""
_NESTED = 16
"""Lengths of phrases up to which a whole chunk is searched: at each place at most one phrase of a
length ends, so more lengths may mean more matches."""

_ALLOW = -1
_EDGE = "\ufdd0"
"""Stands where a word begins or ends in a text that is compared exactly: no character at all."""
_WORD = rf"\w{MARKS}{SPACING_MARKS}"
_EDGES = re.compile(
    f"(?<=[{_WORD}])(?<![{UNSPACED}])(?:(?![{_WORD}])|(?=[{UNSPACED}]))"
    f"|(?:(?<![{_WORD}])|(?<=[{UNSPACED}]))(?=[{_WORD}])(?![{UNSPACED}])"
)
_ASCII_EDGES = re.compile(r"\b", re.ASCII)
_NO_BLANKS = re.compile(f"[{UNSPACED}]")

SPELLED_ANYWHERE = 7
"""Letters of a phrase from which it counts inside a longer run of single letters: nobody spells out
a word that long by chance; of a shorter one others may be part (therapist)."""
_MOST_BESIDE = 3
_SHORT_WORDS = frozenset("airuy0123456789")
"""Letters that are written for words, or are words: what may stand beside a short phrase."""


class PhraseList(msgspec.Struct, frozen=True, kw_only=True):
    """Phrases of one list. A ``*`` at the end stands for any end of the word."""

    phrases: Sequence[str]
    match: Match = "normalised"


class _Entry(NamedTuple):
    """Which list (or ``_ALLOW``). ``stripped``: a form that is not what the phrase itself says."""

    list: int
    stripped: bool = False


class _Found(NamedTuple):
    list: int
    start: int
    end: int
    own: bool


def too_broad(phrase: str, match: Match) -> bool:
    """Whether so little of a phrase is left that it would be found almost everywhere."""
    phrase = phrase.removesuffix("*")
    if match == "exact":
        return not written(phrase).strip()
    text = words(phrase)
    return not text or (len(text) == 1 and text.isascii())


class _Automaton:
    """Patterns of one way of writing, with what each of them stands for."""

    def __init__(self, patterns: dict[str, list[_Entry]]) -> None:
        self._entries = list(patterns.values())
        lengths = set(map(len, patterns))
        self._longest = max(lengths, default=0)
        self._chunk = max(1, CHUNK * _NESTED // max(_NESTED, len(lengths)))
        self._automaton = AhoCorasick(patterns, MatchKind.Standard)

    def found(self, text: str, wanted: Collection[int], *, plain: bool) -> Iterator[list[_Found]]:
        """What stands in each part of the text, of lists that are ``wanted``.

        Parts overlap by the longest phrase on both sides, so that a phrase of the list, and an
        allowed one around it, are seen whole; ``own`` marks what begins in the part itself. In a
        ``plain`` text only what an allowed phrase says itself is allowed.
        """
        for begin in range(0, len(text), self._chunk):
            left = max(begin - self._longest, 0)
            part = text[left : begin + self._chunk + self._longest]
            matches = self._automaton.find_matches_as_indexes(part, overlapping=True)
            if matches:
                own = range(begin - left, begin - left + self._chunk)
                yield [
                    _Found(entry.list, left + start, left + end, start in own)
                    for index, start, end in matches
                    for entry in self._entries[index]
                    if entry.list in wanted and not (plain and entry.stripped)
                ]


class PhraseMatcher:
    """Which of several lists have a phrase in a text; ``allow`` exempts what lies inside of it."""

    def __init__(self, lists: Sequence[PhraseList], allow: Iterable[str] = ()) -> None:
        allow = tuple(allow)
        self._levels = [LEVELS.index(each.match) for each in lists]
        self._loose = any(each.match == "loose" for each in lists)
        self._exact = _automaton(_exact_patterns(lists, allow))
        self._folded = _automaton(_patterns(lists, allow))
        self._spelled = _automaton(_spelled_patterns(lists, allow))

    def search(self, text: str, folded: str | None = None) -> list[int]:
        """Indexes of the lists that have a hit, ascending; ``folded`` is the text as it is read."""
        hits: set[int] = set()
        if self._exact is not None:
            marked = by_slices(_marked, written(text))
            self._search(self._exact, View("exact", marked), marked, hits)
        if self._folded is not None:
            read = fold(text).text if folded is None else folded
            for view in views(read, loose=self._loose):
                if view.breaks is None:
                    self._search(self._folded, view, f" {view.text} ", hits)
                elif self._spelled is not None:
                    self._search(self._spelled, view, view.text, hits)
        return sorted(hits)

    def _search(self, automaton: _Automaton, view: View, text: str, hits: set[int]) -> None:
        """Look for every list that counts this level and has no hit yet; one hit each is enough."""
        level = LEVELS.index(view.level)
        wanted = {i for i, own in enumerate(self._levels) if (own >= level if level else not own)}
        wanted -= hits
        if not wanted:
            return
        wanted.add(_ALLOW)
        spelled = None if view.breaks is None else _Spelled(text, view.breaks)
        for found in automaton.found(text, wanted, plain=view.plain):
            exempt = _Spans(sorted((f.start, f.end) for f in found if f.list == _ALLOW))
            for index, start, end, own in found:
                if not own or index == _ALLOW or index in hits or exempt.around(start, end):
                    continue
                if spelled is None or spelled.stands(start, end):
                    hits.add(index)
            wanted -= hits
            if wanted == {_ALLOW}:
                return


_Patterns = dict[str, list[_Entry]]


def _automaton(patterns: _Patterns) -> _Automaton | None:
    listed = any(each.list != _ALLOW for entries in patterns.values() for each in entries)
    return _Automaton(patterns) if listed else None


def _exact_patterns(lists: Sequence[PhraseList], allow: Sequence[str]) -> _Patterns:
    patterns: _Patterns = {}
    listed = [(i, p) for i, each in enumerate(lists) if each.match == "exact" for p in each.phrases]
    for index, phrase in (*listed, *((_ALLOW, each) for each in allow)):
        marked = _marked(written(phrase.removesuffix("*")))
        if phrase.endswith("*"):
            marked = marked.removesuffix(_EDGE)
        if marked:
            patterns.setdefault(marked, []).append(_Entry(index))
    return patterns


def _patterns(lists: Sequence[PhraseList], allow: Sequence[str]) -> _Patterns:
    """Phrases with a blank at the ends where a word of theirs begins and ends."""
    patterns: _Patterns = {}
    for index, match, phrase in _listed(lists, allow):
        openly = phrase.endswith("*")
        for number, form in enumerate(forms(phrase.removesuffix("*"), match)):
            if form:
                before = " " if _writes_blanks(form[0]) else ""
                behind = " " if _writes_blanks(form[-1]) and not openly else ""
                stripped = number > 0 and index == _ALLOW
                patterns.setdefault(before + form + behind, []).append(_Entry(index, stripped))
    return patterns


def _spelled_patterns(lists: Sequence[PhraseList], allow: Sequence[str]) -> _Patterns:
    """Phrases of loose lists as letters without blanks."""
    patterns: _Patterns = {}
    for index, match, phrase in _listed(lists, allow):
        if match == "loose":
            for form in forms(phrase.removesuffix("*"), match):
                letters = form.replace(" ", "")
                if len(letters) > 1:
                    patterns.setdefault(letters, []).append(_Entry(index))
    return patterns


def _listed(lists: Sequence[PhraseList], allow: Sequence[str]) -> Iterator[tuple[int, Match, str]]:
    for index, each in enumerate(lists):
        if each.match != "exact":
            yield from ((index, each.match, phrase) for phrase in each.phrases)
    yield from ((_ALLOW, "loose", phrase) for phrase in allow)


def _writes_blanks(character: str) -> bool:
    return not _NO_BLANKS.match(character) and unicodedata.category(character) != "So"


def _marked(text: str) -> str:
    return (_ASCII_EDGES if text.isascii() else _EDGES).sub(_EDGE, text)


class _Spans:
    """Stretches of a text, sorted by start."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._starts = [start for start, _ in spans]
        self._ends: list[int] = []
        for _, end in spans:
            self._ends.append(max(end, self._ends[-1]) if self._ends else end)

    def around(self, start: int, end: int) -> bool:
        """Whether one of them holds the whole of ``start`` to ``end``."""
        # Of the spans that begin no later, the one that reaches farthest.
        count = bisect_right(self._starts, start)
        return count > 0 and self._ends[count - 1] >= end


class _Spelled:
    """Runs of single letters, and whether a phrase is what one of them spells."""

    def __init__(self, text: str, breaks: frozenset[int]) -> None:
        self._text, self._breaks = text, breaks

    def stands(self, start: int, end: int) -> bool:
        """Whether the phrase is the run, less short words beside it, or too long for a chance."""
        if end - start >= SPELLED_ANYWHERE:
            return True
        phrase = self._text[start:end]
        if len(phrase) == 2 and _SHORT_WORDS.issuperset(phrase):
            return False
        left = self._beside(range(start - 1, start - _MOST_BESIDE - 2, -1), start, phrase[0])
        return left and self._beside(range(end, end + _MOST_BESIDE + 1), end, phrase[-1])

    def _beside(self, places: range, border: int, edge: str) -> bool:
        """Whether a word may begin or end at the border of a phrase."""
        if border in self._breaks or _NO_BLANKS.match(edge):
            return True
        for count, place in enumerate(places):
            if not 0 <= place < len(self._text) or self._text[place] == " ":
                return True
            if count == _MOST_BESIDE or self._text[place] not in _SHORT_WORDS:
                return False
        return False
