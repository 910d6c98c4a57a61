"""Images made for tests, good and hostile; nothing is loaded from disk."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from worker.images import JudgeImage


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file of ``kind`` (JPEG, PNG, GIF, WEBP)."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animated(frames: Sequence[Image.Image], kind: str, **options: Any) -> bytes:
    """The frames as an animation of ``kind`` (GIF, PNG, WEBP)."""
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture that compresses badly."""
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def plain(width: int = 64, height: int = 48, colour: Any = (200, 30, 40)) -> Image.Image:
    """One colour all over."""
    return Image.new("RGB", (width, height), colour)


def quarters(width: int = 80, height: int = 40) -> Image.Image:
    """Red, green / blue, white: a picture that shows how it was turned."""
    image = Image.new("RGB", (width, height), (255, 255, 255))
    half_width, half_height = width // 2, height // 2
    image.paste((255, 0, 0), (0, 0, half_width, half_height))
    image.paste((0, 255, 0), (half_width, 0, width, half_height))
    image.paste((0, 0, 255), (0, half_height, half_width, height))
    return image


def shown(frame: JudgeImage) -> Image.Image:
    """What the judge sees, as an image."""
    return Image.frombytes("RGB", (frame.width, frame.height), frame.rgb)


def pixel(frame: JudgeImage, x: float, y: float) -> tuple[int, int, int]:
    """Colour at a place given as shares of width and height."""
    at = (int(y * (frame.height - 1)) * frame.width + int(x * (frame.width - 1))) * 3
    red, green, blue = frame.rgb[at : at + 3]
    return red, green, blue


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, colour_type: int = 2) -> bytes:
    """A PNG of 8-bit samples from its announced size and raw chunks; nothing is checked."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    body = b"".join((png_chunk(b"IHDR", header), *chunks, png_chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body
