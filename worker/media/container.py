"""What an encoded image holds, read without decoding a pixel or allocating a canvas.

The limits are applied to this reading before any decoder sees the bytes. Each reader walks the
container's own structure, so what a decoder would be made to do (frames, scans, canvas) is known
from what is there and not from what a header claims. Where to find each frame, where it lies on the
canvas, how long it is shown and what becomes of it afterwards is read here too: a decoder is only
ever given one frame as a file of its own (``Frame.file``), with no metadata left in it.

Formats: ITU-T T.81 (JPEG), W3C PNG third edition (APNG included), GIF89a, RFC 9649 (WebP), CIPA
DC-008 (Exif). Where viewers are stricter or laxer than the text, they are followed; every rule here
is held to Chromium by tests/media/test_viewers.py.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from worker.codes import UndecidedReason
from worker.errors import Undecided

ImageFormat = Literal["JPEG", "PNG", "GIF", "WEBP"]
Disposal = Literal["keep", "clear", "restore"]

MAX_SCANS: Final = 100
"""Scans of one JPEG; encoders write about ten, and every scan costs a pass over all pixels."""
MAX_CHUNKS: Final = 100_000
"""PNG chunks or RIFF chunks of one image."""
MAX_SUB_BLOCKS: Final = 400_000
"""GIF blocks of one image, junk included; encoders fill them, so 20 MiB has 82,000."""
MAX_FRAMES: Final = 3_000
"""Frames of one animation; more make the image too large to judge."""
MAX_SIDE: Final = 65_535
"""Pixels of one side, the most that JPEG and GIF can say. PNG can say more, which no browser shows
and which costs a decoder memory by the row."""
SHORTEST_MS: Final = 10
INSTEAD_MS: Final = 100
"""Browsers show a frame that asks for at most 10 ms for 100 ms."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a file: where it lies on the canvas, for how long, and how it is laid down.

    ``parts`` are the spans (start, end) of ``data`` that hold its pixels. ``disposal`` is done to
    its rectangle after it was shown; ``over`` blends it over what is there, else it replaces that.
    ``hidden``: no part of the animation, but what a program shows that cannot animate.
    """

    x: int = 0
    y: int = 0
    width: int
    height: int
    ms: int = 0
    disposal: Disposal = "keep"
    over: bool = True
    hidden: bool = False
    parts: Sequence[tuple[int, int]] = ()
    palette: bytes | None = None
    """GIF: the colours, 3 bytes each."""
    transparent: int | None = None
    """GIF: the palette index that is not drawn."""
    interlaced: bool = False
    alpha: bool = False
    """WebP: the frame has an alpha channel."""


class PngColours(msgspec.Struct, frozen=True, kw_only=True):
    """A PNG's own colour chunks, raw; None where there is none before the pixels."""

    depth: int
    kind: int
    """0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha."""
    interlaced: int = 0
    palette: bytes | None = None
    key: bytes | None = None
    """tRNS."""
    gamma: bytes | None = None
    chromaticities: bytes | None = None
    srgb: bool = False
    profile: bytes | None = None
    """iCCP as it stands in the file: name, method, compressed profile."""
    code_points: bytes | None = None
    """cICP."""


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """Format, canvas in pixels and frames of an encoded image, at least one.

    ``frames`` are in order, hidden ones first. ``turn`` is the EXIF orientation, 1 to 8, that
    browsers apply, ``other_turn`` one that other viewers apply and browsers do not. ``buffered``: a
    JPEG whose coefficients are all kept before the first pixel is made.
    """

    format: ImageFormat
    width: int
    height: int
    frames: Sequence[Frame] = ()
    turn: int = 1
    other_turn: int = 1
    buffered: bool = False
    png: PngColours | None = None
    profile: bytes | None = None
    """WebP: the ICC profile."""
    opaque: bool = False
    """WebP: said to have no transparency, whatever its frames hold."""
    animated: bool = False
    """Said to be an animation, even of one frame."""


def read_container(data: bytes) -> Container:
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
            if max(found.width, found.height) > MAX_SIDE:
                raise too_large(f"{found.width} x {found.height} pixels, a side over {MAX_SIDE}")
            return found
    raise Undecided(UndecidedReason.IMAGE_FORMAT, detail="not JPEG, PNG, GIF or WebP")


def corrupt(detail: str) -> Undecided:
    """The error for an image that cannot be decoded."""
    return Undecided(UndecidedReason.IMAGE_CORRUPT, detail=detail)


