"""Good images: what the judge sees is what a person would see."""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.image_corpus import with_app1, xmp
from tests.support.images import encoded, noise, pixel, plain, png_chunk, quarters, shown
from worker.media.decode import DecodeLimits, decode
from worker.media.views import MODEL_SIDE, STILL_SIDE, bounded

# As the module does for itself, which pytest's own filters undo.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\.")

LIMITS = DecodeLimits(max_pixels=40_000_000, max_frames=4)
WHOLE = DecodeLimits(max_pixels=40_000_000, max_frames=4, tile_side=0)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def near(seen: tuple[int, int, int], wanted: tuple[int, int, int], by: int = 12) -> bool:
    return all(abs(a - b) <= by for a, b in zip(seen, wanted, strict=True))


def corners(data: bytes) -> list[tuple[int, int, int]]:
    """Colours at top left, top right, bottom left, bottom right."""
    frame = decode(data, LIMITS)[0]
    return [pixel(frame, x, y) for y in (0.25, 0.75) for x in (0.25, 0.75)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("GIF", {}),
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_every_allowed_format_shows_its_picture(kind: str, options: dict[str, Any]) -> None:
    data = encoded(quarters(), kind, **options)
    (frame,) = decode(data, LIMITS)
    assert (frame.width, frame.height) == (80, 40)
    assert len(frame.rgb) == 80 * 40 * 3
    assert frame.sha256 == hashlib.sha256(data).hexdigest()
    seen = corners(data)
    pairs = zip(seen, (RED, GREEN, BLUE, WHITE), strict=True)
    assert all(near(colour, wanted, 30) for colour, wanted in pairs)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_every_png_mode_shows_light_and_dark_where_they_are(mode: str) -> None:
    """16-bit samples too, which Pillow's own conversion turns white from 1/256 upwards."""
    ramp = np.tile(np.linspace(0, 1, 64), (16, 1))
    if mode == "I;16":
        image = Image.fromarray((ramp * 65_535).astype(np.uint16))
    else:
        image = Image.fromarray((ramp * 255).astype(np.uint8)).convert(mode)
    (frame,) = decode(encoded(image), LIMITS)
    seen = np.asarray(shown(frame))
    assert seen[:, :8].mean() < 60
    assert seen[:, -8:].mean() > 195
    assert 90 < seen.mean() < 165


def test_a_cmyk_jpeg_shows_its_colours() -> None:
    frame = decode(encoded(plain().convert("CMYK"), "JPEG"), LIMITS)[0]
    assert near(pixel(frame, 0.5, 0.5), (200, 30, 40), 30)


STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_an_image_is_turned_upright_as_its_exif_says(kind: str, turn: int) -> None:
    """What is judged upside down is not what a person sees."""
    undo = STORED[turn]
    stored = quarters() if undo is None else quarters().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = turn
    seen = corners(encoded(stored, kind, exif=exif, **({} if kind == "PNG" else {"quality": 95})))
    pairs = zip(seen, (RED, GREEN, BLUE, WHITE), strict=True)
    assert all(near(colour, wanted, 40) for colour, wanted in pairs), seen


@pytest.mark.parametrize("turn", range(2, 9))
def test_a_webp_with_an_orientation_is_judged_both_ways(turn: int) -> None:
    """Browsers show it as it lies, other viewers turn it."""
    undo = STORED[turn]
    assert undo is not None
    lying = quarters().transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = turn
    as_it_lies, turned = decode(encoded(lying, "WEBP", exif=exif, lossless=True), LIMITS)
    assert as_it_lies.rgb == lying.tobytes()
    assert turned.rgb == quarters().tobytes()
    assert turned.sha256 == as_it_lies.sha256 + "@turned"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_in_xmp_alone_is_not_followed(kind: str) -> None:
    """No viewer turns the picture, so harm turned by it would be judged as nobody sees it."""
    packet = xmp(3)
    if kind == "JPEG":
        data = with_app1(
            encoded(quarters(), "JPEG", quality=95), b"http://ns.adobe.com/xap/1.0/\0" + packet
        )
    elif kind == "WEBP":
        data = encoded(quarters(), "WEBP", lossless=True, xmp=packet)
    else:
        plain_file = encoded(quarters())
        chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
        data = plain_file[:33] + chunk + plain_file[33:]
    pairs = zip(corners(data), (RED, GREEN, BLUE, WHITE), strict=True)
    assert all(near(colour, wanted, 40) for colour, wanted in pairs)


def test_broken_exif_does_not_cost_the_picture() -> None:
    data = encoded(quarters(), "JPEG", quality=95, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert near(corners(data)[0], RED, 30)


def test_metadata_does_not_reach_the_judge() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a secret description"
    (frame,) = decode(encoded(plain(), "JPEG", exif=exif, comment=b"a secret comment"), LIMITS)
    assert b"secret" not in frame.rgb
    assert len(frame.rgb) == frame.width * frame.height * 3


def test_a_photo_is_reduced_to_twice_the_models_side_and_keeps_its_shape() -> None:
    for kind in ("JPEG", "PNG"):
        (frame,) = decode(encoded(quarters(4032, 3024), kind), WHOLE)
        assert (frame.width, frame.height) == (STILL_SIDE, STILL_SIDE * 3 // 4)
        assert near(pixel(frame, 0.25, 0.25), RED)
        assert near(pixel(frame, 0.75, 0.25), GREEN)


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((10, 10), (10, 10)),
        ((1792, 1792), (1792, 1792)),
        ((3584, 1792), (1792, 896)),
        ((20_000, 400), (1792, 400)),
        ((300, 30_000), (300, 1792)),
        ((6_000, 1_000), (1792, 896)),
    ],
)
def test_no_axis_is_reduced_below_what_the_model_would_see(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert bounded(*size, STILL_SIDE) == wanted


def test_reduced_decoding_of_a_large_jpeg_shows_what_full_decoding_shows() -> None:
    small = noise(24, 18, seed=3)
    data = encoded(small.resize((4800, 3600), Image.Resampling.BICUBIC), "JPEG", quality=92)
    (frame,) = decode(data, WHOLE)
    with Image.open(BytesIO(data)) as full:
        reference = full.convert("RGB").resize((896, 896), Image.Resampling.BILINEAR)
    seen = shown(frame).resize((896, 896), Image.Resampling.BILINEAR)
    difference = np.abs(np.asarray(seen, dtype=int) - np.asarray(reference, dtype=int))
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.999) < 16


def test_decoding_is_deterministic() -> None:
    data = encoded(noise(2000, 1500), "JPEG")
    assert decode(data, LIMITS) == decode(data, LIMITS)


def test_no_image_decodes_to_more_than_the_limits_say() -> None:
    for image in (noise(3000, 3000), noise(2500, 2500).convert("RGBA")):
        if image.mode == "RGBA":
            image.putalpha(Image.new("L", image.size, 120))
        frames = decode(encoded(image), LIMITS)
        assert sum(len(frame.rgb) for frame in frames) <= LIMITS.frame_bytes()
        assert all(max(frame.width, frame.height) <= STILL_SIDE for frame in frames)


def test_white_on_transparent_is_seen() -> None:
    """Laid over white it is gone; laid over black it is there. Both are judged."""
    image = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (40, 40, 60, 60))
    over_white, over_black = decode(encoded(image), LIMITS)
    assert np.asarray(shown(over_white)).min() == 255
    assert pixel(over_black, 0.5, 0.5) == WHITE
    assert pixel(over_black, 0.1, 0.1) == (0, 0, 0)
    assert over_black.sha256 == over_white.sha256 + "@black"


