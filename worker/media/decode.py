"""Encoded bytes to the pictures a judge takes, within limits; blocking, for the fetcher's threads.

Order: byte cap (the store's) -> own reading of the structure (``container``) -> pixel, frame and
work limits -> one decoder class, named by the magic, for one frame at a time -> composed as viewers
do (``render``) -> the views worth judging (``views``). No plugin but the four named there is asked.
"""

from __future__ import annotations

import hashlib
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import msgspec
from PIL import Image

from worker.errors import Undecided
from worker.images import JudgeImage
from worker.media import render, views
from worker.media.container import Container, corrupt, read_container, too_large
from worker.settings import Store

# Pillow warns of odd metadata, which is dropped here anyway; a warning is not worth a log line per
# image. What it says of too many pixels is another class, and refused below.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

ANIMATION_FACTOR = 4
"""An animation may have this many times the pixels of the largest still, over all its frames."""


class DecodeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one image: ``max_pixels`` of its canvas, ``max_frames`` views that are judged, and
    ``tile_side``, the longest side in pixels of the parts of a large one, 0 for no parts.
    """

    max_pixels: int
    max_frames: int
    tile_side: int = 1_792

    @classmethod
    def of(cls, settings: Store) -> DecodeLimits:
        """The limits that the settings set."""
        return cls(
            max_pixels=settings.max_image_pixels,
            max_frames=settings.max_frames,
            tile_side=settings.tile_side,
        )

    def frame_bytes(self) -> int:
        """Most RGB bytes one image decodes to: a still, or every view that may be judged."""
        still, view = 3 * views.STILL_SIDE**2, 3 * views.MODEL_SIDE**2
        return max(still, self.max_frames * view)


class Views(msgspec.Struct, frozen=True, kw_only=True):
    """The views of one image in the order in which they are worth judging.

    ``total``: how many it takes to see everything; more than there are where the limit cut them.
    ``scale``: pixels of the image for one of the model's, along either axis, in the finest of them.
    """

    frames: tuple[JudgeImage, ...]
    total: int
    scale: float = 1.0


class WorkGate(Protocol):
    """Bounds the memory of decoders at work, by bytes."""

    def enter(self, amount: int) -> AbstractContextManager[None]: ...


class _Open(WorkGate):
    def enter(self, amount: int) -> AbstractContextManager[None]:
        return nullcontext()


def decode(data: bytes, limits: DecodeLimits) -> tuple[JudgeImage, ...]:
    """The views of one encoded image that fit the limits, at least one; see ``look_at``."""
    return look_at(data, limits).frames


def look_at(
    data: bytes, limits: DecodeLimits, *, sha256: str | None = None, gate: WorkGate | None = None
) -> Views:
    """The views of one encoded image to judge, at least one.

    A digest stands for exact pixels: ``H`` (sha256 of ``data``) is the still image, ``H#N`` frame N
    of an animation from 0 (a default image that is no part of it included), ``...@L,T,R,B`` the
    part between these pixels, ``...@turned`` as viewers show it that turn a WebP by its EXIF, and
    ``...@black`` the same laid over black where it is partly transparent; without it a transparent
    picture lies over white. All metadata is dropped.

    Raises:
        Undecided: ``image_format``, ``image_too_large``, ``image_corrupt`` or ``image_rendering``.
    """
    digest = sha256 or hashlib.sha256(data).hexdigest()
    found = read_container(data)
    _within(found, limits)
    with (gate or _Open()).enter(_work(found, limits)):
        try:
            return _Looking(data, found, limits, digest).look()
        except (Undecided, MemoryError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise too_large("more pixels than announced") from None
        except Exception as error:
            # Decoders meet hostile bytes with every kind of exception; none may cost more than
            # this image. The type is kept, the text is not: it can quote the image.
            raise corrupt(f"cut off or damaged ({type(error).__name__})") from error


def _within(found: Container, limits: DecodeLimits) -> None:
    area, frames = found.width * found.height, len(found.frames)
    if area > limits.max_pixels:
        raise too_large(f"{found.width} x {found.height} pixels, over {limits.max_pixels}")
    if frames > 1 and area * frames > ANIMATION_FACTOR * limits.max_pixels:
        raise too_large(
            f"{frames} frames of {found.width} x {found.height} pixels, over "
            f"{ANIMATION_FACTOR} x {limits.max_pixels}"
        )


def _work(found: Container, limits: DecodeLimits) -> int:
    """Bytes of memory that decoding takes at its peak (measured, rounded up)."""
    area = found.width * found.height
    if found.format == "JPEG" and not found.buffered:
        if views.tiles(found.width, found.height, limits.tile_side):
            return 12 * area
        width, height = views.bounded(found.width, found.height, views.STILL_SIDE)
        reduced = min(found.width // width, found.height // height)
        divisor = next(step for step in (8, 4, 2, 1) if reduced >= step)
        return 8 * area // divisor**2
    if len(found.frames) > 1:
        return 24 * area + views.LOOK_BYTES * len(found.frames)
    if found.format == "WEBP":
        return 20 * area
    # Samples of 16 bits with a colour key are read twice.
    twice = found.png is not None and found.png.depth == 16 and found.png.key is not None
    return area * (28 if twice else 16)


class _Looking:
    """One image being looked at."""

    def __init__(self, data: bytes, found: Container, limits: DecodeLimits, digest: str) -> None:
        self._data = data
        self._found = found
        self._limits = limits
        self._digest = digest
        self._tiles = views.tiles(found.width, found.height, limits.tile_side)

    def look(self) -> Views:
        made, unmade = self._still() if len(self._found.frames) == 1 else self._moving()
        finest = self._tiles[0] if self._tiles else (0, 0, self._found.width, self._found.height)
        longest = max(finest[2] - finest[0], finest[3] - finest[1])
        return Views(
            frames=tuple(made[: self._limits.max_frames]),
            total=len(made) + unmade,
            scale=round(max(1.0, longest / views.MODEL_SIDE), 2),
        )

    def _still(self) -> tuple[list[JudgeImage], int]:
        size = views.bounded(self._found.width, self._found.height, views.STILL_SIDE)
        picture = render.still(self._data, self._found, None if self._tiles else size)
        made: list[JudgeImage] = []
        wanted = [None, *self._tiles]
        while wanted and len(made) < self._limits.max_frames:
            made += self._seen(picture, wanted.pop(0), self._digest)
        return made, len(wanted)

    def _moving(self) -> tuple[list[JudgeImage], int]:
        frames = self._found.frames
        looks = [
            views.seen_from_afar(picture) for picture in render.moving(self._data, self._found)
        ]
        limit = self._limits.max_frames
        chosen, distinct = views.moments(looks, [frame.ms for frame in frames], limit)
        # What programs show that cannot animate is a moment whatever else there is.
        hidden = [index for index, frame in enumerate(frames) if frame.hidden]
        moments = hidden + [frame for frame in chosen[:distinct] if frame not in hidden]
        more = [frame for frame in chosen[distinct:] if frame not in hidden]
        # Whole pictures before their parts; what is looked at for good measure comes last.
        wanted: list[tuple[int, views.Box | None]] = [(frame, None) for frame in moments]
        wanted += [(frame, box) for frame in moments for box in self._tiles]
        unmade = max(0, len(wanted) - limit)
        wanted = (wanted + [(frame, None) for frame in more])[:limit]
        made: dict[tuple[int, views.Box | None], list[JudgeImage]] = {}
        # A second time: keeping every picture of the first would be unbounded.
        for index, picture in enumerate(render.moving(self._data, self._found)):
            for each in wanted:
                if each[0] == index:
                    made[each] = self._seen(picture, each[1], f"{self._digest}#{index}")
            if len(made) == len(wanted):
                break
        return [view for each in wanted for view in made[each]], unmade

    def _seen(self, picture: Image.Image, box: views.Box | None, digest: str) -> list[JudgeImage]:
        """The views of one picture, or of one part of it: on which grounds, turned how."""
        part = picture if box is None else picture.crop(box)
        where = "" if box is None else "@" + ",".join(str(edge) for edge in box)
        transparent = views.has_transparency(part)
        size = views.bounded(part.width, part.height, self._side(transparent))
        if part.size != size:
            # Averages over every source pixel: nothing shows only at the reduced size.
            part = part.resize(size, Image.Resampling.BILINEAR)
        grounds = {"": views.WHITE, "@black": views.BLACK} if transparent else {"": views.WHITE}
        turns = {"": self._found.turn}
        if self._found.other_turn != 1:
            turns["@turned"] = self._found.other_turn
        return [
            _judged(
                render.upright(views.laid_over(part, ground), turn), digest + where + turned + over
            )
            for turned, turn in turns.items()
            for over, ground in grounds.items()
        ]

    def _side(self, transparent: bool) -> int:
        """Longest side of a view: a single one may be larger than the model takes."""
        single = len(self._found.frames) == 1 and not self._tiles and not transparent
        return views.STILL_SIDE if single else views.MODEL_SIDE


def _judged(picture: Image.Image, digest: str) -> JudgeImage:
    return JudgeImage(
        sha256=digest, width=picture.width, height=picture.height, rgb=picture.tobytes()
    )
