"""Phrases found in a text, all at once: one pass of Aho and Corasick's automaton over each view.

The automaton is ``ahocorasick_rs``; its cost does not depend on how many phrases there are. A hit
counts where the phrase stands as words of its own, outside of every allowed phrase.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from ahocorasick_rs import AhoCorasick, MatchKind

from worker.prefilter.normalise import LEVELS, Match, views, words, written

CHUNK = 16_384
"""Characters looked through at once; bounds the memory of the matches in a hostile text."""

# Scripts that write no blank between words, and Hangul, whose particles are joined to the word.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u30ff\u3130-\u318f"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)
_ALLOW = -1

_Entry = tuple[int, bool]
"""Which list (or ``_ALLOW``), and whether words may go on behind the phrase."""


class PhraseList(msgspec.Struct, frozen=True, kw_only=True):
    """Phrases of one list. A ``*`` at the end stands for any end of the word."""

    phrases: Sequence[str]
    match: Match = "normalised"


def folded(phrase: str, match: Match) -> tuple[str, bool]:
    """The phrase as it is searched for, and whether its last word may go on."""
    openly = phrase.endswith("*")
    phrase = phrase[:-1] if openly else phrase
    return (written(phrase) if match == "exact" else words(phrase)), openly


def too_broad(phrase: str, match: Match) -> bool:
    """Whether so little of a phrase is left that it would be found almost everywhere."""
    text = folded(phrase, match)[0].strip()
    if match == "exact":
        return not text
    return not text or (len(text) == 1 and text.isascii())


class _Found(NamedTuple):
    list: int
    start: int
    end: int
    own: bool


class _Automaton:
    """Patterns of one way of writing, with what each of them stands for."""

    def __init__(self, patterns: dict[str, list[_Entry]]) -> None:
        self._entries = list(patterns.values())
        self._longest = max(map(len, patterns), default=0)
        self._automaton = AhoCorasick(patterns, MatchKind.Standard)

    def found(self, text: str, wanted: Collection[int]) -> Iterator[list[_Found]]:
        """What stands in each part of the text as words of its own, of lists that are ``wanted``.

        Parts overlap by the longest phrase on both sides, so that a phrase of the list, and an
        allowed one around it, are seen whole; ``own`` marks what begins in the part itself.
        """
        margin = self._longest + 1
        for begin in range(0, len(text), CHUNK):
            left, right = max(begin - margin, 0), begin + CHUNK + margin
            part = text if left == 0 and right >= len(text) else text[left:right]
            matches = self._automaton.find_matches_as_indexes(part, overlapping=True)
            if not matches:
                continue
            # What touches a cut edge cannot be told from the middle of a word.
            first = 0 if left == 0 else 1
            last = len(part) if right >= len(text) else len(part) - 1
            yield [
                _Found(entry[0], start, end, begin <= left + start < begin + CHUNK)
                for index, start, end in matches
                if start >= first and end <= last
                for entry in self._entries[index]
                if entry[0] in wanted and _stands_alone(part, start, end, openly=entry[1])
            ]


class PhraseMatcher:
    """Which of several lists have a phrase in a text; ``allow`` exempts what lies inside of it."""

    def __init__(self, lists: Sequence[PhraseList], allow: Iterable[str] = ()) -> None:
        allow = tuple(allow)
        self._levels = [LEVELS.index(each.match) for each in lists]
        self._loose = any(each.match == "loose" for each in lists)
        self._exact = _automaton(lists, allow, exact=True)
        self._folded = _automaton(lists, allow, exact=False)

    def search(self, text: str) -> list[int]:
        """Indexes of the lists that have a hit, ascending."""
        hits: set[int] = set()
        if self._exact is not None:
            self._search(self._exact, written(text), LEVELS.index("exact"), hits)
        if self._folded is not None:
            for level, view in views(text, loose=self._loose):
                self._search(self._folded, view, LEVELS.index(level), hits)
        return sorted(hits)

    def _search(self, automaton: _Automaton, view: str, level: int, hits: set[int]) -> None:
        """Look for every list that counts this level and has no hit yet; one hit each is enough."""
        wanted = {i for i, own in enumerate(self._levels) if (own >= level if level else not own)}
        wanted -= hits
        wanted.add(_ALLOW)
        for found in automaton.found(view, wanted):
            exempt = _Spans(sorted((f.start, f.end) for f in found if f.list == _ALLOW))
            for index, start, end, own in found:
                if own and index != _ALLOW and index not in hits and not exempt.around(start, end):
                    hits.add(index)
            wanted -= hits
            if wanted == {_ALLOW}:
                return


def _automaton(
    lists: Sequence[PhraseList], allow: Sequence[str], *, exact: bool
) -> _Automaton | None:
    patterns: dict[str, list[_Entry]] = {}
    for index, each in enumerate(lists):
        if (each.match == "exact") == exact:
            for phrase in each.phrases:
                text, openly = folded(phrase, each.match)
                patterns.setdefault(text, []).append((index, openly))
    if not patterns:
        return None
    for phrase in allow:
        text, openly = folded(phrase, "exact" if exact else "normalised")
        if text:
            patterns.setdefault(text, []).append((_ALLOW, openly))
    return _Automaton(patterns)


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


def _stands_alone(text: str, start: int, end: int, *, openly: bool) -> bool:
    if start > 0 and _joined(text[start - 1], text[start]):
        return False
    return openly or end >= len(text) or not _joined(text[end - 1], text[end])


def _joined(left: str, right: str) -> bool:
    """Whether two neighbours are of one word, in a script that writes blanks between words."""
    return _of_word(left) and _of_word(right)


def _of_word(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character == "_"
    if _UNSPACED.match(character):
        return False
    return character.isalnum() or bool(_MARK.match(character))


_MARK = re.compile(r"[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u065f\u0670\u0900-\u0dff]")
