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
from worker.contracts.limits import MAX_CONTAINERS, MAX_DEPTH
from worker.errors import UnreadableRecord

_BOM = b"\xef\xbb\xbf"
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
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


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
_long_integers = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
)
"""For the rare document with an integer too long to convert: a call for each one is slow."""


def read_json(data: bytes) -> Document:
    """Parse one JSON document of RFC 8259; a UTF-8 byte order mark in front is passed over.

    Nesting and the number of containers are bounded before anything is parsed, so that hostile
    shapes cost a scan and no memory.

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
        root = _decode(text)
    except json.JSONDecodeError as error:
        raise UnreadableRecord(
            DeadLetterCode.NOT_JSON, detail=f"not JSON from character {error.pos} on"
        ) from None
    except RecursionError:
        raise _too_deep() from None
    return Document(root, _parsing.flawed, b"\\ud" in data or b"\\uD" in data)


def _decode(text: str) -> Any:
    try:
        return _decoder.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer beyond Python's bound on digits
        return _long_integers.decode(text)


def _check_shape(data: bytes) -> None:
    """Raise where nesting or containers are out of bounds.

    Up to its first error the document is split into strings and brackets exactly as the parser
    does, and the parser goes no further than that.
    """
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return
    if b"\\" in data:
        data = _ESCAPE.sub(b"", data)
    pieces = data.translate(None, _NOT_STRUCTURE).split(b'"')
    brackets = b"".join(pieces[::2])
    containers = brackets.count(b"{") + brackets.count(b"[")
    if containers <= MAX_DEPTH:
        return
    depth = 0
    for start in range(0, len(brackets), _CHUNK):
        codes = np.frombuffer(brackets, np.uint8, min(_CHUNK, len(brackets) - start), start)
        # Bits 1 and 2 tell opening (01) from closing (10): "[" 5b, "{" 7b; "]" 5d, "}" 7d.
        depths = depth + np.cumsum(3 - (codes & 6).astype(np.int64))
        if int(depths.max()) > MAX_DEPTH:
            raise _too_deep()
        depth = int(depths[-1])
    if containers > MAX_CONTAINERS:
        raise UnreadableRecord(
            DeadLetterCode.TOO_LARGE,
            detail=f"{containers} objects and arrays, at most {MAX_CONTAINERS} are read",
        )


def _too_deep() -> UnreadableRecord:
    return UnreadableRecord(
        DeadLetterCode.TOO_DEEP, detail=f"nested deeper than {MAX_DEPTH} levels"
    )
