"""``OffsetMetadata`` as the text beside a committed offset: at most ``MAX_BYTES``, read for ever.

``name=value`` pairs with ``;`` between. Versions before the map wrote ``attempts`` and ``until``
only and ignore whatever else stands there, so either reads what the other wrote.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator

import msgspec

from worker.log.base import PLAIN, OffsetMetadata, Run

MAX_BYTES = 4096
"""What a broker takes (``offset.metadata.max.bytes``): one byte more fails the transaction."""
VERSION = 1


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The text read back. ``sequence`` counts the commits of a partition; 0 where none is told.

    ``dropped``: a map was there and was not believed, and why.
    """

    metadata: OffsetMetadata = PLAIN
    sequence: int = 0
    dropped: str = ""


def encode_metadata(
    metadata: OffsetMetadata, next_offset: int, *, sequence: int = 0, stamp: str = ""
) -> str:
    """Text for the offset's metadata; empty for ``PLAIN`` without a sequence number.

    ``stamp`` names cluster and topic: a map that was copied elsewhere must not be believed.
    """
    fields: list[str] = []
    if metadata.attempts or metadata.until or metadata.tried is not None:
        fields.append(f"attempts={metadata.attempts};until={metadata.until}")
    if metadata.worker:
        fields.append(f"worker={metadata.worker};started={metadata.started}")
    if metadata.tried is not None:
        fields.append(f"tried={metadata.tried};alone={metadata.alone}")
    if metadata.explained:
        fields.append(f"explained={metadata.explained}")
    if sequence:
        fields.append(f"sequence={sequence}")
    if metadata.finished:
        done = encode_runs(metadata.finished, next_offset)
        fields.append(f"v={VERSION};base={next_offset};stamp={stamp};done={done}")
    return ";".join(fields)


def decode_metadata(text: str | None, next_offset: int, *, stamp: str = "") -> Committed:
    """Read what ``encode_metadata`` wrote. Metadata of other tools counts as ``PLAIN``."""
    fields = dict(part.split("=", 1) for part in (text or "").split(";") if "=" in part)
    try:
        numbers = {
            name: int(fields.get(name, 0))
            for name in ("started", "attempts", "until", "alone", "sequence")
        }
        tried = int(fields["tried"]) if "tried" in fields else None
        if min(numbers.values()) < 0:
            raise ValueError
    except ValueError:
        return Committed()
    finished, dropped = _map(fields, next_offset, stamp)
    return Committed(
        metadata=OffsetMetadata(
            finished=finished,
            started=numbers["started"],
            attempts=numbers["attempts"],
            until=numbers["until"],
            worker=fields.get("worker", ""),
            tried=tried,
            alone=numbers["alone"],
            explained=fields.get("explained", ""),
        ),
        sequence=numbers["sequence"],
        dropped=dropped,
    )


def _map(fields: dict[str, str], next_offset: int, stamp: str) -> tuple[tuple[Run, ...], str]:
    if "done" not in fields:
        return (), ""
    if fields.get("v") != str(VERSION):
        return (), "it is of another version"
    if fields.get("base") != str(next_offset):
        return (), "it was made for another offset"
    if fields.get("stamp", "") != stamp:
        return (), "it was made for another cluster or topic"
    try:
        return tuple(decode_runs(fields["done"], next_offset)), ""
    except (ValueError, IndexError, binascii.Error):
        return (), "it cannot be read"


def encode_runs(runs: Iterable[Run], base: int) -> str:
    """The shorter of run lengths and bitmap, in base64. ``runs`` ascend and lie past ``base``."""
    lengths, bitmap, at = bytearray(), 0, base
    for start, end in runs:
        _put(lengths, start - at)
        _put(lengths, end - start)
        bitmap |= ((1 << (end - start)) - 1) << (start - base)
        at = end
    bits = bitmap.to_bytes((at - base + 7) // 8, "little")
    kind, shorter = ("r", bytes(lengths)) if len(lengths) <= len(bits) else ("b", bits)
    return kind + base64.urlsafe_b64encode(shorter).decode().rstrip("=")


def decode_runs(text: str, base: int) -> Iterator[Run]:
    """Read what ``encode_runs`` wrote.

    Raises:
        ValueError, IndexError, binascii.Error: it is something else.
    """
    kind, body = text[0], text[1:]
    data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    if kind == "r":
        position, at = 0, base
        while position < len(data):
            gap, position = _take(data, position)
            length, position = _take(data, position)
            if length == 0:
                raise ValueError("an empty run")
            yield at + gap, at + gap + length
            at += gap + length
    elif kind == "b":
        bits, start = int.from_bytes(data, "little"), base
        while bits:
            gap = (bits & -bits).bit_length() - 1
            bits >>= gap
            length = (~bits & (bits + 1)).bit_length() - 1
            yield start + gap, start + gap + length
            bits >>= length
            start += gap + length
    else:
        raise ValueError("an unknown kind of map")


def _put(into: bytearray, number: int) -> None:
    while number >= 0x80:
        into.append(number & 0x7F | 0x80)
        number >>= 7
    into.append(number)


def _take(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
