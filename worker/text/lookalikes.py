"""Letters that look like Latin ones, and when they are taken for such.

A hand-picked part of Unicode's confusables (UTS #39, confusables.txt): letters a reader takes for
the Latin letter at a glance. Why no library: docs/decisions/prefilter.md.
"""

from __future__ import annotations

import re
from typing import Final

from worker.text.characters import by_slices, slices

_FOREIGN = {
    # Cyrillic
    **dict(zip("асԁеһіјӏорԛѕԝхуѵкмтвнгьп", "acdehijlopqswxyvkmtbhrbn", strict=True)),
    **dict(zip("АВСЕНІЈКМОРЅТХУҮԌԚԜӀ", "ABCEHIJKMOPSTXYYGQWI", strict=True)),
    # Greek
    **dict(zip("αβγεηικνορτυχωϳ", "abyenikvoptuxwj", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧͿ", "ABEZHIKMNOPTYXJ", strict=True)),
    # Armenian
    **dict(zip("օսոհցզքղ", "ounhgqpn", strict=True)),
    # Cherokee
    **dict(zip("ᎪᏴᏟᎠᎬᏀᎻᎥᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ", "ABCDEGHIJKLMPRSTVWZ", strict=True)),
}
_LATIN = {
    # Variants that no Unicode normal form folds.
    **dict(zip("ɑƀđɡħıɨȷłøŧɩʋ", "abdghiijlotiv", strict=True)),
    **dict(zip("ØĐŁĦŦɃ", "ODLHTB", strict=True)),
    **dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz", strict=True)),
    # Letters in negative circles and squares, and the letters of flags.
    **{chr(first + n): chr(97 + n) for first in (0x1F150, 0x1F170, 0x1F1E6) for n in range(26)},
}
_LATIN_TABLE, _FOREIGN_TABLE = str.maketrans(_LATIN), str.maketrans(_FOREIGN)
# Ranges beyond the basic plane: single characters there would make the search slow.
_FLAGS_AND_DISCS = "\U0001f150-\U0001f169\U0001f170-\U0001f189\U0001f1e6-\U0001f1ff"
_ANY_LATIN = re.compile(
    f"[{''.join(each for each in _LATIN if ord(each) < 65536)}{_FLAGS_AND_DISCS}]"
)
_ANY_FOREIGN = re.compile(f"[{''.join(_FOREIGN)}]")
_ONLY_FOREIGN = re.compile(f"[{''.join(_FOREIGN)}]+")
SCRIPTS: Final = "\u0370-\u03ff\u0400-\u052f\u0530-\u058f\u13a0-\u13ff"
"""Greek, Cyrillic, Armenian and Cherokee: scripts with letters that look like Latin ones."""
_NATIVE = re.compile(f"(?![{''.join(_FOREIGN)}])[{SCRIPTS}]")
_BASIC = re.compile("[A-Za-z]")
_WORD = re.compile(r"\w+")
_MIXED = re.compile(f"[A-Za-z][{SCRIPTS}]|[{SCRIPTS}][A-Za-z]")
_WHOLE = re.compile("[A-Za-z0-9_]{3,}")


def imitated(text: str) -> str:
    """The text with words that mix Latin letters and lookalikes of them in Latin letters alone.

    A word with a letter that looks like no Latin one stays, and so do words of two letters: Δx, μm.
    """
    if not _MIXED.search(text):
        return text

    def word(match: re.Match[str]) -> str:
        found = match[0]
        latin = found.translate(_FOREIGN_TABLE)
        mixed = latin != found and _BASIC.search(found) and _WHOLE.fullmatch(latin)
        return latin if mixed else found

    return _WORD.sub(word, text)


def unmasked(text: str) -> str:
    """The text with lookalikes of Latin letters replaced; case is kept.

    A letter of another script is replaced in a word that mixes it with Latin letters, and in a word
    of nothing but lookalikes where the text around is rather Latin: Russian stays Russian.
    """
    if _ANY_LATIN.search(text):
        text = by_slices(lambda part: part.translate(_LATIN_TABLE), text)
    if not _ANY_FOREIGN.search(text):
        return text
    latin = _count(_BASIC, text) >= _count(_NATIVE, text)

    def word(match: re.Match[str]) -> str:
        found = match[0]
        if _BASIC.search(found) or (latin and _ONLY_FOREIGN.fullmatch(found)):
            return by_slices(lambda part: part.translate(_FOREIGN_TABLE), found)
        return found

    return _WORD.sub(word, text)


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(pattern.subn("", part)[1] for part in slices(text))
