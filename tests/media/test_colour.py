"""Colours and transparency that browsers apply and decoders leave out."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, png_chunk, shown
from tests.support.profiles import PROFILES, SRGB, by_matrix, gamma
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.media.decode import DecodeLimits, decode

LIMITS = DecodeLimits(max_pixels=1_000_000, max_frames=4)


def png_of(kind: int, depth: int, rows: list[list[int]], *before: bytes) -> bytes:
    """A PNG of raw samples, one list a row."""
    packed = bytearray()
    for row in rows:
        bits = "".join(format(sample, f"0{depth}b") for sample in row)
        bits += "0" * (-len(bits) % 8)
        packed += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    channels = {0: 1, 2: 3}[kind]
    header = struct.pack(">IIBBBBB", len(rows[0]) // channels, len(rows), depth, kind, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), *before, png_chunk(b"IDAT", zlib.compress(packed))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, png_chunk(b"IEND", b"")])


def grey_levels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The first view's red channel."""
    return np.asarray(shown(decode(data, LIMITS)[0]))[..., 0]


@pytest.mark.parametrize(
    ("kind", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)]
)
def test_a_dark_shape_on_the_key_colour_is_seen_on_light_ground(kind: int, depth: int) -> None:
    """The key colour is nearly the shape's: read without it, black lies on black."""
    channels = 1 if kind == 0 else 3
    key, shape = (1, 0) if depth > 1 else (0, 1)
    rows = [[key] * (8 * channels) for _ in range(8)]
    for row in rows[2:6]:
        row[2 * channels : 6 * channels] = [shape] * (4 * channels)
    chunk = png_chunk(b"tRNS", struct.pack(">H", key) * channels)
    on_white, on_black = decode(png_of(kind, depth, rows, chunk), LIMITS)
    light = np.asarray(shown(on_white))[..., 0].astype(int)
    dark = np.asarray(shown(on_black))[..., 0].astype(int)
    assert light[0, 0] == 255
    assert dark[0, 0] == 0
    if depth > 1:
        assert light[4, 4] <= 16
    else:
        assert light[4, 4] == dark[4, 4] == 255


def test_a_gamma_chunk_that_shows_a_second_picture_is_applied() -> None:
    """The prank: dots of another picture, which the chunk brightens and its absence drowns."""
    faint = [[sample for x in range(32) for sample in [30 if 8 <= x < 24 else 0] * 3]] * 32
    plain, pranked = png_of(2, 8, faint), png_of(2, 8, faint, png_chunk(b"gAMA", b"\0\x0fB@"))
    assert grey_levels(plain).max() == 30
    assert grey_levels(pranked).max() > 150


def test_a_usual_gamma_changes_nothing() -> None:
    """Most PNGs in the wild say 1/2.2, which is a monitor's own."""
    rows = [[sample for x in range(32) for sample in [8 * x] * 3]] * 4
    chunk = png_chunk(b"gAMA", struct.pack(">I", 45_455))
    assert (
        decode(png_of(2, 8, rows, chunk), LIMITS)[0].rgb
        == decode(png_of(2, 8, rows), LIMITS)[0].rgb
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_profile_whose_curve_turns_light_to_dark_is_applied(kind: str) -> None:
    """A browser shows the negative of what the samples say."""
    choices: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
    options = choices.get(kind, {})
    image = Image.new("RGB", (32, 32), (250, 250, 250))
    data = encoded(image, kind, icc_profile=PROFILES["inverted"], **options)
    assert grey_levels(data).max() < 40


def test_the_profile_of_a_phone_is_applied() -> None:
    """Display P3, which every picture of some phones has: its red is a brighter one."""
    image = Image.new("RGB", (16, 16), (200, 60, 60))
    (frame,) = decode(encoded(image, icc_profile=PROFILES["P3"]), LIMITS)
    assert frame.rgb[0] > 212
    assert frame.rgb[1] < 56


@pytest.mark.parametrize("name", ["cut", "no signature", "version 5", "grey", "CMYK table"])
def test_a_profile_that_browsers_do_not_use_changes_nothing(name: str) -> None:
    """Applied where a browser leaves it out, it would hide what a person sees."""
    image = Image.new("RGB", (16, 16), (200, 60, 60))
    assert decode(encoded(image, icc_profile=PROFILES[name]), LIMITS)[0].rgb == image.tobytes()


def test_what_cannot_be_followed_is_undecided() -> None:
    """A colour space of its own (cICP) that browsers map in ways of their own."""
    rows = [[1, 2, 3] * 4] * 4
    with pytest.raises(Undecided) as error:
        decode(png_of(2, 8, rows, png_chunk(b"cICP", b"\x09\x10\0\1")), LIMITS)
    assert error.value.reason is UndecidedReason.IMAGE_RENDERING


def test_an_odd_curve_is_followed_exactly_and_not_as_the_library_rounds_it() -> None:
    """A matrix far out of range: the library clamps, browsers do not."""
    profile = by_matrix(SRGB * np.array([[20.0, 1.0, 1.0]]), gamma(1.0))
    image = Image.new("RGB", (16, 16), (128, 128, 128))
    (frame,) = decode(encoded(image, icc_profile=profile), LIMITS)
    assert frame.rgb[0] == 255
    assert abs(frame.rgb[1] - 188) <= 3
