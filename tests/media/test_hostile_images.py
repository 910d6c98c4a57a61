"""Images made to break, to lie or to keep the worker busy: each ends with a code, none judged."""

from __future__ import annotations

import resource
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import pytest
from PIL import Image

from tests.support.images import encoded, noise, plain, png, png_chunk, quarters
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.media.container import MAX_CHUNKS, MAX_SCANS, MAX_SUB_BLOCKS
from worker.media.decode import DecodeLimits, decode

LIMITS = DecodeLimits(max_pixels=1_000_000, max_frames=4)
FORMAT, CORRUPT, LARGE = (
    UndecidedReason.IMAGE_FORMAT,
    UndecidedReason.IMAGE_CORRUPT,
    UndecidedReason.IMAGE_TOO_LARGE,
)


def refused(data: bytes) -> UndecidedReason:
    with pytest.raises(Undecided) as error:
        decode(data, LIMITS)
    return error.value.reason


@contextmanager
def cheap(seconds: float = 2.0, kilobytes: int = 100_000) -> Iterator[None]:
    """The block takes little CPU, and little memory at its peak."""
    cpu, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - cpu < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < kilobytes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"8BPS\x00\x01",
        b"II*\x00\x08\x00\x00\x00",
        b"BM" + bytes(60),
        b"\x00\x00\x01\x00\x01\x00",
        b"\x00\x00\x00\x1cftypavif",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
        b"\xff\xd8",
        b"\x89PNG",
        b"GIF88a" + bytes(50),
    ],
)
def test_what_is_none_of_the_four_formats_is_not_opened(data: bytes) -> None:
    assert refused(data) is FORMAT


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "PPM", "TGA", "JPEG2000"])
def test_formats_that_the_decoder_library_knows_are_refused_all_the_same(kind: str) -> None:
    assert refused(encoded(plain(), kind)) is FORMAT


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0" + bytes(100),
        b"\xff\xd8\xff\xda" + bytes(100),
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"GIF89a",
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
        b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(40),
        b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(40),
    ],
)
def test_a_magic_without_an_image_is_corrupt(data: bytes) -> None:
    assert refused(data) is CORRUPT


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_still_image_cut_short_is_corrupt_and_never_judged_in_part(
    kind: str, share: float
) -> None:
    data = encoded(noise(200, 150), kind)
    assert refused(data[: int(len(data) * share)]) is CORRUPT


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_a_decompression_bomb_is_refused_from_its_header(mode: str) -> None:
    """400 million pixels from a few kilobytes."""
    depth = {"1": (1, 0, 1 / 8), "L": (8, 0, 1), "RGB": (8, 2, 3), "RGBA": (8, 6, 4)}[mode]
    row = bytes(1 + int(20_000 * depth[2]))
    packer = zlib.compressobj(9)
    body = b"".join([packer.compress(row * 20) for _ in range(50)]) + packer.flush()
    header = struct.pack(">IIBBBBB", 20_000, 20_000, depth[0], depth[1], 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")
    with cheap():
        assert refused(b"\x89PNG\r\n\x1a\n" + chunks) is LARGE


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
def test_one_row_over_the_pixel_cap_is_refused_and_the_cap_itself_is_not(kind: str) -> None:
    decode(encoded(plain(1000, 1000), kind), LIMITS)
    assert refused(encoded(plain(1000, 1001), kind)) is LARGE


@pytest.mark.parametrize("size", [(0, 1), (1, 0), (0, 0), (2**31, 2**31), (2**32 - 1, 1)])
def test_impossible_sizes_are_refused(size: tuple[int, int]) -> None:
    data = png(*size, png_chunk(b"IDAT", zlib.compress(bytes(100))))
    assert refused(data) in {CORRUPT, LARGE}


@pytest.mark.parametrize("rows", [0, 1, 25, 49])
def test_rows_announced_but_not_there_make_a_png_corrupt(rows: int) -> None:
    """The decoder leaves them black and viewers clear: dark shapes would vanish there."""
    row = b"\x00" + b"\xff\x00\x00" * 50
    data = png(50, 50, png_chunk(b"IDAT", zlib.compress(row * rows)))
    assert refused(data) is CORRUPT


def test_a_png_that_ends_in_black_rows_is_judged() -> None:
    """What is really there is not mistaken for what is missing."""
    row = b"\x00" + b"\xff\x00\x00" * 50
    black = b"\x00" + bytes(150)
    data = png(50, 50, png_chunk(b"IDAT", zlib.compress(row * 25 + black * 25)))
    (frame,) = decode(data, LIMITS)
    assert frame.rgb == b"\xff\x00\x00" * 50 * 25 + bytes(50 * 25 * 3)


def test_data_beyond_the_announced_size_is_not_decoded() -> None:
    """2 x 2 pixels announced, 100 MB of rows behind them: only the four pixels are made."""
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(bytes(1_000_000)) for _ in range(100)) + packer.flush()
    with cheap():
        frames = decode(png(2, 2, png_chunk(b"IDAT", body)), LIMITS)
    assert [(frame.width, frame.height) for frame in frames] == [(2, 2)]


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"tEXt", b"iCCP"])
def test_a_text_chunk_that_unpacks_to_much_costs_little_and_is_never_kept(kind: bytes) -> None:
    packed = zlib.compress(bytes(200_000_000), 9)
    text = {
        b"zTXt": b"k\x00\x00" + packed,
        b"iTXt": b"k\x00\x01\x00\x00\x00" + packed,
        b"tEXt": b"k\x00" + b"x" * 5_000_000,
        b"iCCP": b"k\x00\x00" + packed,
    }[kind]
    rows = zlib.compress((b"\x00" + bytes(30)) * 10)
    with cheap():
        try:
            (frame,) = decode(png(10, 10, png_chunk(kind, text), png_chunk(b"IDAT", rows)), LIMITS)
            assert len(frame.rgb) == 300
        except Undecided as error:
            assert error.reason is CORRUPT  # noqa: PT017 - both ends are allowed


