"""Which views of an image are judged: its moments, whole and in tiles, on light and dark ground.

A view is one picture for the model, which squashes it to 896 x 896. What is worth judging is found
by looking at every frame cheaply: frames that look alike are one moment. Views are put in order,
what is shown longest first and whole pictures before their tiles, and the first ``max_frames`` of
them are made; how many there would have been is kept, for what was not judged was not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

MODEL_SIDE: Final = 896
"""The model squashes every image to 896 x 896, each axis by itself (nvidia/Nemotron-3.5-Content-
Safety, preprocessor_config.json)."""
STILL_SIDE: Final = 2 * MODEL_SIDE
"""Longest side of a still image: twice what the model takes, so that its own resampling decides."""
TILE_FROM: Final = 1.4
"""A picture whose sides are all within this many times the longest side of a tile is judged whole
alone: a cut in two would show little more."""
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


def tiles(width: int, height: int, longest: int) -> list[Box]:
    """The parts in which a large or long picture is judged beside the whole; none of a small one.

    ``longest`` is the longest side of a part in pixels; 0 for no parts at all.

    The field's way (pan and scan of Gemma 3) cuts along the longer side only and at most four
    times; here the parts are as many as it takes to show the model what a person sees.
    """
    if not longest or (max(width, height) <= TILE_FROM * longest and not _long(width, height)):
        return []
    across, down = _edge(width, height, longest), _edge(height, width, longest)
    return [
        (left, top, left + across, top + down)
        for top in _steps(height, down)
        for left in _steps(width, across)
    ]


def _long(width: int, height: int) -> bool:
    short, long = sorted((width, height))
    return long > MODEL_SIDE and long / short > 2 * TILE_ASPECT


def _edge(side: int, other: int, longest: int) -> int:
    """Length of a tile along an axis of ``side`` pixels, ``other`` being the other axis."""
    most = min(longest, round(TILE_ASPECT * max(min(other, longest), 64)))
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

FINE: Final = 128
COARSE: Final = 32
Looks = NDArray[np.uint8]
"""A frame seen from afar: FINE x FINE x 4, colour times alpha, and alpha; 0 to 255."""


LOOK_BYTES: Final = 80 * 1024
"""Memory that looking at one frame takes while the animation is looked at."""
_ALIKE: Final = 16
"""Levels of 255 by which a cell may change and still look the same."""
_CELLS: Final = 4
"""Cells of FINE x FINE that may change more than that in frames that look the same."""
_MOVED: Final = 32
"""As ``_ALIKE``, between a moving picture and where it came from."""
_PATCH: Final = 3
"""Cells of COARSE x COARSE, each way, that must be new together to count as a thing."""
_SPOT: Final = 2
_NOISE: Final = 20
"""The same for what is looked at where there is room."""
_REACH: Final = 4
"""Cells of COARSE x COARSE by which things move between moments, each way."""
_SPARSE: Final = 16
STANDS_MS: Final = 500
"""A picture that stands this long is looked at for itself, and is never taken for mere motion."""
MAX_COMPARED: Final = 2_000
"""Comparisons for motion of one animation (about a millisecond each); beyond, all is distinct."""


def seen_from_afar(picture: Image.Image) -> Looks:
    """What an RGBA picture looks like from afar, transparency included."""
    small = picture.convert("RGBa").resize((FINE, FINE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small)


def _differ(first: Looks, second: Looks, by: int) -> NDArray[np.bool_]:
    """Cells that look different on a light or on a dark ground."""
    change = first.astype(np.int16) - second
    on_black = np.abs(change[..., :3]).max(axis=-1)
    on_white = np.abs(change[..., :3] - change[..., 3:]).max(axis=-1)
    return np.asarray(np.maximum(on_black, on_white) > by)


def alike(first: Looks, second: Looks) -> bool:
    """Whether two frames show the same, as far as anybody would notice."""
    return int(_differ(first, second, _ALIKE).sum()) <= _CELLS


def moments(looks: Sequence[Looks], shown_ms: Sequence[int], limit: int) -> tuple[list[int], int]:
    """Frames of an animation to judge, and how many of them are distinct moments.

    The distinct moments come first, those shown longest first, however many they are. Frames that
    look the same are one picture, however far apart. Of pictures, each that stands is a moment; one
    that is only passed through on the way (a pan, a clip, a fade) is none where the moments before
    and after it show all that is on it, a little moved. Where ``limit`` leaves room, pictures
    follow that are none by this measure and are the newest otherwise. Deterministic.
    """
    leaders, member = _grouped(looks)
    shown = np.bincount(member, weights=shown_ms, minlength=len(leaders)).astype(int)
    stands = _standing(member, shown_ms)
    order = sorted(range(len(leaders)), key=lambda group: _priority(group, shown, leaders))
    motion = _Motion(looks)
    chosen: list[int] = []
    others: list[tuple[float, int]] = []
    for group in order:
        frame = leaders[group]
        distinct, new = (True, 0.0) if stands[group] >= STANDS_MS else motion.news(frame, chosen)
        if distinct:
            chosen.append(frame)
        elif new > 0:
            others.append((-new, frame))
    count = len(chosen)
    for _, frame in sorted(others):
        if len(chosen) >= limit:
            break
        if motion.news(frame, chosen)[1] > 0:
            chosen.append(frame)
    return chosen, count


def _grouped(looks: Sequence[Looks]) -> tuple[list[int], list[int]]:
    """First frame of each group of frames that look the same, and each frame's group."""
    leaders: list[int] = []
    member: list[int] = []
    sparse = np.empty((16, FINE // _SPARSE, FINE // _SPARSE, 4), np.int16)
    for index, look in enumerate(looks):
        if member and alike(look, looks[leaders[member[-1]]]):
            member.append(member[-1])
            continue
        # Most groups are told apart by one cell in so many.
        some = look[::_SPARSE, ::_SPARSE].astype(np.int16)
        change = np.abs(sparse[: len(leaders), ..., :3] - some[..., :3]).max(axis=-1)
        near = np.flatnonzero((change > _ALIKE).sum(axis=(1, 2)) <= _CELLS)
        group = next((int(each) for each in near if alike(look, looks[leaders[each]])), None)
        if group is None:
            group = len(leaders)
            leaders.append(index)
            if group == len(sparse):
                sparse = np.concatenate([sparse, np.empty_like(sparse)])
            sparse[group] = some
        member.append(group)
    return leaders, member


def _standing(member: Sequence[int], shown_ms: Sequence[int]) -> dict[int, int]:
    """For how long (ms) each group stands on the screen at its longest."""
    longest: dict[int, int] = {}
    run = 0
    for index, group in enumerate(member):
        run = shown_ms[index] + (run if index and member[index - 1] == group else 0)
        longest[group] = max(longest.get(group, 0), run)
    return longest


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
    """What a frame shows that the moments around it do not."""

    def __init__(self, looks: Sequence[Looks]) -> None:
        self._looks = looks
        self._coarse: dict[int, NDArray[np.int16]] = {}
        self._compared = 0

    def news(self, frame: int, chosen: Sequence[int]) -> tuple[bool, float]:
        """Whether a thing on ``frame`` is new beside the nearest of ``chosen`` before and after it,
        and how new (levels of 255) its newest spot is, 0 where that is within the noise.
        """
        if self._compared > MAX_COMPARED:
            return True, 255.0
        before = max((each for each in chosen if each < frame), default=None)
        after = min((each for each in chosen if each > frame), default=None)
        new = np.full((COARSE, COARSE), 255, dtype=np.int16)
        for each in (before, after):
            if each is not None:
                self._compared += 1
                new = np.minimum(new, self._new(frame, each))
        # A thing is a patch; thin lines are edges of what moves.
        thing = _least(new, _PATCH).max() > _MOVED
        spot = float(_least(new, _SPOT).max())
        return bool(thing), spot if spot > _NOISE else 0.0

    def _new(self, frame: int, other: int) -> NDArray[np.int16]:
        """By how much each cell of ``frame`` differs from whatever is near in ``other``, its
        surroundings included.
        """
        here, there = self._small(frame), self._small(other)
        padded = np.pad(there, ((0, 0), (_REACH, _REACH), (_REACH, _REACH)), mode="edge")
        moved = sliding_window_view(padded, (COARSE, COARSE), axis=(1, 2))
        change = here[:, None, None] - moved
        level = np.abs(change[:3]).max(axis=0)
        if (here[3] != 255).any() or (there[3] != 255).any():
            level = np.maximum(level, np.abs(change[:3] - change[3:]).max(axis=0))
        around = np.pad(level, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        size = COARSE
        rows = around[..., :size, :] + around[..., 1 : size + 1, :] + around[..., 2:, :]
        sums = rows[..., :size] + rows[..., 1 : size + 1] + rows[..., 2:]
        return np.asarray(sums.min(axis=(0, 1)) // 9, dtype=np.int16)

    def _small(self, frame: int) -> NDArray[np.int16]:
        known = self._coarse.get(frame)
        if known is None:
            step = FINE // COARSE
            look = self._looks[frame].reshape(COARSE, step, COARSE, step, 4).mean(axis=(1, 3))
            known = self._coarse[frame] = look.transpose(2, 0, 1).astype(np.int16)
        return known


def _least(values: NDArray[np.int16], side: int) -> NDArray[np.int16]:
    """The least value of every square of ``side`` cells."""
    return np.asarray(sliding_window_view(values, (side, side)).min(axis=(2, 3)))
