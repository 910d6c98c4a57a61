"""Text behind bidirectional controls, in the order in which it is read.

An override (U+202E) shows Latin letters from right to left, and embeddings and isolates change
places of whole words: what a person reads is another text than what is stored. Source: Unicode's
bidirectional algorithm (UAX #9); explicit levels as there (X1 to X8, 125 at most), implicit ones by
its main rules (I1, I2, N1, N2; numbers as one kind), reordering (L2) in linear time.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Final, NamedTuple

from worker.text.characters import MARKS, slices

CONTROLS: Final = "\u202a-\u202e\u2066-\u2069"
"""Embeddings, overrides, isolates and their ends. Marks (U+200E, U+200F, U+061C) move no letter."""

_ANY = re.compile(f"[{CONTROLS}]")
_RIGHT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\u200f\U00010800-\U00010fff\U0001e800-\U0001efff"
_RUN = re.compile(
    rf"(?P<control>[{CONTROLS}])|(?P<number>[0-9\u0660-\u0669\u06f0-\u06f9]+)"
    rf"|(?P<right>(?:(?![\u0660-\u0669\u06f0-\u06f9])[{_RIGHT}])+)"
    rf"|(?P<left>(?:\u200e|(?![{_RIGHT}])[^\W\d_])(?:(?![{_RIGHT}])(?:[^\W\d_]|[{MARKS}]))*)"
    rf"|(?P<neutral>(?:(?![{_RIGHT}{CONTROLS}])[\W\d_](?<![0-9]))+)"
)
_RIGHT_LETTER = re.compile(f"(?!\u200f)[{_RIGHT}]")
_LINES = re.compile(r"[^\n\r\u2029]+|[\n\r\u2029]+")
_LETTER = re.compile(r"[^\W\d_]")
_DEEPEST = 125
_PART = 2_000
"""Characters of a paragraph that are put in order together."""
_PAIRS = str.maketrans("()[]{}<>«»‹›", ")(][}{><»«›‹")
_CLUSTER = re.compile(f".[{MARKS}]*", re.DOTALL)
_MARKED = re.compile(f"[{MARKS}]")


class _Piece(NamedTuple):
    text: str
    kind: str  # left, right, number or neutral
    level: int


def has_controls(text: str) -> bool:
    """Whether anything in the text may move letters."""
    return bool(_ANY.search(text))


def has_right_to_left(text: str) -> bool:
    """Whether a letter of the text is written from right to left."""
    return bool(_RIGHT_LETTER.search(text))


def as_read(text: str) -> str:
    """The text in reading order; as it is where its controls move nothing, with them in it."""
    if not has_controls(text):
        return text
    return "".join(_line(line) if has_controls(line) else line for line in _LINES.findall(text))


def _line(text: str) -> str:
    """One paragraph. A long one is read in parts, as viewers break it into lines; what was opened
    in a part holds in the next.
    """
    base, opened, read = _base(text), "", []
    for part in slices(text, _PART):
        read.append(_part(part, base, opened))
        opened = _still_open(opened + part)
    return "".join(read)


def _part(text: str, base: int, opened: str) -> str:
    plain = _ANY.sub("", text)
    shown, unmoved = _shown(_pieces(opened + text, base)), _shown(_pieces(plain, base))
    return text if "".join(shown) == "".join(unmoved) else _read(shown, base)


def _still_open(text: str) -> str:
    """The controls of a text that nothing ended yet."""
    stack: list[str] = []
    for control in _ANY.findall(text):
        if control == "\u2069":
            isolates = [place for place, each in enumerate(stack) if each >= "\u2066"]
            del stack[isolates[-1] if isolates else len(stack) :]
        elif control != "\u202c":
            stack.append(control)
            del stack[:-_DEEPEST]
        elif stack and stack[-1] < "\u2066":
            stack.pop()
    return "".join(stack)


def _base(text: str) -> int:
    """Level of the paragraph: 1 where its first letter is written from right to left (P2, P3)."""
    for match in _RUN.finditer(text):
        if match.lastgroup in ("left", "right"):
            return int(match.lastgroup == "right")
    return 0


def _pieces(text: str, base: int) -> list[_Piece]:
    """Runs of one direction with their levels (X1 to X8, N1, N2, I1, I2)."""
    stack: list[tuple[int, str | None, bool]] = []  # level, override, isolate
    level, override = base, None
    runs: list[tuple[str, str, int]] = []
    for match in _RUN.finditer(text):
        run = match[0]
        if match.lastgroup == "control":
            if run in "\u202c\u2069":
                level, override = _closed(stack, (level, override), isolate=run == "\u2069")
            if run >= "\u2066":  # isolates hold their place in the text around them
                runs.append(("", "neutral", level))
            if run in "\u202c\u2069":
                continue
            stack.append((level, override, run >= "\u2066"))
            up = _up(level, run, text, match.end())
            if up <= _DEEPEST:
                level = up
                override = {"\u202d": "left", "\u202e": "right"}.get(run)
            continue
        runs.append((run, override or match.lastgroup or "neutral", level))
    return _resolved(runs)


def _closed(
    stack: list[tuple[int, str | None, bool]], now: tuple[int, str | None], *, isolate: bool
) -> tuple[int, str | None]:
    """Level and override behind an end; one that ends nothing changes nothing."""
    if not stack:
        return now
    if isolate:
        if not any(each[2] for each in stack[-_DEEPEST:]):
            return now
        while not stack[-1][2]:
            stack.pop()
    elif stack[-1][2]:
        return now
    before, override, _ = stack.pop()
    return before, override


def _up(level: int, control: str, text: str, behind: int) -> int:
    right = control in "\u202b\u202e\u2067"
    if control == "\u2068":
        first = _LETTER.search(text, behind, behind + 200)
        right = first is not None and _RUN.match(first[0]).lastgroup == "right"  # type: ignore[union-attr]
    return (level + 1) | 1 if right else (level + 2) & ~1


def _resolved(runs: list[tuple[str, str, int]]) -> list[_Piece]:
    pieces: list[_Piece] = []
    before = [0] * len(runs)  # direction of what is strong in front, in the same embedding
    strong, depth = -1, -1
    for index, (_, kind, level) in enumerate(runs):
        strong = strong if level == depth else level & 1
        depth = level
        before[index] = strong
        if kind in ("left", "right"):
            strong = int(kind == "right")
    strong, depth = -1, -1
    for index in range(len(runs) - 1, -1, -1):
        text, kind, level = runs[index]
        strong = strong if level == depth else level & 1
        depth = level
        if kind == "neutral":
            odd = before[index] if before[index] == strong else level & 1
            resolved = level + (odd ^ (level & 1))
        elif kind == "number":
            behind_left = not level & 1 and not before[index]
            resolved = level if behind_left else level + 2 - (level & 1)
            strong = before[index]  # W7, and as in N1 a number is like what is written to the left
        else:
            odd = int(kind == "right")
            resolved = level + (odd ^ (level & 1))
            strong = odd
        pieces.append(_Piece(text, kind, resolved))
    pieces.reverse()
    return pieces


def _shown(pieces: list[_Piece]) -> list[str]:
    """Texts from left to right as they are seen: rule L2 in linear time.

    Ranges of one level are merged on a stack (Behdad Esfahbod, "linear-time bidi reordering").
    Lists are joined by reference: ``[left end, right end]`` of chains in ``after``.
    """
    after: list[int] = [-1] * len(pieces)
    stack: list[list[int]] = []  # level, first, last

    def merge() -> None:
        _, first, last = stack.pop()
        below = stack[-1]
        if below[0] & 1:
            after[last] = below[1]
            below[1] = first
        else:
            after[below[2]] = first
            below[2] = last

    for index, piece in enumerate(pieces):
        while len(stack) > 1 and stack[-1][0] > piece.level and stack[-2][0] >= piece.level:
            merge()
        if stack and stack[-1][0] >= piece.level:
            top = stack[-1]
            if piece.level & 1:
                after[index] = top[1]
                top[1] = index
            else:
                after[top[2]] = index
                top[2] = index
            top[0] = piece.level
        else:
            stack.append([piece.level, index, index])
    while len(stack) > 1:
        merge()
    seen: list[str] = []
    at = stack[0][1] if stack else -1
    while at >= 0:
        piece = pieces[at]
        seen.append(_mirrored(piece.text) if piece.level & 1 else piece.text)
        at = after[at]
    return seen


def _mirrored(text: str) -> str:
    """From right to left, brackets turned round, marks behind their letters."""
    letters = _CLUSTER.findall(text) if _MARKED.search(text) else text
    return "".join(reversed(letters)).translate(_PAIRS)


def _read(shown: list[str], base: int) -> str:
    """What is seen from left to right, in the order of reading: the way back."""
    seen = "".join(shown)
    if not base:
        return "".join(_shown(_pieces(seen, base)))
    parts = groupby(_pieces(_mirrored(seen), base), key=lambda piece: piece.level > base)
    runs = ((turned, "".join(piece.text for piece in group)) for turned, group in parts)
    return "".join(_mirrored(run) if turned else run for turned, run in runs)
