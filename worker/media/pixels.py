"""One decoded frame made into what the judge takes: RGB, upright, opaque, of bounded size."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

MODEL_SIDE: Final = 896
"""The model squashes every image to 896 x 896, each axis by itself (nvidia/Nemotron-3.5-Content-
Safety, preprocessor_config.json)."""
STILL_SIDE: Final = 2 * MODEL_SIDE
"""Longest side of a still image: twice what the model takes, so that its own resampling decides."""
OPAQUE: Final = 250
"""Alpha from which a pixel counts as opaque."""
TRANSPARENT_SHARE: Final = 0.001
"""Share of transparent pixels up to which an image counts as opaque (rounded corners)."""
WHITE: Final = (255, 255, 255)
BLACK: Final = (0, 0, 0)

# EXIF orientation (tag 0x0112) to the turn that undoes it; 1 is upright.
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def bounded(width: int, height: int, side: int) -> tuple[int, int]:
    """The size to which a frame is reduced so that no side is longer than ``side`` pixels.

    The shape is kept as long as that leaves each axis the model's resolution. Beyond, the short
    axis is not reduced with the long one: a banner of 20,000 x 400 keeps its 400 rows, which the
    model would have seen too.
    """
    scale = min(1.0, side / max(width, height))
    return (
        max(round(width * scale), min(width, MODEL_SIDE)),
        max(round(height * scale), min(height, MODEL_SIDE)),
    )


def normalised(image: Image.Image) -> Image.Image:
    """The same picture in RGB, or in RGBA where parts of it are transparent."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit samples at 255, which turns most of them white.
        high = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(high.clip(0, 255).astype(np.uint8)).convert("RGB")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def orientation(image: Image.Image) -> Image.Transpose | None:
    """The turn that puts an image upright; None where it is upright or its EXIF is unreadable."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # hostile EXIF must not cost the picture: viewers show it as it lies
        return None


def flattened(image: Image.Image) -> list[Image.Image]:
    """An RGB or RGBA frame as opaque RGB frames: one, or two where transparency matters.

    White on transparent is invisible over white and black over black, and a picture can be made to
    show one thing on a light page and another on a dark one. Any pixel differs from at least one
    of the two, so what could be seen on some background is on white or on black: both are judged.
    """
    if image.mode != "RGBA":
        return [image]
    alpha = image.getchannel("A")
    transparent = sum(alpha.histogram()[:OPAQUE])
    over_white = _over(image, alpha, WHITE)
    if transparent <= TRANSPARENT_SHARE * image.width * image.height:
        return [over_white]
    return [over_white, _over(image, alpha, BLACK)]


def _over(image: Image.Image, alpha: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    canvas = Image.new("RGB", image.size, background)
    canvas.paste(image, mask=alpha)
    return canvas
