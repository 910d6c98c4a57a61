"""Image files of every kind that the four formats allow, made from a number: file N is always N.

Written byte by byte where the library's encoders know fewer ways than files in the wild use: every
colour type and depth, colour keys, interlacing, frame rectangles, disposal, blending, odd headers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.images import encoded, png_chunk
from tests.support.profiles import PROFILES


class Sample(NamedTuple):
    """A file, what is odd about it, and whether its frames are to be looked at one by one."""

    name: str
    data: bytes
    animated: bool


def sample(number: int) -> Sample:
    """File ``number`` of the corpus."""
    rng = Random(f"image corpus {number}")
    kinds = list(_KINDS)
    kind = kinds[number % len(kinds)]
    notes: list[str] = []
    data, animated = _KINDS[kind](rng, notes)
    return Sample(f"{number} {kind} {' '.join(notes)}", data, animated)


def picture(rng: Random, width: int, height: int) -> NDArray[np.uint8]:
    """Blocks, a ramp and some noise, RGBA: what shows a turned, shifted or discoloured picture."""
    generator = np.random.default_rng(rng.getrandbits(32))
    cells = generator.integers(0, 256, (4, 4, 4), dtype=np.uint8)
    cells[..., 3] = generator.choice([0, 90, 180, 255], (4, 4))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    pixels = cells[rows][:, columns].copy()
    pixels[: height // 4, :, :3] = (np.arange(width) * 255 // max(1, width - 1))[None, :, None]
    noisy = generator.random((height, width)) < 0.1
    pixels[noisy] = generator.integers(0, 256, (int(noisy.sum()), 4), dtype=np.uint8)
    return pixels


# PNG


def png_rows(samples: NDArray[np.int64], depth: int, rng: Random, passes: bool) -> bytes:
    """(height, width, channels) samples as filtered scanlines, interlaced or not, compressed."""
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    starts = [*starts, (1, 0, 2, 1)] if passes else [(0, 0, 1, 1)]
    lines = bytearray()
    for top, left, down, across in starts:
        part = samples[top::down, left::across]
        if not part.size:
            continue
        lines += _filtered(_packed(part, depth), max(1, part.shape[2] * depth // 8), rng)
    return zlib.compress(bytes(lines))


def _packed(part: NDArray[np.int64], depth: int) -> NDArray[np.uint8]:
    height, width, channels = part.shape
    flat = part.reshape(height, width * channels)
    if depth == 16:
        return np.frombuffer(flat.astype(">u2").tobytes(), np.uint8).reshape(height, -1)
    if depth == 8:
        return flat.astype(np.uint8)
    bits = (flat[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)


def _filtered(rows: NDArray[np.uint8], step: int, rng: Random) -> bytes:
    lines = bytearray()
    above = np.zeros(rows.shape[1], np.int64)
    for row in rows.astype(np.int64):
        left = np.concatenate([np.zeros(step, np.int64), row[:-step]])[: len(row)]
        corner = np.concatenate([np.zeros(step, np.int64), above[:-step]])[: len(row)]
        kind = rng.randrange(5)
        guess = left + above - corner
        distances = np.stack([abs(guess - left), abs(guess - above), abs(guess - corner)])
        paeth = np.choose(distances.argmin(axis=0), [left, above, corner])
        minus = [0 * row, left, above, (left + above) // 2, paeth][kind]
        lines += bytes([kind]) + ((row - minus) % 256).astype(np.uint8).tobytes()
        above = row
    return bytes(lines)


class Png(NamedTuple):
    """The parts a PNG file is put together from."""

    depth: int
    kind: int
    interlaced: bool
    palette: bytes
    before: Sequence[bytes]

    def header(self, width: int, height: int) -> bytes:
        fields = (width, height, self.depth, self.kind, 0, 0, int(self.interlaced))
        return png_chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))

    def samples(self, pixels: NDArray[np.uint8], rng: Random) -> NDArray[np.int64]:
        """The picture in the file's own samples."""
        most = 2**self.depth - 1
        colours = pixels.astype(np.int64)
        if self.kind == 3:
            count = len(self.palette) // 3
            total = colours.sum(axis=2, keepdims=True) // 7
            return np.asarray(total % min(count, most + 1))
        wide = colours * most // 255
        if self.depth == 16:
            wide = wide + np.random.default_rng(rng.getrandbits(32)).integers(0, 2, wide.shape)
            wide = wide.clip(0, most)
        channels = {0: [0], 2: [0, 1, 2], 4: [0, 3], 6: [0, 1, 2, 3]}[self.kind]
        return np.asarray(wide[..., channels])

    def rows(self, pixels: NDArray[np.uint8], rng: Random) -> bytes:
        return png_rows(self.samples(pixels, rng), self.depth, rng, self.interlaced)


