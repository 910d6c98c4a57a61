"""Which views of an image are judged: its moments, whole and in tiles, on light and dark ground.

A view is one picture for the model, which squashes it to 896 x 896. What is worth judging is found
by looking at every frame cheaply: frames that look alike are one moment. Views are put in order,
what is shown longest first and whole pictures before their tiles, and the first ``max_frames`` of
them are made; how many there would have been is kept, for what was not judged was not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MODEL_SIDE: Final = 896
"""The model squashes every image to 896 x 896, each axis by itself (nvidia/Nemotron-3.5-Content-
Safety, preprocessor_config.json)."""
STILL_SIDE: Final = 2 * MODEL_SIDE
"""Longest side of a still image: twice what the model takes, so that its own resampling decides."""
TILE_FROM: Final = 2.5
"""A picture is also judged in tiles where the whole has more than this many pixels for one of the
model's, along either axis."""
TILE_SIDE: Final = 1_600
"""Longest side of a tile."""
TILE_ASPECT: Final = 1.6
"""Longest side of a tile over its shortest: beyond it the model's squashing makes thin what is on
it, which is what a tile is to prevent."""
TILE_OVERLAP: Final = 0.12
"""Share of a tile that the next one shows again, so that no border cuts through what is smaller."""
OPAQUE: Final = 250
"""Alpha from which a pixel counts as opaque."""
TRANSPARENT_SHARE: Final = 0.001
"""Share of transparent pixels up to which an image counts as opaque (rounded corners)."""
WHITE: Final = (255, 255, 255)
BLACK: Final = (0, 0, 0)

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""


def bounded(width: int, height: int, side: int) -> tuple[int, int]:
    """The size to which a picture is reduced so that no side is longer than ``side`` pixels.

    The shape is kept as long as that leaves each axis the model's resolution. Beyond, the short
    axis is not reduced with the long one: a banner of 20,000 x 400 keeps its 400 rows, which the
    model would have seen too.
    """
    scale = min(1.0, side / max(width, height))
    return (
        max(round(width * scale), min(width, MODEL_SIDE)),
        max(round(height * scale), min(height, MODEL_SIDE)),
    )


# Grounds


def has_transparency(picture: Image.Image) -> bool:
    """Whether so much of an RGBA picture is transparent that the ground under it matters."""
    if picture.mode != "RGBA":
        return False
    transparent = sum(picture.getchannel("A").histogram()[:OPAQUE])
    return transparent > TRANSPARENT_SHARE * picture.width * picture.height