def test_many_small_text_chunks_cost_little() -> None:
    """None of them is unpacked: they are no part of the picture."""
    packed = png_chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(1_000_000), 9))
    rows = png_chunk(b"IDAT", zlib.compress((b"\x00" + bytes(30)) * 10))
    with cheap():
        (frame,) = decode(png(10, 10, *[packed] * 2_000, rows), LIMITS)
    assert frame.rgb == bytes(300)


def test_a_side_longer_than_any_viewer_shows_is_refused_before_it_is_decoded() -> None:
    """A PNG of 1 x 40,000,000 costs a decoder memory by the row, beside that of its pixels."""
    row = zlib.compress(bytes(2) * 100_000)
    data = png(1, 40_000_000, png_chunk(b"IDAT", row), colour_type=0)
    with cheap(), pytest.raises(Undecided) as error:
        decode(data, DecodeLimits(max_pixels=40_000_000, max_frames=4))
    assert error.value.reason is LARGE


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """A few bytes a scan make a progressive decoder pass over all pixels each time."""
    data = encoded(plain(1000, 1000), "JPEG", progressive=True)
    scan = data.index(b"\xff\xda")
    length = struct.unpack(">H", data[scan + 2 : scan + 4])[0]
    empty = data[scan : scan + 2 + length] + b"\x00" * 4
    with cheap():
        assert refused(data[:-2] + empty * (MAX_SCANS + 1) + b"\xff\xd9") is LARGE


def test_a_gif_of_tiny_blocks_is_refused_before_it_is_decoded() -> None:
    data = encoded(plain(10, 10), "GIF")
    comment = b"\x21\xfe" + b"\x01x" * (MAX_SUB_BLOCKS + 1) + b"\x00"
    with cheap():
        assert refused(data[:-1] + comment + b";") is LARGE
        assert refused(data[:-1] + b"\x01" * (MAX_SUB_BLOCKS + 1) + b";") is LARGE


def test_a_png_or_webp_of_tiny_chunks_is_refused_before_it_is_decoded() -> None:
    with cheap():
        assert refused(png(10, 10, *[png_chunk(b"teSt", b"")] * (MAX_CHUNKS + 1))) is LARGE
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\x09\x00\x00" * 2
    body = b"WEBP" + canvas + (b"teSt" + bytes(4)) * (MAX_CHUNKS + 1)
    with cheap():
        assert refused(b"RIFF" + struct.pack("<I", len(body)) + body) is LARGE


def test_a_polyglot_is_read_as_the_one_format_of_its_first_bytes() -> None:
    """What a viewer shows of it; what hides behind the end of the image is not looked at."""
    picture, hidden = encoded(quarters(), "PNG"), encoded(plain(), "JPEG")
    for other in (hidden, b"PK\x03\x04" + bytes(100), b"<script>alert(1)</script>", b"%PDF-1.7"):
        assert decode(picture + other, LIMITS)[0].rgb == decode(picture, LIMITS)[0].rgb
    assert refused(b"%PDF-1.7\n" + picture) is FORMAT
    assert refused(b"PK\x03\x04" + picture) is FORMAT


def test_a_phone_picture_with_more_pictures_inside_is_judged_by_the_one_shown() -> None:
    """MPO: a JPEG with others behind it. Viewers show the first."""
    file = BytesIO()
    quarters().save(file, "MPO", save_all=True, append_images=[plain(80, 40)], quality=95)
    (frame,) = decode(file.getvalue(), LIMITS)
    assert (frame.width, frame.height) == (80, 40)
    assert frame.rgb[0] > 200 > frame.rgb[1] + 100


def test_a_broken_checksum_is_corrupt() -> None:
    data = bytearray(encoded(quarters(), "PNG"))
    data[29] ^= 0xFF
    assert refused(bytes(data)) is CORRUPT


def test_a_large_image_within_the_limits_stays_within_the_memory_announced() -> None:
    """16 bytes a pixel is what the gate counts with for a PNG with transparency."""
    image = noise(2000, 2000).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 128))
    data = encoded(image, compress_level=1)
    del image
    with cheap(10, 4_000_000 * 16 // 1024):
        decode(data, DecodeLimits(max_pixels=4_000_000, max_frames=4))
