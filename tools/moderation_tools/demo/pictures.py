"""The pictures of the demonstration, drawn anew each time from fixed seeds."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from moderation_tools.training.tiny.images import draw_image

BUCKET = "demo-images"
SIZE = 160


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _gif(images: list[Image.Image]) -> bytes:
    buffer = BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=200, loop=0)
    return buffer.getvalue()


def _draw() -> dict[str, bytes]:
    circle = draw_image(None, ["circle"], seed=1, size=SIZE)
    pistol = draw_image("pistol", [], seed=2, size=SIZE)
    return {
        "shapes.png": _png(draw_image(None, ["square", "star"], seed=3, size=SIZE)),
        "circle.png": _png(circle),
        "star.png": _png(draw_image(None, ["star"], seed=4, size=SIZE)),
        "pistol.png": _png(pistol),
        "skull.png": _png(draw_image("skull", [], seed=5, size=SIZE)),
        "pill.png": _png(draw_image("pill", ["ring"], seed=6, size=SIZE)),
        "broken.png": _png(circle)[:200],
        "animation.gif": _gif([circle, pistol, circle]),
    }


PICTURES = _draw()
"""Encoded pictures by object key."""


def write_pictures(root: Path) -> None:
    """Lay the pictures out as the directory store reads them: ``root/bucket/key``."""
    bucket = root / BUCKET
    bucket.mkdir(parents=True, exist_ok=True)
    for name, content in PICTURES.items():
        (bucket / name).write_bytes(content)