def laid_over(picture: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    """The picture in RGB over a page of one colour.

    White on transparent is invisible over white and black over black, and a picture can be made to
    show one thing on a light page and another on a dark one. Any pixel differs from at least one
    of the two, so what could be seen on some ground is on white or on black: both are judged.
    """
    if picture.mode != "RGBA":
        return picture
    canvas = Image.new("RGB", picture.size, ground)
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas


# Tiles


def tiles(width: int, height: int) -> list[Box]:
    """The parts in which a large or long picture is judged beside the whole; none of a small one.

    The field's way (pan and scan of Gemma 3) cuts along the longer side only and at most four
    times; here the parts are as many as it takes to show the model what a person sees.
    """
    if max(width, height) <= TILE_FROM * MODEL_SIDE and not _long(width, height):
        return []
    across, down = _edge(width, height), _edge(height, width)
    return [
        (left, top, left + across, top + down)
        for top in _steps(height, down)
        for left in _steps(width, across)
    ]


def _long(width: int, height: int) -> bool:
    short, long = sorted((width, height))
    return long > MODEL_SIDE and long / short > 2 * TILE_ASPECT


def _edge(side: int, other: int) -> int:
    """Length of a tile along an axis of ``side`` pixels, ``other`` being the other axis."""
    most = min(TILE_SIDE, round(TILE_ASPECT * max(min(other, TILE_SIDE), 64)))
    if side <= most:
        return side
    count = 1 + -(-(side - most) // round(most * (1 - TILE_OVERLAP)))
    return min(side, round(side / (1 + (count - 1) * (1 - TILE_OVERLAP))) + 1)


def _steps(side: int, edge: int) -> list[int]:
    """Where tiles of ``edge`` begin so that they cover ``side`` evenly, overlapping."""
    if edge >= side:
        return [0]
    count = 1 + -(-(side - edge) // max(1, round(edge * (1 - TILE_OVERLAP))))
    return [round(index * (side - edge) / (count - 1)) for index in range(count)]


# Moments

FINE: Final = 64
COARSE: Final = 32
Looks = NDArray[np.int16]
"""A frame seen from afar: FINE x FINE x 4, colour times alpha, and alpha; 0 to 255."""


class Moment(NamedTuple):
    """Frames that look alike: one of them, and for how long they are shown together (ms)."""

    frame: int
    ms: int


_ALIKE: Final = 16
"""Levels of 255 by which a cell may change and still look the same."""
_CELLS: Final = 2
"""Cells of FINE x FINE that may change more than that in frames that look the same."""
_MOVED: Final = 24
"""As ``_ALIKE``, between a moving picture and where it came from."""
_REACH: Final = 3
"""Cells of COARSE x COARSE by which things move between moments, each way."""
STANDS_MS: Final = 500
"""A frame that stands this long is looked at for itself, and is never taken for mere motion."""
MAX_COMPARED: Final = 4_000
"""Comparisons for motion of one animation (about a millisecond each); beyond, all is distinct."""


def seen_from_afar(picture: Image.Image) -> Looks:
    """What an RGBA picture looks like from afar, transparency included."""
    small = picture.convert("RGBa").resize((FINE, FINE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small, dtype=np.int16)


def _differ(first: Looks, second: Looks, by: int) -> NDArray[np.bool_]:
    """Cells that look different on a light or on a dark ground."""
    change = first - second
    on_black = np.abs(change[..., :3]).max(axis=-1)
    on_white = np.abs(change[..., :3] - change[..., 3:]).max(axis=-1)
    return np.maximum(on_black, on_white) > by


def alike(first: Looks, second: Looks) -> bool:
    """Whether two frames show the same, as far as anybody would notice."""
    return int(_differ(first, second, _ALIKE).sum()) <= _CELLS


def moments(looks: Sequence[Looks], shown_ms: Sequence[int]) -> list[Moment]:
    """The distinct moments of an animation, those shown longest first.

    Frames that look the same are one picture, however far apart. Of pictures, each that stands is a
    moment; one that is only passed through on the way (a pan, a clip, a fade) is none where the
    moments before and after it show all that is on it, a little moved. Deterministic.
    """
    leaders, member = _grouped(looks)
    shown = np.bincount(member, weights=shown_ms, minlength=len(leaders)).astype(int)
    longest = np.zeros(len(leaders), dtype=int)
    np.maximum.at(longest, member, np.asarray(shown_ms, dtype=int))
    order = sorted(range(len(leaders)), key=lambda group: _priority(group, shown, leaders))
    motion = _Motion(looks)
    chosen: list[int] = []
    for group in order:
        frame = leaders[group]
        if longest[group] >= STANDS_MS or not motion.passed_through(frame, chosen):
            chosen.append(frame)
    ms = {leaders[group]: int(shown[group]) for group in order}
    return [Moment(frame, ms[frame]) for frame in chosen]


def _grouped(looks: Sequence[Looks]) -> tuple[list[int], list[int]]:
    """First frame of each group of frames that look the same, and each frame's group."""
    leaders: list[int] = []
    member: list[int] = []
    known = np.empty((0, FINE, FINE, 4), np.int16)
    for index, look in enumerate(looks):
        if member and alike(look, looks[leaders[member[-1]]]):
            member.append(member[-1])
            continue
        # Most groups are told apart by a sixteenth of their cells.
        near = np.flatnonzero(
            (np.abs(known[: len(leaders), ::8, ::8] - look[::8, ::8]) > _ALIKE)
            .any(axis=-1)
            .sum(axis=(1, 2))
            <= _CELLS
        )
        group = next((int(each) for each in near if alike(look, known[each])), None)
        if group is None:
            group = len(leaders)
            leaders.append(index)
            if group >= len(known):
                grown = np.empty((max(16, 2 * len(known)), FINE, FINE, 4), np.int16)
                grown[: len(known)] = known
                known = grown
            known[group] = look
        member.append(group)
    return leaders, member


def _priority(group: int, shown: NDArray[np.int_], leaders: Sequence[int]) -> tuple[int, int, int]:
    """Longest first; of equals the first, the last, then halves, quarters and so on.

    So that of a long even run those between are looked at when their neighbours already were.
    """
    at, last = leaders[group], leaders[-1]
    if at in (leaders[0], last):
        level = -1
    else:
        place = len(leaders) - 1 - group if group else 0
        level = 64 - (place & -place).bit_length() if place else 64
    return (-int(shown[group]), level, at)


class _Motion:
    """Whether a frame shows anything that the moments around it do not."""

    def __init__(self, looks: Sequence[Looks]) -> None:
        self._looks = looks
        self._coarse: dict[int, Looks] = {}
        self._compared = 0

    def passed_through(self, frame: int, chosen: Sequence[int]) -> bool:
        """Nothing on ``frame`` is new beside the nearest of ``chosen`` before and after it."""
        before = max((each for each in chosen if each < frame), default=None)
        after = min((each for each in chosen if each > frame), default=None)
        unexplained = np.ones((COARSE, COARSE), dtype=bool)
        for each in (before, after):
            if each is not None:
                self._compared += 1
                if self._compared > MAX_COMPARED:
                    return False
                unexplained &= self._new(frame, each)
        # A thing is a patch; single cells and thin lines are edges of what moves.
        patch = unexplained[:-1, :-1] & unexplained[1:, :-1]
        return not (patch[:, :-1] & patch[:, 1:]).any() if patch.size else True

    def _new(self, frame: int, other: int) -> NDArray[np.bool_]:
        """Cells of ``frame`` that are nowhere near in ``other``, their surroundings included."""
        here, there = self._small(frame), self._small(other)
        reach = _REACH
        padded = np.pad(there, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        fewest = np.full((COARSE, COARSE), 255.0, dtype=np.float32)
        for down in range(2 * reach + 1):
            for across in range(2 * reach + 1):
                moved = padded[down : down + COARSE, across : across + COARSE]
                change = here - moved
                level = np.maximum(
                    np.abs(change[..., :3]).max(axis=-1),
                    np.abs(change[..., :3] - change[..., 3:]).max(axis=-1),
                ).astype(np.float32)
                around = np.pad(level, 1, mode="edge")
                rows = around[:-2] + around[1:-1] + around[2:]
                np.minimum(fewest, (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9, out=fewest)
        return fewest > _MOVED

    def _small(self, frame: int) -> Looks:
        known = self._coarse.get(frame)
        if known is None:
            step = FINE // COARSE
            look = self._looks[frame].reshape(COARSE, step, COARSE, step, 4)
            known = self._coarse[frame] = look.mean(axis=(1, 3)).astype(np.int16)
        return known
