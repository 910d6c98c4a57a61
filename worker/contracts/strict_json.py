"""JSON that has one meaning only: every parser that reads it must see the same values.

A name given twice is read as its first value by one parser and as its last by another, which is
a way past moderation. Such a value, like a number too large to be one, becomes a ``Flaw`` in the
parsed document: it harms the field it stands in and leaves the others readable.
"""

from __future__ import annotations

import json
import math
import re
import threading
from typing import Any, NoReturn

import msgspec
import numpy as np

from worker.codes import DeadLetterCode
from worker.contracts.limits import MAX_DEPTH, MAX_VALUES
from worker.errors import UnreadableRecord

_BOM = b"\xef\xbb\xbf"
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{},'))
_BACKSLASH = ord("\\")
_CHUNK = 1 << 16


class Flaw:
    """Stands where a value has no single meaning; ``problem`` completes "the field ...".

    There are two, compared by identity: ``TWICE`` and ``OUT_OF_RANGE``.
    """

    __slots__ = ("problem",)

    def __init__(self, problem: str) -> None:
        self.problem = problem


TWICE = Flaw("is given twice")
OUT_OF_RANGE = Flaw("is a number out of range")


class Document(msgspec.Struct, frozen=True):
    """A parsed record. ``flawed``: a ``Flaw`` is somewhere inside. ``escaped_surrogates``: a
    string may hold a lone surrogate, which is no character and cannot be written out again.
    """

    root: Any
    flawed: bool
    escaped_surrogates: bool


class _Parsing(threading.local):
    flawed = False


_parsing = _Parsing()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _parsing.flawed = True
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                members[name] = TWICE
            seen.add(name)
    return members


def _constant(_name: str) -> NoReturn:
    raise UnreadableRecord(DeadLetterCode.NOT_JSON, detail="NaN and Infinity are not JSON")


def _float(digits: str) -> float | Flaw:
    number = float(digits)
    return number if math.isfinite(number) else _out_of_range()


def _int(digits: str) -> int | Flaw:
    try:
        return int(digits)
    except ValueError:  # Python's bound on digits, which keeps conversion from being quadratic
        return _out_of_range()


def _out_of_range() -> Flaw:
    _parsing.flawed = True
    return OUT_OF_RANGE


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
)


def read_json(data: bytes) -> Document:
    """Parse one JSON document of RFC 8259; a UTF-8 byte order mark in front is passed over.

    Nesting and the number of values are bounded before anything is parsed, so that
    hostile shapes cost a scan, no memory, and no long hold of the interpreter.

    Raises:
        UnreadableRecord: ``not_utf8``, ``not_json``, ``too_deep`` or ``too_large``.
    """
    _check_shape(data)
    try:
        text = (data[3:] if data.startswith(_BOM) else data).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableRecord(
            DeadLetterCode.NOT_UTF8, detail=f"byte {error.start} is not UTF-8"
        ) from None
    _parsing.flawed = False
    try:
        root = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise UnreadableRecord(
            DeadLetterCode.NOT_JSON, detail=f"not JSON from character {error.pos} on"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    return Document(root, _parsing.flawed, b"\\ud" in data or b"\\uD" in data)


def _check_shape(data: bytes) -> None:
    """Raise where nesting or the number of values is out of bounds.

    Up to its first error the document is split into strings and structure exactly as the parser
    does, and the parser goes no further than that. Read in pieces: each holds the interpreter.
    """
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH and data.count(b",") < MAX_VALUES:
        return
    depth = containers = separators = start = 0
    inside = False  # of a string
    while start < len(data):
        end = start + _CHUNK
        while end < len(data) and data[end - 1] == _BACKSLASH:  # an escape is not cut
            end += 1
        piece = data[start:end]
        start = end
        if b"\\" in piece:
            piece = _ESCAPE.sub(b"", piece)
        strings = piece.translate(None, _NOT_STRUCTURE).split(b'"')
        structure = b"".join(strings[inside::2])
        inside ^= len(strings) % 2 == 0
        separators += structure.count(b",")
        brackets = structure.replace(b",", b"")
        containers += brackets.count(b"{") + brackets.count(b"[")
        if not brackets or containers <= MAX_DEPTH:
            depth += 2 * (brackets.count(b"{") + brackets.count(b"[")) - len(brackets)
            continue
        codes = np.frombuffer(brackets, np.uint8)
        # Bits 1 and 2 tell opening (01) from closing (10): "[" 5b, "{" 7b; "]" 5d, "}" 7d.
        depths = depth + np.cumsum(3 - (codes & 6).astype(np.int64))
        if int(depths.max()) > MAX_DEPTH:
            raise _too_deep()
        depth = int(depths[-1])
    values = separators + containers
    if values > MAX_VALUES:
        raise UnreadableRecord(
            DeadLetterCode.TOO_LARGE,
            detail=f"{values} members and items, at most {MAX_VALUES} are read",
        )


def _too_deep() -> UnreadableRecord:
    return UnreadableRecord(
        DeadLetterCode.TOO_DEEP, detail=f"nested deeper than {MAX_DEPTH} levels"
    )