def _png_shape(rng: Random, notes: list[str], size: tuple[int, int]) -> Png:
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    kind = rng.choice(list(depths))
    depth = rng.choice(depths[kind])
    most = 2**depth - 1
    palette = b""
    if kind == 3:
        palette = rng.randbytes(3 * rng.randint(1, 2**depth))
    before: list[bytes] = []
    notes.append(f"kind {kind} depth {depth}")
    if rng.random() < 0.5 and kind in (0, 2, 3):
        key = _key(rng, kind, depth, most, len(palette) // 3, size)
        before.append(png_chunk(b"tRNS", key))
        notes.append(f"tRNS {key.hex()[:12]}")
    return Png(depth, kind, rng.random() < 0.2, palette, before)


def _key(
    rng: Random, kind: int, depth: int, most: int, colours: int, size: tuple[int, int]
) -> bytes:
    if kind == 3:
        return bytes(rng.choice((0, 0, 128, 255)) for _ in range(rng.randint(1, colours)))
    values = [rng.choice((0, most, rng.randint(0, most))) for _ in range(1 if kind == 0 else 3)]
    return b"".join(struct.pack(">H", value) for value in values)


def _colour_chunks(rng: Random, notes: list[str], kind: int) -> list[bytes]:
    chunks: list[tuple[str, bytes]] = []
    if rng.random() < 0.5:
        value = rng.choice((45455, 45000, 100000, 10000, 2000, 200000, 60000, 33333, 1000000, 0))
        chunks.append((f"gAMA {value}", png_chunk(b"gAMA", struct.pack(">I", value))))
    if rng.random() < 0.3:
        name = rng.choice(list(_PRIMARIES))
        chunks.append((f"cHRM {name}", png_chunk(b"cHRM", struct.pack(">8I", *_PRIMARIES[name]))))
    if rng.random() < 0.15:
        chunks.append(("sRGB", png_chunk(b"sRGB", b"\0")))
    if rng.random() < 0.3:
        name = rng.choice(list(PROFILES))
        body = b"p\0\0" + zlib.compress(PROFILES[name])
        chunks.append((f"iCCP {name}", png_chunk(b"iCCP", body)))
    if rng.random() < 0.05:
        points = rng.choice((b"\1\x0d\0\1", b"\x0c\x0d\0\1", b"\2\2\0\1", b"\1\x08\0\1"))
        chunks.append((f"cICP {points.hex()}", png_chunk(b"cICP", points)))
    rng.shuffle(chunks)
    notes.extend(name for name, _ in chunks)
    return [chunk for _, chunk in chunks]


_PRIMARIES = {
    "sRGB": (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
    "Adobe": (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000),
    "P3": (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),
    "swapped": (31270, 32900, 15000, 6000, 30000, 60000, 64000, 33000),
    "D50": (34570, 35850, 64000, 33000, 30000, 60000, 15000, 6000),
}


def _size(rng: Random) -> tuple[int, int]:
    return rng.randint(1, 48), rng.randint(1, 48)


def _png(rng: Random, notes: list[str]) -> tuple[bytes, bool]:
    size = _size(rng)
    shape = _png_shape(rng, notes, size)
    extra = _exif_chunks(rng, notes)
    return _png_file(rng, shape, size, extra), False


def _png_colours(rng: Random, notes: list[str]) -> tuple[bytes, bool]:
    size = _size(rng)
    shape = _png_shape(rng, notes, size)
    return _png_file(rng, shape, size, _colour_chunks(rng, notes, shape.kind)), False


def _png_file(rng: Random, shape: Png, size: tuple[int, int], extra: Sequence[bytes] = ()) -> bytes:
    palette = [png_chunk(b"PLTE", shape.palette)] if shape.palette else []
    rows = shape.rows(picture(rng, *size), rng)
    cut = rng.randint(0, len(rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            shape.header(*size),
            *extra,
            *palette,
            *shape.before,
            png_chunk(b"IDAT", rows[:cut]),
            png_chunk(b"IDAT", rows[cut:]),
            png_chunk(b"IEND", b""),
        ]
    )


def _rectangle(rng: Random, width: int, height: int, even: bool = False) -> tuple[int, ...]:
    x, y = rng.randrange(width), rng.randrange(height)
    if even:
        x, y = x // 2 * 2, y // 2 * 2
    return x, y, rng.randint(1, width - x), rng.randint(1, height - y)


def _apng(rng: Random, notes: list[str]) -> tuple[bytes, bool]:
    width, height = _size(rng)
    shape = _png_shape(rng, notes, (width, height))
    colours = _colour_chunks(rng, notes, shape.kind) if rng.random() < 0.3 else []
    hidden = rng.random() < 0.2
    notes.extend(["hidden default"] * hidden)
    count = rng.randint(1, 6)
    sequence = 0
    body: list[bytes] = [png_chunk(b"acTL", struct.pack(">II", count, 0))]
    if hidden:
        body.append(png_chunk(b"IDAT", shape.rows(picture(rng, width, height), rng)))
    for index in range(count):
        x, y, wide, high = (0, 0, width, height)
        if index or hidden:
            x, y, wide, high = rng.choice(
                [(0, 0, width, height), tuple(_rectangle(rng, width, height))]
            )
        disposal, blend = rng.randrange(3), rng.randrange(2)
        notes.append(f"[{x},{y},{wide},{high} d{disposal} b{blend}]")
        delay = rng.choice(((1, 10), (0, 0), (1, 100), (3, 7), (1, 0)))
        control = struct.pack(">IIIIIHHBB", sequence, wide, high, x, y, *delay, disposal, blend)
        sequence += 1
        body.append(png_chunk(b"fcTL", control))
        rows = shape.rows(picture(rng, wide, high), rng)
        if index == 0 and not hidden:
            body.append(png_chunk(b"IDAT", rows))
        else:
            for part in (rows[:20], rows[20:]):
                body.append(png_chunk(b"fdAT", struct.pack(">I", sequence) + part))
                sequence += 1
    palette = [png_chunk(b"PLTE", shape.palette)] if shape.palette else []
    head = [shape.header(width, height), *colours, *palette, *shape.before]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*head, *body, png_chunk(b"IEND", b"")]), True


