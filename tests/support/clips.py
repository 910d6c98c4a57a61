"""Harmless animations of the kinds that people send, each made from its kind and a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 320, 240
Picture = Image.Image


class Clip(NamedTuple):
    """Frames and for how long each is shown (ms)."""

    frames: Sequence[Picture]
    ms: Sequence[int]


def texture(rng: Random, width: int, height: int) -> Picture:
    """A picture with the detail of a photograph: noise of falling strength at every scale."""
    generator = np.random.default_rng(rng.getrandbits(32))
    total = np.zeros((height, width, 3))
    for cells, strength in ((4, 70), (8, 50), (16, 35), (32, 25), (64, 15)):
        down, across = (max(2, side * cells // max(width, height)) for side in (height, width))
        small = generator.normal(0, 1, (down, across, 3))
        small = small * 0.4 + small.mean(axis=-1, keepdims=True) * 0.6
        for channel in range(3):
            layer = Image.fromarray(small[..., channel].astype(np.float32))
            total[..., channel] += strength * np.asarray(layer.resize((width, height), 3))
    shade = 128 + generator.normal(0, 20, 3)
    return Image.fromarray((total + shade).clip(0, 255).astype(np.uint8))


def _grain(rng: Random, picture: Picture) -> Picture:
    pixels = np.asarray(picture).astype(int)
    generator = np.random.default_rng(rng.getrandbits(32))
    grain = generator.normal(0, 4, pixels.shape)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def _sprite(rng: Random, side: int) -> tuple[Picture, Picture]:
    mask = Image.new("L", (side, side), 0)
    ImageDraw.Draw(mask).ellipse((2, 2, side - 3, side - 3), fill=255)
    return texture(rng, side, side), mask


def _shots(rng: Random, count: int, shots: int, sway: int) -> Clip:
    """Things that move in front of a scene, the camera swaying."""
    frames = []
    for _ in range(shots):
        scene = texture(rng, WIDTH + 80, HEIGHT + 60)
        things = [
            (
                _sprite(rng, rng.randint(40, 120)),
                (rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)),
                (rng.uniform(-5, 5), rng.uniform(-4, 4)),
            )
            for _ in range(rng.randint(1, 4))
        ]
        for index in range(count // shots):
            left = 40 + int(sway * math.sin(index / 9))
            top = 30 + int(sway / 2 * math.sin(index / 13))
            frame = scene.crop((left, top, left + WIDTH, top + HEIGHT))
            for (thing, mask), (x, y), (right, down) in things:
                frame.paste(thing, (int(x + right * index) - 40, int(y + down * index) - 40), mask)
            frames.append(_grain(rng, frame))
    return Clip(frames, [rng.choice((30, 40, 60, 80, 100))] * len(frames))


def _pan(rng: Random) -> Clip:
    scene, count = texture(rng, 2 * WIDTH, HEIGHT), rng.choice((20, 40, 60))
    lefts = [index * WIDTH // count for index in range(count)]
    return Clip([scene.crop((left, 0, left + WIDTH, HEIGHT)) for left in lefts], [60] * count)


def _zoom(rng: Random) -> Clip:
    scene, count = texture(rng, 2 * WIDTH, 2 * HEIGHT), rng.choice((20, 40))
    frames = []
    for index in range(count):
        share = 1 - 0.6 * index / count
        wide, high = int(2 * WIDTH * share), int(2 * HEIGHT * share)
        left, top = WIDTH - wide // 2, HEIGHT - high // 2
        frames.append(scene.crop((left, top, left + wide, top + high)).resize((WIDTH, HEIGHT)))
    return Clip(frames, [60] * count)


def _typing(rng: Random) -> Clip:
    page = Image.new("RGB", (WIDTH, HEIGHT), (250, 250, 250))
    pen, x, y, count = ImageDraw.Draw(page), 8, 30, rng.choice((20, 40, 80))
    pen.rectangle((0, 0, WIDTH, 20), fill=(60, 80, 120))
    frames = []
    for index in range(count):
        for _ in range(2):
            pen.text((x, y), rng.choice("abcdefghijklmnop"), fill=(20, 20, 20))
            x, y = (x + 7, y) if x < WIDTH - 20 else (8, y + 14)
        frame = page.copy()
        if index % 2:
            ImageDraw.Draw(frame).rectangle((x, y, x + 5, y + 11), fill=(0, 0, 0))
        frames.append(frame)
    return Clip(frames, [rng.choice((100, 150, 200))] * count)


def _scroll(rng: Random) -> Clip:
    page, count = Image.new("RGB", (WIDTH, 3 * HEIGHT), "white"), rng.choice((30, 60))
    pen = ImageDraw.Draw(page)
    for y in range(5, 3 * HEIGHT, 14):
        line = "".join(rng.choice("abcdefg hijkl mnop") for _ in range(48))
        pen.text((8, y), line, fill=(30, 30, 30))
    for _ in range(4):
        at = rng.randint(0, 200), rng.randint(0, 3 * HEIGHT - 80)
        page.paste(texture(rng, 100, 70), at)
    tops = [2 * HEIGHT * index // count for index in range(count)]
    return Clip([page.crop((0, top, WIDTH, top + HEIGHT)) for top in tops], [60] * count)


def _dithered(rng: Random) -> Clip:
    clip = _shots(rng, rng.choice((15, 30, 45)), 1, 0)
    return Clip([frame.quantize(32).convert("RGB") for frame in clip.frames], clip.ms)


def _fade(rng: Random) -> Clip:
    first, last = texture(rng, WIDTH, HEIGHT), texture(rng, WIDTH, HEIGHT)
    count = rng.choice((10, 20))
    shares = [index / (count - 1) for index in range(count)]
    return Clip([Image.blend(first, last, share) for share in shares], [50] * count)


def _slides(rng: Random) -> Clip:
    count = rng.choice((3, 5, 8))
    return Clip([texture(rng, WIDTH, HEIGHT) for _ in range(count)], [2_000] * count)


def _sticker(rng: Random) -> Clip:
    thing, mask = _sprite(rng, 100)
    thing.putalpha(mask)
    frames = []
    for index in range(rng.choice((12, 24))):
        frame = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
        turned = thing.rotate(15 * math.sin(index / 3), resample=Image.Resampling.BILINEAR)
        frame.paste(turned, (110 + int(20 * math.sin(index / 4)), 70))
        frames.append(frame)
    return Clip(frames, [50] * len(frames))


def _spinning(rng: Random) -> Clip:
    (thing, mask), scene = _sprite(rng, 180), texture(rng, WIDTH, HEIGHT)
    count, frames = rng.choice((12, 24)), []
    for index in range(count):
        frame = scene.copy()
        frame.paste(thing.rotate(360 * index / count), (70, 30), mask)
        frames.append(frame)
    return Clip(frames, [60] * count)


def _talking(rng: Random) -> Clip:
    scene, frames = texture(rng, WIDTH, HEIGHT), []
    for index in range(rng.choice((20, 40, 60))):
        frame = scene.copy()
        pen, x, y = ImageDraw.Draw(frame), 160 + int(6 * math.sin(index / 5)), 110
        pen.ellipse((x - 55, y - 70, x + 55, y + 70), fill=(220, 180, 150))
        mouth = int(10 + 9 * math.sin(index * 1.7)) // 2
        pen.ellipse((x - 20, y + 28 - mouth, x + 20, y + 28 + mouth), fill=(120, 30, 40))
        for side in (-22, 22):
            lid = 1 if index % 15 == 0 else 6
            eye = (x + side - 8, y - 20 - lid, x + side + 8, y - 20 + lid)
            pen.ellipse(eye, fill=(30, 30, 60))
        frames.append(_grain(rng, frame))
    return Clip(frames, [70] * len(frames))


_KINDS: Mapping[str, Callable[[Random], Clip]] = {
    "clip": lambda rng: _shots(rng, rng.choice((20, 40, 60)), 1, 30),
    "still camera": lambda rng: _shots(rng, rng.choice((20, 40, 60)), 1, 0),
    "cuts": lambda rng: _shots(rng, rng.choice((40, 60)), rng.choice((2, 3, 4)), 30),
    "pan": _pan,
    "zoom": _zoom,
    "typing": _typing,
    "scrolling": _scroll,
    "dithered": _dithered,
    "fade": _fade,
    "slides": _slides,
    "sticker": _sticker,
    "spinning": _spinning,
    "talking": _talking,
}
KINDS = tuple(_KINDS)


def harmless(kind: str, number: int) -> Clip:
    """Animation ``number`` of a kind."""
    return _KINDS[kind](Random(f"clip {kind} {number}"))
