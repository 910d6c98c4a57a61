"""Images the demonstration checkpoint can read: coloured shapes and a few harmful symbols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from moderation_tools.training.tiny.glyphs import GLYPHS
from moderation_tools.training.tiny.seeding import stream

Colour = tuple[int, int, int]
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class Placed:
    """One drawn thing; centre and size are fractions of the image's width and height."""

    name: str
    x: float
    y: float
    size: float
    angle: float
    colour: Colour


@dataclass(frozen=True)
class ImageSpec:
    """An image as a value: size in pixels, background, the things on it from back to front."""

    width: int
    height: int
    background: Colour
    things: tuple[Placed, ...]

    def draw(self) -> Image.Image:
        """The image, RGB."""
        canvas = Image.new("RGB", (self.width, self.height), self.background)
        for thing in self.things:
            box = max(8, round(thing.size * min(self.width, self.height)))
            side = box * _SUPERSAMPLING
            mask = Image.new("L", (side, side), 0)
            GLYPHS[thing.name](ImageDraw.Draw(mask), side)
            mask = mask.rotate(thing.angle, resample=Image.Resampling.BILINEAR)
            mask = mask.resize((box, box), Image.Resampling.BILINEAR)
            corner = (
                round(thing.x * self.width - box / 2),
                round(thing.y * self.height - box / 2),
            )
            canvas.paste(Image.new("RGB", (box, box), thing.colour), corner, mask)
        return canvas


def draw_image(
    symbol: str | None, shapes: Sequence[str] = (), *, seed: int = 0, size: int = 128
) -> Image.Image:
    """An image with ``symbol`` (of ``lexicon.SYMBOLS``; None for none) among harmless ``shapes``.

    Position, size, angle and colours vary with ``seed``; ``size`` is the side in pixels.
    """
    return draw_spec(stream("image", seed), symbol, shapes, size=size).draw()


def draw_spec(
    rng: Random, symbol: str | None, shapes: Sequence[str], *, size: int | None = None
) -> ImageSpec:
    """A random arrangement of ``symbol`` and at most three ``shapes`` that do not overlap."""
    side = size or rng.choice((64, 96, 128, 160))
    width, height = side, side if size else round(side * rng.uniform(0.85, 1.15))
    background = _background(rng)
    things: list[Placed] = []
    for name in ([symbol] if symbol else []) + list(shapes):
        for attempt in range(40):
            extent = rng.uniform(0.34, 0.5) * (1 - attempt / 80)
            margin = extent / 2
            x, y = rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)
            apart = all(
                max(abs(x - other.x), abs(y - other.y)) > 0.48 * (extent + other.size)
                for other in things
            )
            if apart:
                colour = _colour(rng)
                things.append(Placed(name, x, y, extent, rng.uniform(-20, 20), colour))
                break
    rng.shuffle(things)
    return ImageSpec(width, height, background, tuple(things))


def _background(rng: Random) -> Colour:
    return rng.randint(185, 255), rng.randint(185, 255), rng.randint(185, 255)


def _colour(rng: Random) -> Colour:
    """A colour clearly darker than any background."""
    while True:
        red, green, blue = rng.randrange(230), rng.randrange(200), rng.randrange(230)
        if 0.3 * red + 0.59 * green + 0.11 * blue < 115:
            return red, green, blue