# Exif


def tiff(turn: int, *, big: bool = True, kind: int = 3, count: int = 1) -> bytes:
    """A TIFF block with an orientation."""
    order = ">" if big else "<"
    value = struct.pack(order + "HH", turn, 0) if kind == 3 else struct.pack(order + "I", turn)
    return (
        (b"MM\0*" if big else b"II*\0")
        + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, count)
        + value
        + struct.pack(order + "I", 0)
    )


def xmp(turn: int) -> bytes:
    """An XMP packet that says an orientation, which browsers do not read."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        f'tiff:Orientation="{turn}"/></rdf:RDF></x:xmpmeta>'
    ).encode()


def _block(rng: Random, notes: list[str]) -> bytes:
    turn = rng.randint(0, 9)
    big, kind, count = rng.random() < 0.5, rng.choice((3, 3, 3, 4)), rng.choice((1, 1, 1, 2))
    notes.append(f"exif {turn} type {kind} count {count}")
    return tiff(turn, big=big, kind=kind, count=count)


def _exif_chunks(rng: Random, notes: list[str]) -> list[bytes]:
    chunks = []
    if rng.random() < 0.4:
        chunks.append(png_chunk(b"eXIf", _block(rng, notes)))
    if rng.random() < 0.2:
        notes.append("xmp")
        body = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(rng.randint(2, 8))
        chunks.append(png_chunk(b"iTXt", body))
    return chunks


# JPEG


def _jpeg(rng: Random, notes: list[str]) -> tuple[bytes, bool]:
    mode = rng.choice(("RGB", "RGB", "RGB", "L", "CMYK"))
    size = rng.choice((_size(rng), (rng.randint(40, 90), rng.randint(40, 90))))
    pixels = picture(rng, *size)[..., :3]
    image = Image.fromarray(pixels).convert(mode)
    options: dict[str, Any] = {"quality": rng.choice((60, 90, 100))}
    if mode == "RGB":
        options["subsampling"] = rng.choice((0, 1, 2))
        options["keep_rgb"] = options["subsampling"] == 0 and rng.random() < 0.3
    options["progressive"] = rng.random() < 0.3
    notes.append(f"{mode} {size} {options}")
    if rng.random() < 0.4:
        name = rng.choice(list(PROFILES))
        options["icc_profile"] = PROFILES[name]
        notes.append(f"icc {name}")
    if options["progressive"] and mode == "RGB":
        options["optimize"] = True
    data = encoded(image, "JPEG", **options)
    if rng.random() < 0.4:
        data = with_app1(data, b"Exif\0\0" + _block(rng, notes))
    if rng.random() < 0.2:
        notes.append("xmp")
        data = with_app1(data, b"http://ns.adobe.com/xap/1.0/\0" + xmp(rng.randint(2, 8)))
    return data, False


def with_app1(data: bytes, body: bytes) -> bytes:
    """A JPEG with an APP1 segment in front of everything else."""
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


# GIF


def _lzw(indices: bytes, size: int) -> bytes:
    """Indices as LZW codes that never grow: a clear code before the table is full."""
    width, clear = size + 1, 1 << size
    room = (1 << size) - 2
    codes: list[int] = []
    for start in range(0, len(indices), room):
        codes += [clear, *indices[start : start + room]]
    codes.append(clear + 1)
    bits = 0
    for place, code in enumerate(codes):
        bits |= code << (place * width)
    packed = bits.to_bytes((len(codes) * width + 7) // 8, "little")
    blocks = b"".join(
        bytes([len(packed[at : at + 255])]) + packed[at : at + 255]
        for at in range(0, len(packed), 255)
    )
    return bytes([size]) + blocks + b"\0"


def _gif_palette(rng: Random, bits: int) -> bytes:
    return rng.randbytes(3 << bits)


def _gif(rng: Random, notes: list[str]) -> tuple[bytes, bool]:
    width, height = _size(rng)
    bits = rng.choice((1, 2, 4, 7, 8))
    has_common = rng.random() < 0.9
    common = _gif_palette(rng, bits) if has_common else b""
    flags = (0x80 | (bits - 1)) if has_common else 0
    common = common[: 3 << bits]
    background = rng.randrange(1 << bits)
    out = [
        rng.choice((b"GIF89a", b"GIF89a", b"GIF87a")),
        struct.pack("<HHBBB", width, height, flags, background, 0),
        common,
    ]
    count = rng.choice((1, 1, 2, 3, 4, 6))
    for _ in range(count):
        whole = (0, 0, width, height)
        beyond = (rng.randrange(width), rng.randrange(height), width, height)
        x, y, wide, high = rng.choice([whole, _rectangle(rng, width, height)] * 4 + [beyond])
        disposal = rng.choice((0, 1, 2, 3, 1, 2, 3, 4, 5, 7))
        clear = rng.random() < 0.6
        index_bits = bits
        local = b""
        local_flags = 0
        if not has_common or rng.random() < 0.3:
            index_bits = rng.choice((1, 2, 4, 8))
            local = _gif_palette(rng, index_bits)
            local_flags = 0x80 | (index_bits - 1)
        transparent = rng.randrange(1 << index_bits)
        notes.append(f"[{x},{y},{wide},{high} d{disposal} t{clear and transparent}]")
        if rng.random() < 0.9:
            delay = rng.choice((0, 1, 2, 5, 10, 50))
            packed = disposal << 2 | int(clear)
            control = struct.pack("<BHB", packed, delay, transparent)
            out.append(b"\x21\xf9\x04" + control + b"\0")
        interlaced = rng.random() < 0.2
        values = picture(rng, wide, high).astype(int).sum(axis=2) // 5
        values = values % (1 << index_bits)
        if clear:
            values[::2] = np.where(values[::2] % 2, transparent, values[::2])
        rows = list(values)
        if interlaced:
            rows = [*rows[::8], *rows[4::8], *rows[2::4], *rows[1::2]]
        indices = bytes(int(value) for row in rows for value in row)
        out.append(
            b","
            + struct.pack("<HHHHB", x, y, wide, high, local_flags | (0x40 if interlaced else 0))
            + local
            + _lzw(indices, max(2, index_bits))
        )
    notes.append(f"canvas {width}x{height}")
    return b"".join(out) + b";", True


# WebP


def _webp_parts(image: Image.Image, rng: Random) -> bytes:
    """The ALPH, VP8 and VP8L chunks of the picture."""
    options: dict[str, Any] = {"lossless": True} if rng.random() < 0.6 else {"quality": 90}
    file = BytesIO()
    image.save(file, "WEBP", exact=True, **options)
    data, parts, at = file.getvalue(), b"", 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + length + (length & 1)
        if data[at : at + 4] in (b"VP8 ", b"VP8L", b"ALPH"):
            parts += data[at:end]
        at = end
    return parts


def _riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def _webp_image(rng: Random, size: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(picture(rng, *size), "RGBA")
    return image if rng.random() < 0.5 else image.convert("RGB")


def _canvas(flags: int, size: tuple[int, int]) -> bytes:
    sides = (size[0] - 1).to_bytes(3, "little") + (size[1] - 1).to_bytes(3, "little")
    return _riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides)


def _webp(rng: Random, notes: list[str]) -> tuple[bytes, bool]:
    size = _size(rng)
    image = _webp_image(rng, size)
    parts = _webp_parts(image, rng)
    if rng.random() < 0.3:
        return _riff(parts) if b"ALPH" not in parts[:4] else _riff(
            _canvas(0x10, size), parts
        ), False
    flags, before, after = (0x10 if image.mode == "RGBA" else 0), b"", b""
    if rng.random() < 0.5:
        name = rng.choice(list(PROFILES))
        flags |= 0x20 if rng.random() < 0.8 else 0
        before = _riff_chunk(b"ICCP", PROFILES[name])
        notes.append(f"icc {name} flag {flags & 0x20}")
    if rng.random() < 0.3:
        flags |= 0x08
        after = _riff_chunk(b"EXIF", _block(rng, notes))
    if rng.random() < 0.2:
        flags |= 0x04
        after += _riff_chunk(b"XMP ", xmp(rng.randint(2, 8)))
    return _riff(_canvas(flags, size), before, parts, after), False


def _animated_webp(rng: Random, notes: list[str]) -> tuple[bytes, bool]:
    width, height = rng.randint(2, 48), rng.randint(2, 48)
    flags = 0x02 | (0x10 if rng.random() < 0.6 else 0)
    profile = b""
    if rng.random() < 0.2:
        name = rng.choice(list(PROFILES))
        flags |= 0x20
        profile = _riff_chunk(b"ICCP", PROFILES[name])
        notes.append(f"icc {name}")
    frames = []
    for _ in range(rng.randint(1, 6)):
        whole = (0, 0, width, height)
        x, y, wide, high = rng.choice([whole, _rectangle(rng, width, height, even=True)])
        how = rng.randrange(4)
        notes.append(f"[{x},{y},{wide},{high} d{how & 1} b{1 - (how >> 1)}]")
        fields = b"".join(
            value.to_bytes(3, "little")
            for value in (x // 2, y // 2, wide - 1, high - 1, rng.choice((0, 5, 10, 20, 100, 900)))
        )
        body = fields + bytes([how]) + _webp_parts(_webp_image(rng, (wide, high)), rng)
        frames.append(_riff_chunk(b"ANMF", body))
    ground = rng.randbytes(4) + b"\0\0"
    notes.append(f"flags {flags:x}")
    return _riff(
        _canvas(flags, (width, height)), profile, _riff_chunk(b"ANIM", ground), *frames
    ), True


_KINDS: Mapping[str, Callable[[Random, list[str]], tuple[bytes, bool]]] = {
    "PNG": _png,
    "PNG colours": _png_colours,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WebP": _webp,
    "animated WebP": _animated_webp,
    "APNG": _apng,
}
