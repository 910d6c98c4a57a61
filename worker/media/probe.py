"""What an encoded image says of itself, read without decoding a pixel or allocating a canvas.

The limits are applied to this reading before any decoder sees the bytes. Each reader walks the
container's own structure, so what a decoder would be made to do (frames, scans, canvas) is known
from what is there and not from what a header claims.

Formats: ITU-T T.81 (JPEG), W3C PNG third edition (APNG included), GIF89a, RFC 9649 (WebP).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from worker.codes import UndecidedReason
from worker.errors import Undecided

ImageFormat = Literal["JPEG", "PNG", "GIF", "WEBP"]

MAX_SCANS = 100
"""Scans of one JPEG; encoders write about ten, and every scan costs a pass over all pixels."""
MAX_CHUNKS = 100_000
"""PNG chunks or RIFF chunks of one image."""
MAX_SUB_BLOCKS = 400_000
"""GIF blocks of one image, junk included; encoders fill them, so 20 MiB has 82,000."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """Format, canvas in pixels and number of frames of an encoded image.

    ``buffered``: a JPEG whose coefficients are all kept before the first pixel is made.
    """

    format: ImageFormat
    width: int
    height: int
    frames: int = 1
    buffered: bool = False


def probe(data: bytes) -> Probe:
    """Read the structure of an encoded image.

    Raises:
        Undecided: ``image_format`` for anything but JPEG, PNG, GIF and WebP; ``image_corrupt``
            where the structure contradicts itself; ``image_too_large`` for structures that only
            serve to keep a decoder busy.
    """
    for magic, read in _READERS:
        if data.startswith(magic):
            found = read(data)
            if found.width < 1 or found.height < 1:
                raise corrupt("the image has no pixels")
            return found
    raise Undecided(UndecidedReason.IMAGE_FORMAT, detail="not JPEG, PNG, GIF or WebP")


def corrupt(detail: str) -> Undecided:
    """The error for an image that cannot be decoded."""
    return Undecided(UndecidedReason.IMAGE_CORRUPT, detail=detail)


def too_large(detail: str) -> Undecided:
    """The error for an image that costs more than the limits allow."""
    return Undecided(UndecidedReason.IMAGE_TOO_LARGE, detail=detail)


def _jpeg(data: bytes) -> Probe:
    # In scan data 0xFF is always followed by 0x00 or a restart marker, so this counts scans, plus
    # at most a few chance hits in metadata.
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise too_large(f"more than {MAX_SCANS} scans")
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:  # junk between segments, which decoders step over
            at = data.find(b"\xff", at)
            if at < 0:
                break
            continue
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # no length follows
            at += 2
            continue
        if marker in (0xDA, 0xD9):
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if at + 9 > len(data):
                break
            height, width = _big(data, at + 5, 2), _big(data, at + 7, 2)
            # A progressive decoder keeps every coefficient (2 bytes, up to 4 components) in memory.
            buffered = marker == 0xC2 or scans > 1
            return Probe(format="JPEG", width=width, height=height, buffered=buffered)
        at += 2 + _big(data, at + 2, 2)
    raise corrupt("no JPEG frame header")


def _png(data: bytes) -> Probe:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise corrupt("no PNG header")
    width, height = _big(data, 16, 4), _big(data, 20, 4)
    at, chunks, controls, claimed, default_image = 8, 0, 0, None, 0
    while at + 12 <= len(data):
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise too_large(f"more than {MAX_CHUNKS} chunks")
        kind, length = data[at + 4 : at + 8], _big(data, at, 4)
        if kind == b"acTL" and claimed is None:
            claimed = _big(data, at + 8, 4)
        elif kind == b"fcTL":
            controls += 1
        elif kind == b"IDAT" and not controls:
            default_image = 1
        elif kind == b"IEND":
            break
        at += 12 + length
    if claimed is None:
        return Probe(format="PNG", width=width, height=height)
    if claimed != controls or not claimed:
        raise corrupt("the animation does not have the frames it announces")
    # A default image that is no part of the animation is shown by what cannot animate: it counts.
    return Probe(format="PNG", width=width, height=height, frames=claimed + default_image)


def _gif(data: bytes) -> Probe:
    if len(data) < 13:
        raise corrupt("no GIF header")
    width, height, frames = _little(data, 6, 2), _little(data, 8, 2), 0
    at, budget = 13 + _table(data[10]), MAX_SUB_BLOCKS
    while at < len(data):
        block = data[at]
        budget -= 1
        if budget < 0:
            raise too_large(f"more than {MAX_SUB_BLOCKS} blocks")
        if block == 0x2C and at + 10 <= len(data):
            frames += 1
            # A frame may reach past the canvas; decoders grow the canvas to hold it.
            width = max(width, _little(data, at + 1, 2) + _little(data, at + 5, 2))
            height = max(height, _little(data, at + 3, 2) + _little(data, at + 7, 2))
            at += 11 + _table(data[at + 9])
        elif block == 0x21:
            at += 2
        elif block == 0x3B:
            break
        else:
            at += 1  # junk between blocks, which decoders step over
            continue
        while at < len(data) and data[at]:
            at += 1 + data[at]
            budget -= 1
            if budget < 0:
                raise too_large(f"more than {MAX_SUB_BLOCKS} blocks")
        if at >= len(data):
            raise corrupt("the GIF is cut short")
        at += 1
    if not frames:
        raise corrupt("no frame in the GIF")
    return Probe(format="GIF", width=width, height=height, frames=frames)


def _webp(data: bytes) -> Probe:
    kind = data[12:16]
    if data[8:12] != b"WEBP" or len(data) < 30:
        raise corrupt("no WebP header")
    if kind == b"VP8X":
        width, height = 1 + _little(data, 24, 3), 1 + _little(data, 27, 3)
        return Probe(format="WEBP", width=width, height=height, frames=_webp_frames(data))
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
        return Probe(format="WEBP", width=width, height=height)
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _little(data, 21, 4)
        return Probe(format="WEBP", width=1 + (bits & 0x3FFF), height=1 + ((bits >> 14) & 0x3FFF))
    raise corrupt("no WebP frame header")


def _webp_frames(data: bytes) -> int:
    at, chunks, frames = 12, 0, 0
    while at + 8 <= len(data):
        chunks += 1
        if chunks > MAX_CHUNKS:
            raise too_large(f"more than {MAX_CHUNKS} chunks")
        frames += data[at : at + 4] == b"ANMF"
        length = _little(data, at + 4, 4)
        at += 8 + length + (length & 1)
    return max(1, frames)


def _table(flags: int) -> int:
    """Bytes of the GIF colour table that ``flags`` announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


_READERS: tuple[tuple[bytes, Callable[[bytes], Probe]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
)
