"""The shapes and symbols, each drawn white on black into a square mask of ``side`` pixels."""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL.ImageDraw import ImageDraw

Glyph = Callable[[ImageDraw, int], None]


def _points(side: int, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * side, y * side) for x, y in points]


def _box(side: int, left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left * side, top * side, right * side, bottom * side]


def _circle(draw: ImageDraw, side: int) -> None:
    draw.ellipse(_box(side, 0.1, 0.1, 0.9, 0.9), fill=255)


def _square(draw: ImageDraw, side: int) -> None:
    draw.rectangle(_box(side, 0.14, 0.14, 0.86, 0.86), fill=255)


def _triangle(draw: ImageDraw, side: int) -> None:
    draw.polygon(_points(side, [(0.5, 0.08), (0.92, 0.88), (0.08, 0.88)]), fill=255)


def _star(draw: ImageDraw, side: int) -> None:
    draw.polygon(_rays(side, 5, 0.46, 0.19), fill=255)


def _ring(draw: ImageDraw, side: int) -> None:
    draw.ellipse(_box(side, 0.1, 0.1, 0.9, 0.9), outline=255, width=max(2, round(0.16 * side)))


def _stripe(draw: ImageDraw, side: int) -> None:
    draw.rectangle(_box(side, 0.05, 0.38, 0.95, 0.62), fill=255)


def _cross(draw: ImageDraw, side: int) -> None:
    draw.rectangle(_box(side, 0.38, 0.08, 0.62, 0.92), fill=255)
    draw.rectangle(_box(side, 0.08, 0.38, 0.92, 0.62), fill=255)


def _pistol(draw: ImageDraw, side: int) -> None:
    draw.rectangle(_box(side, 0.05, 0.2, 0.95, 0.42), fill=255)
    draw.polygon(_points(side, [(0.08, 0.42), (0.36, 0.42), (0.28, 0.9), (0.04, 0.9)]), fill=255)
    draw.arc(_box(side, 0.3, 0.34, 0.58, 0.64), 0, 180, fill=255, width=max(1, round(0.06 * side)))


def _skull(draw: ImageDraw, side: int) -> None:
    draw.ellipse(_box(side, 0.12, 0.05, 0.88, 0.7), fill=255)
    draw.rectangle(_box(side, 0.3, 0.6, 0.7, 0.92), fill=255)
    for left in (0.24, 0.56):
        draw.ellipse(_box(side, left, 0.26, left + 0.2, 0.5), fill=0)
    for left in (0.39, 0.54):
        draw.rectangle(_box(side, left, 0.74, left + 0.06, 0.92), fill=0)


def _pill(draw: ImageDraw, side: int) -> None:
    draw.rounded_rectangle(_box(side, 0.04, 0.3, 0.96, 0.7), radius=0.2 * side, fill=255)
    draw.rectangle(_box(side, 0.46, 0.3, 0.54, 0.7), fill=0)
    draw.rounded_rectangle(_box(side, 0.6, 0.42, 0.88, 0.58), radius=0.08 * side, fill=0)


def _fireworks(draw: ImageDraw, side: int) -> None:
    for step in range(10):
        turn = 2 * math.pi * step / 10
        inner, outer = 0.14 * side, 0.46 * side
        x, y = math.cos(turn), math.sin(turn)
        ends = [
            (side / 2 + inner * x, side / 2 + inner * y),
            (side / 2 + outer * x, side / 2 + outer * y),
        ]
        draw.line(ends, fill=255, width=max(2, round(0.06 * side)))


def _worm(draw: ImageDraw, side: int) -> None:
    width = max(3, round(0.15 * side))
    draw.arc(_box(side, 0.04, 0.3, 0.42, 0.74), 180, 360, fill=255, width=width)
    draw.arc(_box(side, 0.28, 0.3, 0.66, 0.74), 0, 180, fill=255, width=width)
    draw.arc(_box(side, 0.52, 0.3, 0.9, 0.74), 180, 360, fill=255, width=width)
    draw.ellipse(_box(side, 0.72, 0.46, 0.98, 0.72), fill=255)


def _rays(side: int, count: int, outer: float, inner: float) -> list[tuple[float, float]]:
    points = []
    for step in range(2 * count):
        radius = outer if step % 2 == 0 else inner
        turn = math.pi * step / count - math.pi / 2
        points.append((0.5 + radius * math.cos(turn), 0.5 + radius * math.sin(turn)))
    return _points(side, points)


GLYPHS: dict[str, Glyph] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "stripe": _stripe,
    "cross": _cross,
    "pistol": _pistol,
    "skull": _skull,
    "pill": _pill,
    "fireworks": _fireworks,
    "worm": _worm,
}
"""Every thing that can be drawn: ``lexicon.SHAPES`` and the keys of ``lexicon.SYMBOLS``."""