def too_large(detail: str) -> Undecided:
    """The error for an image that costs more than the limits allow."""
    return Undecided(UndecidedReason.IMAGE_TOO_LARGE, detail=detail)


def not_alike(detail: str) -> Undecided:
    """The error for an image that viewers may show otherwise than the worker would."""
    return Undecided(UndecidedReason.IMAGE_RENDERING, detail=detail)


def _bounded(frames: Sequence[Frame]) -> None:
    if len(frames) >= MAX_FRAMES:
        raise too_large(f"more than {MAX_FRAMES} frames")


def frame_file(data: bytes, container: Container, frame: Frame) -> bytes:
    """The frame as an image file of its own, of the frame's size, without any metadata."""
    if container.format == "PNG":
        return _png_file(data, container, frame)
    if container.format == "GIF":
        return _gif_file(data, frame)
    if container.format == "WEBP":
        return _webp_file(data, frame)
    return data


# JPEG


def _jpeg(data: bytes) -> Container:
    # In scan data 0xFF is always followed by 0x00 or a restart marker, so this counts scans, plus
    # at most a few chance hits in metadata.
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise too_large(f"more than {MAX_SCANS} scans")
    at, turn = 2, None
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
        length = _big(data, at + 2, 2)
        if marker == 0xE1 and turn is None and data[at + 4 : at + 9] == b"Exif\0":
            turn = _orientation(data[at + 10 : at + 2 + length])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if at + 9 > len(data):
                break
            height, width = _big(data, at + 5, 2), _big(data, at + 7, 2)
            # Exif belongs in front of the frame header, but is found behind it as well.
            turn = _late_orientation(data, at + 2 + length) if turn is None else turn
            return Container(
                format="JPEG",
                width=width,
                height=height,
                frames=(Frame(width=width, height=height),),
                turn=turn or 1,
                # A progressive decoder keeps every coefficient (2 bytes, up to 4 components).
                buffered=marker == 0xC2 or scans > 1,
            )
        at += 2 + length
    raise corrupt("no JPEG frame header")


def _late_orientation(data: bytes, at: int) -> int | None:
    """The orientation of an Exif segment between the frame header and the first scan."""
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xE1 and data[at + 4 : at + 9] == b"Exif\0":
            return _orientation(data[at + 10 : at + 2 + _big(data, at + 2, 2)])
        at += 2 + _big(data, at + 2, 2)
    return None


def _orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory of a TIFF block: 1 to 8, 1 where it is not well formed.

    As browsers read it: the first such entry, one SHORT. Anything else in the block is not looked
    at, so broken metadata does not cost the picture.
    """
    if tiff[:4] == b"MM\0*":
        order: Literal["big", "little"] = "big"
    elif tiff[:4] == b"II*\0":
        order = "little"
    else:
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    at = number(4, 4)
    if at + 2 > len(tiff):
        return 1
    for entry in range(at + 2, at + 2 + 12 * number(at, 2), 12):
        if entry + 12 > len(tiff):
            return 1
        if number(entry, 2) == 0x0112:
            turn = number(entry + 8, 2)
            short = number(entry + 2, 2) == 3 and number(entry + 4, 4) == 1
            return turn if short and 1 <= turn <= 8 else 1
    return 1


# PNG

_KINDS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Colour types of PNG and their depths."""
_MAGIC: Final = b"\x89PNG\r\n\x1a\n"


