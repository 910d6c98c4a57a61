"""Text folded to what a person reads, by a table of classes; nothing that is seen changes.

    class         what it is                                        what becomes of it
    hidden        tag characters: a text that nobody sees           taken out, spelled at the end
    invisible     characters without width                          taken out, unless they shape
    full_width    wide forms of ASCII                               ASCII
    styled        mathematical, enclosed, small capital letters     the letters
    ligature      Latin ligatures                                   their letters
    presentation  Arabic and Hebrew forms of one letter             the letter
    bidi          overrides and isolates that move letters          the letters as they are read
    marks         more marks on a letter than any language has      taken off
    lookalike     letters of another script among Latin ones        the Latin letters

Not NFKC, which changes what is seen: it splits Thai SARA AM, makes leading jamo of Korean ㅋㅋ and
a 2 of ². Kept are superscripts, fractions, CJK forms, joiners where they shape (Persian, Indic,
emoji), variation selectors behind symbols, and flags. ``VERSION`` changes with what is folded.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple

from worker.text import bidi
from worker.text.characters import (
    GENERIC_MARKS,
    MARKS,
    NO_WIDTH,
    RARE_MARKS,
    TAGS,
    bounded,
    by_slices,
    characters,
    members,
    ranges,
)
from worker.text.lookalikes import SCRIPTS, imitated

VERSION: Final = 1
"""Part of ``template_sha256``: what stands in front of the model depends on it."""


class Folded(NamedTuple):
    """A text as it is read, and the classes by which a word of it changed, sorted."""

    text: str
    classes: tuple[str, ...] = ()


def fold(text: str) -> Folded:
    """Fold a text; linear in its length, and idempotent."""
    if text.isascii() and not _ASCII_CONTROL.search(text):
        return Folded(text)
    found: set[str] = set()
    seen = characters(text)
    for name, suspects, change in _STEPS:
        if not suspects.isdisjoint(seen):
            changed = change(text)
            if changed != text:
                if name != "invisible" or _changes_a_word(text):
                    found.add(name)
                text, seen = changed, characters(changed)
    return Folded(text, tuple(sorted(found)))


# Tags. The flag of a region is a black flag, tags, and the end of tags (UTS #51).
_TAGS = re.compile(
    f"(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{{3,6}}\U000e007f)|[{TAGS}]+"
)
_HIDDEN_RUN = 4
"""Tag characters in a row from which they are a text; fewer are noise between letters."""


def _without_tags(text: str) -> str:
    hidden: list[str] = []

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return match[1]
        spelled = "".join(chr(ord(each) - 0xE0000) for each in match[0])
        spelled = " ".join("".join(each if " " <= each <= "~" else " " for each in spelled).split())
        if len(spelled) >= _HIDDEN_RUN:
            hidden.append(spelled)
        return ""

    text = _TAGS.sub(one, text)
    return "\n".join([text, *hidden]) if hidden else text


# Invisible characters.
_RUN = re.compile(f"[{NO_WIDTH}]+")
_ASCII_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f]")
_CONTROL = re.compile(f"[{bidi.CONTROLS}]")
_ORDER = re.compile(f"[\u200e\u200f\u061c{bidi.CONTROLS}]+")
_ORDER_MARKS = re.compile("[\u200e\u200f\u061c]+")
_CONTROLS_INSIDE = re.compile(rf"(?<=\w)[{bidi.CONTROLS}]+(?=\w)")
_JOINED = re.compile(
    "[\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f\u08a0-\u08c7\u1800-\u18aa]"
)
"""Letters that a non-joiner separates visibly: Arabic script and Mongolian."""
_TAKES_SELECTOR = re.compile(
    "[\u1000-\u109f\u1820-\u18aa\u3400-\u9fff\ua840-\ua877\uf900-\ufaff\U00020000-\U0003ffff]"
)


def _visible(text: str) -> str:
    text = _RUN.sub(lambda match: _kept(match[0], *_beside(match)), text)
    return text if bidi.has_right_to_left(text) else _ORDER_MARKS.sub("", text)


def _changes_a_word(text: str) -> bool:
    """Whether anything is taken out between two letters; beside a word nobody misses it."""
    return any(
        _of_word(before) and _of_word(behind) and _kept(match[0], before, behind) != match[0]
        for match in _RUN.finditer(text)
        for before, behind in [_beside(match)]
    )


def _beside(match: re.Match[str]) -> tuple[str, str]:
    start, end = match.span()
    return match.string[max(start - 1, 0) : start], match.string[end : end + 1]


def _kept(run: str, before: str, behind: str) -> str:
    """What of a run of characters without width does something between its neighbours."""
    first = run[0]
    if first == "\ufeff" and not before:
        return first  # a byte order mark, in front of everything
    if _is_selector(first):
        rest = run[1:].lstrip(_SELECTORS)
        kept = first if _selects(first, before, behind) else ""
        return kept + (_kept(rest, first if kept else before, behind) if rest else "")
    if "\u180b" <= first <= "\u180f" and "\u1820" <= before <= "\u18aa":
        return first
    if _ORDER.fullmatch(run):
        inside = _of_word(before) and _of_word(behind)
        return _ORDER_MARKS.sub("", run) if inside else run
    joiner = next((each for each in run if each in "\u200c\u200d"), None)
    if joiner is not None and _joins(joiner, before, behind):
        return joiner
    return "".join(_CONTROL.findall(run))  # they are looked at when all letters are known


_SELECTORS = "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _selects(selector: str, before: str, behind: str) -> bool:
    if not before:
        return False
    if before in "0123456789#*":
        return behind == "\u20e3"  # a key cap
    if _TAKES_SELECTOR.match(before):
        return True
    return selector <= "\ufe0f" and not before.isalnum() and not before.isspace()


def _joins(joiner: str, before: str, behind: str) -> bool:
    """Whether a joiner changes the shape of what stands beside it."""
    if not before or not behind:
        return False
    if _JOINED.match(before) and (joiner == "\u200d" or _JOINED.match(behind)):
        return True
    if 9 in (unicodedata.combining(before), unicodedata.combining(behind)):  # virama
        return True
    return joiner == "\u200d" and _of_emoji(before) and _of_emoji(behind)


def _of_emoji(character: str) -> bool:
    return unicodedata.category(character) in ("So", "Sk") or character == "\ufe0f"


def _of_word(character: str) -> bool:
    return bool(character) and (character.isalnum() or unicodedata.category(character)[0] == "M")


def _in_order(text: str) -> str:
    return _CONTROLS_INSIDE.sub("", bidi.as_read(text))


# Styled letters.
def _letters(codes: Iterable[int]) -> dict[int, str]:
    """What single letter or digit each of the characters is a form of."""
    table = {}
    for code in codes:
        plain = unicodedata.normalize("NFKC", chr(code)).strip("()")
        if len(plain) == 1 and plain.isalnum() and plain != chr(code):
            table[code] = plain
    return table


_MATHEMATICAL = _letters(range(0x1D400, 0x1D800))
_SCRIPT = _letters(
    code
    for first, last in (
        *((0x2102, 0x2102), (0x210A, 0x2113), (0x2115, 0x2115), (0x2119, 0x211D)),
        *((0x2124, 0x2124), (0x2128, 0x2128), (0x212C, 0x212D), (0x212F, 0x2131)),
        *((0x2133, 0x2134), (0x2139, 0x2139), (0x2145, 0x2149)),
    )
    for code in range(first, last + 1)
)
_ENCLOSED = {
    **_letters(range(0x249C, 0x24EA)),
    **_letters(range(0x1F110, 0x1F12A)),
    **_letters(range(0x1F130, 0x1F14A)),
    **{first + n: chr(65 + n) for first in (0x1F150, 0x1F170) for n in range(26)},
}
_FLAG_LETTERS = {0x1F1E6 + n: chr(97 + n) for n in range(26)}
_SMALL_CAPITALS = "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ"
_SMALL = dict(zip(map(ord, _SMALL_CAPITALS), "abcdefghijklmnoprstuvwyz", strict=True))


def _class(table: Iterable[int]) -> str:
    return ranges(sorted(table))


def _among(table: Iterable[int]) -> frozenset[str]:
    return frozenset(map(chr, table))


_E = f"[{_class(_ENCLOSED)}]"
_ENCLOSED_WORD = re.compile(
    f"(?:{_E}\ufe0f?){{3,}}|{_E}(?: {_E}(?!\ufe0f)){{2,}}|(?<=[A-Za-z]){_E}\ufe0f?"
    f"|(?:{_E}\ufe0f?){{1,2}}(?=[A-Za-z])"
)
_R = f"[{_class(_FLAG_LETTERS)}]"
_LONE_FLAGS = re.compile(f"(?<!{_R}){_R}(?:[ {NO_WIDTH}]+{_R}(?!{_R}))+")
_OR_SCRIPT = f"[A-Za-z{_class(_SCRIPT)}]"
_SCRIPT_WORD = re.compile(f"{_OR_SCRIPT}{{2,}}")
_SMALL_WORD = re.compile(f"(?<![^\\W_])[A-Za-z{_SMALL_CAPITALS}]{{2,}}(?![^\\W_])")


def _lone_flag_letters(text: str) -> str:
    """Letters of flags that make no flag, for nothing stands directly beside them."""
    return _LONE_FLAGS.sub(lambda match: _RUN.sub("", match[0]).translate(_FLAG_LETTERS), text)


def _unstyled(text: str) -> str:
    text = text.translate(_MATHEMATICAL)
    text = _SCRIPT_WORD.sub(lambda match: match[0].translate(_SCRIPT), text)
    text = _ENCLOSED_WORD.sub(
        lambda match: match[0].replace("\ufe0f", "").translate(_ENCLOSED), text
    )

    def small(match: re.Match[str]) -> str:
        word = match[0]
        capitals = sum(ord(each) in _SMALL for each in word)
        most = capitals == 2 if len(word) == 2 else 2 * capitals >= len(word)
        return word.translate(_SMALL) if most else word  # else phonetics

    return _SMALL_WORD.sub(small, text)


# Full width.
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_WIDE_WORD = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]+")
_CJK = re.compile(
    "[\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"
)


def _narrow(text: str) -> str:
    """Wide words as ASCII; in Chinese and Japanese, numbers, signs and acronyms are written so."""
    if not _CJK.search(text):
        return text.translate(_WIDE)

    def word(match: re.Match[str]) -> str:
        return match[0] if _is_eastern(match[0], *_beside(match)) else match[0].translate(_WIDE)

    return _WIDE_WORD.sub(word, text)


def _is_eastern(word: str, before: str, behind: str) -> bool:
    letters = [each for each in word if not each.isdecimal()]
    if len(set(letters)) <= 1:  # a number; laughter
        return True
    beside = _CJK.match(before) or _CJK.match(behind)
    return bool(beside) and (len(letters) <= 2 or all(each.isupper() for each in letters))


# Ligatures and presentation forms.
_LIGATURES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}


def _forms() -> dict[int, str]:
    """Forms of single letters and short ligatures; ornaments and words in one sign stay."""
    table = {}
    for code in (*range(0xFB1D, 0xFB29), *range(0xFB2A, 0xFDC8), *range(0xFE70, 0xFEFD)):
        plain = unicodedata.normalize("NFKC", chr(code)).strip(" \u0640")
        if 0 < len(plain) <= 4 and plain != chr(code):
            table[code] = plain
    return table


_FORMS = _forms()

# Marks.
_OVERLAYS = (
    "\u0334-\u0338\u0488\u0489"
    "\u20d2\u20d3\u20d8-\u20da\u20dd\u20de\u20e0\u20e2\u20e5\u20e6\u20ea\u20eb"
)
_OVERLAY = re.compile(f"[{_OVERLAYS}]")
_DRAWN_ON = re.compile(
    f"([A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff\u1e00-\u1fff])([{GENERIC_MARKS}]+)"
)
_MOST_ON_A_LETTER = 2


def _bounded(text: str) -> str:
    def letter(match: re.Match[str]) -> str:
        marks = match[2]
        if len(marks) > _MOST_ON_A_LETTER:
            return match[1]
        return match[1] + _OVERLAY.sub("", marks)

    return _DRAWN_ON.sub(letter, bounded(text))


_STEPS: tuple[tuple[str, frozenset[str], Callable[[str], str]], ...] = (
    ("hidden", members(TAGS), _without_tags),
    ("styled", _among(_FLAG_LETTERS), partial(by_slices, _lone_flag_letters)),
    ("invisible", members(NO_WIDTH), partial(by_slices, _visible)),
    ("full_width", _among(_WIDE), partial(by_slices, _narrow)),
    (
        "styled",
        _among([*_MATHEMATICAL, *_SCRIPT, *_ENCLOSED, *_SMALL]),
        partial(by_slices, _unstyled),
    ),
    ("ligature", _among(_LIGATURES), partial(by_slices, lambda text: text.translate(_LIGATURES))),
    ("presentation", _among(_FORMS), partial(by_slices, lambda text: text.translate(_FORMS))),
    ("bidi", members(bidi.CONTROLS), _in_order),
    ("marks", members(MARKS + RARE_MARKS), partial(by_slices, _bounded)),
    ("lookalike", members(SCRIPTS), partial(by_slices, imitated)),
)
CLASSES: Final = tuple(sorted({name for name, _, _ in _STEPS}))
"""Every name that ``Folded.classes`` may hold."""
