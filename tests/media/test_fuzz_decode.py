"""Whatever the bytes, decoding gives frames within the limits or one of three codes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.images import animated, encoded, plain, quarters
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.media.decode import DecodeLimits, decode
from worker.media.views import STILL_SIDE

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")

LIMITS = DecodeLimits(max_pixels=250_000, max_frames=3)
CODES = {
    UndecidedReason.IMAGE_FORMAT,
    UndecidedReason.IMAGE_CORRUPT,
    UndecidedReason.IMAGE_TOO_LARGE,
}


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "text"
    return exif


_MOMENTS = [quarters(24, 16), plain(24, 16), quarters(24, 16).rotate(180)]
SEEDS = [
    encoded(quarters(24, 16), "JPEG", exif=_exif()),
    encoded(quarters(24, 16), "JPEG", progressive=True),
    encoded(quarters(24, 16).convert("CMYK"), "JPEG"),
    encoded(quarters(24, 16), "PNG", exif=_exif()),
    encoded(quarters(24, 16).convert("P"), "PNG", transparency=0),
    encoded(quarters(24, 16).convert("RGBA"), "PNG"),
    encoded(quarters(24, 16), "GIF"),
    encoded(quarters(24, 16), "WEBP", exif=_exif()),
    encoded(quarters(24, 16), "WEBP", lossless=True),
    animated(_MOMENTS, "GIF", disposal=2),
    animated(_MOMENTS, "PNG"),
    animated(_MOMENTS, "WEBP"),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good image with bytes changed, cut out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        piece = draw(st.binary(max_size=6))
        end = at + draw(st.sampled_from([0, len(piece), len(piece), len(piece), 7]))
        data[at:end] = piece
    return bytes(data)


def _holds(data: bytes) -> None:
    try:
        frames = decode(data, LIMITS)
    except Undecided as error:
        assert error.reason in CODES  # noqa: PT017 - both ends are allowed
        return
    assert frames
    assert len(frames) <= 2 * LIMITS.max_frames
    assert len({frame.sha256 for frame in frames}) == len(frames)
    for frame in frames:
        assert len(frame.rgb) == frame.width * frame.height * 3 > 0
        assert max(frame.width, frame.height) <= STILL_SIDE
    assert decode(data, LIMITS) == frames


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_a_damaged_image_gives_frames_or_a_code(data: bytes) -> None:
    _holds(data)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x00\x00\x00\x00"]
    ),
    st.sampled_from([b"", b"WEBPVP8X", b"\x00\x00\x00\rIHDR", b"\xe0\x00\x10JFIF\x00"]),
    st.binary(max_size=400),
)
def test_random_bytes_behind_a_magic_give_frames_or_a_code(
    magic: bytes, start: bytes, rest: bytes
) -> None:
    _holds(magic + start + rest)