def _png(data: bytes) -> Container:
    if data[12:16] != b"IHDR" or len(data) < 33 or _big(data, 8, 4) != 13:
        raise corrupt("no PNG header")
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if depth not in _KINDS.get(kind, ()) or interlaced > 1:
        raise corrupt("no such PNG colour type")
    chunks: dict[bytes, bytes] = {}
    frames: list[Frame] = []
    image: list[tuple[int, int]] = []
    parts: list[tuple[int, int]] = []
    controls: list[bytes] = []
    announced, sequence, ended = None, 0, False

    def finish() -> None:
        if controls and len(frames) < len(controls):
            frames.append(_apng_frame(controls[-1], (width, height), tuple(parts)))
            parts.clear()

    for kind_of, start, end in _png_chunks(data):
        if kind_of == b"acTL":
            if image or announced is not None or end - start != 8:
                raise corrupt("the animation is announced too late or twice")
            announced = _big(data, start, 4)
        elif kind_of in (b"fcTL", b"fdAT"):
            if announced is None:
                continue  # no animation: unknown chunks
            if end - start < 4 or _big(data, start, 4) != sequence:
                raise corrupt("frames of the animation are not in order")
            sequence += 1
            if kind_of == b"fcTL":
                finish()
                _bounded(frames)
                controls.append(data[start:end])
            elif not controls or not image:
                raise corrupt("a frame of the animation before its control")
            else:
                parts.append((start + 4, end))
        elif kind_of == b"IDAT":
            image.append((start, end))
            if controls:
                parts.append((start, end))
        elif kind_of == b"IEND":
            ended = True
            break
        elif kind_of in _COLOUR_CHUNKS and not image:
            chunks.setdefault(kind_of, data[start:end])
    if not image or not ended:
        raise corrupt("the PNG is cut short")
    finish()
    colours = PngColours(
        depth=depth,
        kind=kind,
        interlaced=interlaced,
        palette=chunks.get(b"PLTE"),
        key=chunks.get(b"tRNS"),
        gamma=chunks.get(b"gAMA"),
        chromaticities=chunks.get(b"cHRM"),
        srgb=b"sRGB" in chunks,
        profile=chunks.get(b"iCCP"),
        code_points=chunks.get(b"cICP"),
    )
    if kind == 3 and not colours.palette:
        raise corrupt("no palette in the PNG")
    still = Frame(width=width, height=height, parts=tuple(image))
    if announced is not None:
        if announced != len(frames) or not announced:
            raise corrupt("the animation does not have the frames it announces")
        if frames[0].parts[0] != image[0]:
            # A default image that is no part of the animation is shown by what cannot animate.
            hidden = msgspec.structs.replace(still, hidden=True, parts=tuple(image))
            frames.insert(0, hidden)
    return Container(
        format="PNG",
        width=width,
        height=height,
        frames=tuple(frames) or (still,),
        animated=announced is not None,
        turn=_orientation(chunks.get(b"eXIf", b"")),
        png=colours,
    )


