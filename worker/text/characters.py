"""Classes of characters that more than one reader of text needs, each with its source.

Ranges are those of Unicode 14, which Python 3.11 has; code points that a newer Unicode assigns
belong to the same blocks.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Final

SLICE: Final = 1 << 14
"""Characters handed to one call of C code: it holds the interpreter, and must soon let go of it."""


def ranges(codes: Iterable[int]) -> str:
    """The code points, ascending, as the inside of a character class of ``re``; no ASCII.

    Classes beyond the basic plane must be few ranges: ``re`` tries them one by one.
    """
    pieces: list[str] = []
    first = last = -2
    for code in [*codes, sys.maxunicode + 2]:
        if code == last + 1:
            last = code
            continue
        if first >= 0:
            pieces.append(chr(first) if first == last else f"{chr(first)}-{chr(last)}")
        first = last = code
    return "".join(pieces)


def members(inside: str) -> frozenset[str]:
    """The characters of a class, given as the inside of one."""
    found: set[str] = set()
    for match in re.finditer("(.)-(.)|(.)", inside, re.DOTALL):
        first, last = (match[1], match[2]) if match[1] else (match[3], match[3])
        found.update(map(chr, range(ord(first), ord(last) + 1)))
    return frozenset(found)


def characters(text: str) -> frozenset[str]:
    """Every character of the text once: asked once, instead of once for each class."""
    found: set[str] = set()
    for at in range(0, len(text), SLICE):
        found.update(text[at : at + SLICE])
    return frozenset(found)


_BASIC_PLANE = range(0x300, 0x10000)


def _is_mark(character: str) -> bool:
    """Drawn onto the character before it, or put in order by normal forms."""
    return unicodedata.category(character) in ("Mn", "Me") or unicodedata.combining(character) > 0


MARKS: Final = ranges(code for code in _BASIC_PLANE if _is_mark(chr(code)))
"""Nonspacing and enclosing marks of the basic plane, and the few others that combine."""

RARE_MARKS: Final = ranges(code for code in range(0x10000, 0x20000) if _is_mark(chr(code)))
"""Those of historic scripts, of music and the like."""

SPACING_MARKS: Final = ranges(
    code for code in _BASIC_PLANE if unicodedata.category(chr(code)) == "Mc"
)
"""Vowel signs and the like that stand beside their letter, and are of its word."""

GENERIC_MARKS: Final = (
    "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
)
"""Marks that belong to no script of their own."""

MARK_RUN: Final = 30
"""Marks in a row that any language may need: Unicode's Stream-Safe Text Format (UAX #15)."""

NO_WIDTH: Final = (
    "\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f"
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0080-\U000e0fff"
)
"""What nobody sees, tags aside: Unicode's Default_Ignorable_Code_Point, other format and control
characters that are no white space, and halves of surrogate pairs."""

TAGS: Final = "\U000e0000-\U000e007f"
"""ASCII that nobody sees; in the flags of regions it is part of what is seen."""

_MANY_MARKS = re.compile(f"([{MARKS}]{{{MARK_RUN}}})[{MARKS}]+")
_MANY_RARE = re.compile(f"([{MARKS}{RARE_MARKS}]{{{MARK_RUN}}})[{MARKS}{RARE_MARKS}]+")
_RARE = members(RARE_MARKS)


def bounded(text: str) -> str:
    """The text with at most ``MARK_RUN`` marks in a row: normal forms cost more than linear time in
    the length of a run.
    """
    rare = not _RARE.isdisjoint(characters(text))
    return (_MANY_RARE if rare else _MANY_MARKS).sub(r"\1", text)


UNSPACED: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u30ff\u3130-\u318f"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
"""Scripts that write no blank between words, and Hangul, whose particles are joined to the word."""


def slices(text: str, size: int = SLICE) -> Iterator[str]:
    """The text in pieces of at most ``size`` characters, cut at white space where there is any."""
    start = 0
    while len(text) - start > size:
        cut = max(text.rfind(" ", start, start + size), text.rfind("\n", start, start + size)) + 1
        end = cut if cut > start else start + size
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def by_slices(change: Callable[[str], str], text: str) -> str:
    """What ``change`` makes of the text, in calls that are short each."""
    return change(text) if len(text) <= SLICE else "".join(map(change, slices(text)))