def test_a_picture_that_changes_with_the_background_is_seen_both_ways() -> None:
    """Alpha and grey chosen so that one picture shows over white and another over black."""
    on_white, on_black = np.full((64, 64), 250.0), np.zeros((64, 64))
    on_white[:, 32:] = 160.0
    on_black[32:, :] = 150.0
    alpha = 255.0 - (on_white - on_black)
    grey = np.divide(on_black * 255.0, alpha, where=alpha > 0, out=np.zeros_like(alpha))
    stacked = np.stack([grey.clip(0, 255), alpha.clip(0, 255)], axis=-1).round().astype(np.uint8)
    first, second = decode(encoded(Image.fromarray(stacked, "LA")), LIMITS)
    assert np.abs(np.asarray(shown(first))[..., 0] - on_white).max() <= 3
    assert np.abs(np.asarray(shown(second))[..., 0] - on_black).max() <= 3


def test_colour_under_full_transparency_is_not_shown() -> None:
    image = Image.new("RGBA", (50, 50), (255, 0, 0, 0))
    over_white, over_black = decode(encoded(image), LIMITS)
    assert pixel(over_white, 0.5, 0.5) == WHITE
    assert pixel(over_black, 0.5, 0.5) == (0, 0, 0)


def test_a_palette_image_with_a_transparent_colour_is_flattened() -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([255, 0, 0, 255, 255, 255])
    image.paste(1, (10, 10, 30, 30))
    for kind in ("PNG", "GIF"):
        over_white, over_black = decode(encoded(image, kind, transparency=0), LIMITS)
        assert pixel(over_white, 0.02, 0.02) == WHITE
        assert pixel(over_black, 0.02, 0.02) == (0, 0, 0)
        assert pixel(over_black, 0.5, 0.5) == WHITE


def test_an_opaque_alpha_channel_and_rounded_corners_cost_one_frame() -> None:
    opaque = plain(200, 200).convert("RGBA")
    assert len(decode(encoded(opaque), LIMITS)) == 1
    opaque.putpixel((0, 0), (0, 0, 0, 0))
    assert len(decode(encoded(opaque), LIMITS)) == 1


def test_the_models_side_is_the_models() -> None:
    assert (MODEL_SIDE, STILL_SIDE) == (896, 1792)