_COLOUR_CHUNKS: Final = frozenset(
    {b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"eXIf"}
)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind and span of every chunk; what is not needed to show the picture may be damaged."""
    at, count = 8, 0
    while at + 12 <= len(data):
        count += 1
        if count > MAX_CHUNKS:
            raise too_large(f"more than {MAX_CHUNKS} chunks")
        kind, start = data[at + 4 : at + 8], at + 8
        end = start + _big(data, at, 4)
        if end + 4 > len(data):
            return
        if kind in _NEEDED or kind in _COLOUR_CHUNKS:
            if zlib.crc32(memoryview(data)[at + 4 : end]) == _big(data, end, 4):
                yield kind, start, end
            elif kind in _NEEDED:
                raise corrupt(f"broken checksum of {kind.decode()}")
        elif kind[:1].isupper():
            raise corrupt("a PNG chunk that no viewer knows, and must")
        at = end + 4


_NEEDED: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})


def _apng_frame(control: bytes, canvas: tuple[int, int], parts: Sequence[tuple[int, int]]) -> Frame:
    if len(control) != 26 or not parts:
        raise corrupt("a frame of the animation without pixels")
    width, height, x, y, number, per, disposal, blend = struct.unpack(">IIIIHHBB", control[4:])
    if not width or not height or x + width > canvas[0] or y + height > canvas[1]:
        raise corrupt("a frame of the animation outside its canvas")
    if disposal > 2 or blend > 1:
        raise corrupt("a frame of the animation is laid down in an unknown way")
    return Frame(
        x=x,
        y=y,
        width=width,
        height=height,
        ms=_shown_ms(1_000 * number // (per or 100)),
        disposal=_APNG_DISPOSALS[disposal],
        over=blend == 1,
        parts=parts,
    )


_APNG_DISPOSALS: Final[Sequence[Disposal]] = ("keep", "clear", "restore")


def _png_file(data: bytes, container: Container, frame: Frame) -> bytes:
    colours = container.png
    assert colours is not None
    header = struct.pack(
        ">IIBBBBB",
        frame.width,
        frame.height,
        colours.depth,
        colours.kind,
        0,
        0,
        colours.interlaced,
    )
    pixels = b"".join([data[start:end] for start, end in frame.parts])
    palette = _chunk(b"PLTE", colours.palette) if colours.kind == 3 and colours.palette else b""
    ends = _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return _MAGIC + _chunk(b"IHDR", header) + palette + ends


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join(
        (
            struct.pack(">I", len(body)),
            kind,
            body,
            struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))),
        )
    )


# GIF


def _gif(data: bytes) -> Container:
    if len(data) < 13:
        raise corrupt("no GIF header")
    width, height = _little(data, 6, 2), _little(data, 8, 2)
    common = _colours(data, 13, data[10])
    at, budget = 13 + _table(data[10]), MAX_SUB_BLOCKS
    frames: list[Frame] = []
    control: bytes | None = None
    while at < len(data):
        block = data[at]
        budget -= 1
        if budget < 0:
            raise too_large(f"more than {MAX_SUB_BLOCKS} blocks")
        begin = at
        if block == 0x2C and at + 10 <= len(data):
            at += 11 + _table(data[at + 9])  # to the sub-blocks: one byte is the code size
        elif block == 0x21:
            at += 2
        elif block == 0x3B:
            break
        else:
            at += 1  # junk between blocks, which decoders step over
            continue
        blocks = at
        while at < len(data) and data[at]:
            at += 1 + data[at]
            budget -= 1
            if budget < 0:
                raise too_large(f"more than {MAX_SUB_BLOCKS} blocks")
        if at >= len(data):
            raise corrupt("the GIF is cut short")
        at += 1
        if block == 0x21 and data[begin + 1] == 0xF9 and data[blocks] >= 4:
            control = data[blocks + 1 : blocks + 5]
        elif block == 0x2C:
            _bounded(frames)
            frames.append(_gif_frame(data, begin, (blocks - 1, at), common, control))
            control = None
    if not frames:
        raise corrupt("no frame in the GIF")
    # The canvas grows to hold the first frame; of the others, what reaches past it is not shown.
    first = frames[0]
    width, height = max(width, first.x + first.width), max(height, first.y + first.height)
    return Container(format="GIF", width=width, height=height, frames=tuple(frames), animated=True)


def _gif_frame(
    data: bytes,
    at: int,
    pixels: tuple[int, int],
    common: bytes | None,
    control: bytes | None,
) -> Frame:
    x, y, width, height, flags = struct.unpack("<HHHHB", data[at + 1 : at + 10])
    if not width or not height:
        raise corrupt("a frame of the GIF has no pixels")
    packed = control[0] if control else 0
    disposal = _GIF_DISPOSALS.get(packed >> 2 & 7, "keep")
    return Frame(
        x=x,
        y=y,
        width=width,
        height=height,
        ms=_shown_ms(10 * _little(control, 1, 2) if control else 0),
        disposal=disposal,
        parts=(pixels,),
        palette=_colours(data, at + 10, flags) or common,
        transparent=control[3] if control and packed & 1 else None,
        interlaced=bool(flags & 0x40),
    )


_GIF_DISPOSALS: Final[Mapping[int, Disposal]] = {2: "clear", 3: "restore", 4: "restore"}


def _gif_file(data: bytes, frame: Frame) -> bytes:
    """The frame alone, its palette numbered through: what is decoded are indices."""
    size = struct.pack("<HH", frame.width, frame.height)
    (start, end), flags = frame.parts[0], 0x40 if frame.interlaced else 0
    ramp = bytes(index for grey in range(256) for index in (grey, grey, grey))
    return b"".join(
        (
            b"GIF89a",
            size,
            b"\xf7\0\0",
            ramp,
            b",\0\0\0\0",
            size,
            bytes((flags,)),
            data[start:end],
            b";",
        )
    )


def _colours(data: bytes, at: int, flags: int) -> bytes | None:
    return data[at : at + _table(flags)] if flags & 0x80 else None


def _table(flags: int) -> int:
    """Bytes of the GIF colour table that ``flags`` announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


# WebP


def _webp(data: bytes) -> Container:
    kind = data[12:16]
    if data[8:12] != b"WEBP" or len(data) < 30:
        raise corrupt("no WebP header")
    if 8 + _little(data, 4, 4) > len(data):
        raise corrupt("the WebP is cut short")
    if kind != b"VP8X":
        return _simple_webp(data)
    flags, width, height = data[20], 1 + _little(data, 24, 3), 1 + _little(data, 27, 3)
    frames: list[Frame] = []
    still: list[tuple[int, int]] = []
    profile = exif = None
    alpha = False
    for name, start, stop in _riff_chunks(data, 12, 8 + _little(data, 4, 4)):
        if name == b"ANMF":
            _bounded(frames)
            frames.append(_webp_frame(data, start, stop, (width, height)))
        elif name in (b"VP8 ", b"VP8L", b"ALPH"):
            still.append((start - 8, stop))
            alpha = alpha or name == b"ALPH" or (name == b"VP8L" and _lossless_alpha(data, start))
        elif name == b"ICCP" and profile is None:
            profile = data[start:stop]
        elif name == b"EXIF" and exif is None:
            exif = data[start:stop]
    if flags & 0x02:
        if still or not frames:
            raise corrupt("the animation does not have the frames it announces")
    elif frames or not still:
        raise corrupt("frames in a WebP that is no animation")
    if flags & 0x02 == 0:
        frames = [Frame(width=width, height=height, over=False, parts=tuple(still), alpha=alpha)]
    return Container(
        format="WEBP",
        width=width,
        height=height,
        frames=tuple(frames),
        profile=profile if flags & 0x20 else None,
        opaque=not flags & 0x10,
        animated=bool(flags & 0x02),
        # Browsers do not turn a WebP, other viewers do.
        other_turn=_orientation((exif or b"").removeprefix(b"Exif\0\0")),
    )


def _simple_webp(data: bytes) -> Container:
    kind = data[12:16]
    alpha = False
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    elif kind == b"VP8L" and data[20] == 0x2F:
        bits = _little(data, 21, 4)
        width, height = 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
        alpha = _lossless_alpha(data, 20)
    else:
        raise corrupt("no WebP frame header")
    stop = 20 + _little(data, 16, 4)
    if stop > len(data):
        raise corrupt("the WebP is cut short")
    frame = Frame(width=width, height=height, over=False, parts=((12, stop),), alpha=alpha)
    return Container(format="WEBP", width=width, height=height, frames=(frame,))


def _webp_frame(data: bytes, start: int, stop: int, canvas: tuple[int, int]) -> Frame:
    if stop - start < 16:
        raise corrupt("a frame of the animation without pixels")
    x, y = 2 * _little(data, start, 3), 2 * _little(data, start + 3, 3)
    width, height = 1 + _little(data, start + 6, 3), 1 + _little(data, start + 9, 3)
    if x + width > canvas[0] or y + height > canvas[1]:
        raise corrupt("a frame of the animation outside its canvas")
    parts, alpha = [], False
    for name, begin, end in _riff_chunks(data, start + 16, stop):
        if name in (b"VP8 ", b"VP8L", b"ALPH"):
            parts.append((begin - 8, end))
            alpha = alpha or name == b"ALPH" or (name == b"VP8L" and _lossless_alpha(data, begin))
    if not parts:
        raise corrupt("a frame of the animation without pixels")
    flags = data[start + 15]
    return Frame(
        x=x,
        y=y,
        width=width,
        height=height,
        ms=_shown_ms(_little(data, start + 12, 3)),
        disposal="clear" if flags & 1 else "keep",
        over=not flags & 2,
        parts=tuple(parts),
        alpha=alpha,
    )


def _lossless_alpha(data: bytes, start: int) -> bool:
    return bool(_little(data, start + 1, 4) >> 28 & 1)


def _riff_chunks(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name and span of every chunk between ``at`` and ``end``."""
    count = 0
    while at + 8 <= end:
        count += 1
        if count > MAX_CHUNKS:
            raise too_large(f"more than {MAX_CHUNKS} chunks")
        start, length = at + 8, _little(data, at + 4, 4)
        if start + length > end:
            raise corrupt("the WebP is cut short")
        yield data[at : at + 4], start, start + length
        at = start + length + (length & 1)


def _webp_file(data: bytes, frame: Frame) -> bytes:
    body = b""
    if frame.alpha:
        size = (frame.width - 1).to_bytes(3, "little") + (frame.height - 1).to_bytes(3, "little")
        body = b"VP8X\x0a\0\0\0\x10\0\0\0" + size
    for start, end in frame.parts:
        body += data[start:end] + (b"\0" if (end - start) & 1 else b"")
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _shown_ms(asked: int) -> int:
    return INSTEAD_MS if asked <= SHORTEST_MS else asked


def _big(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


_READERS: tuple[tuple[bytes, Callable[[bytes], Container]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (_MAGIC, _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"RIFF", _webp),
)
