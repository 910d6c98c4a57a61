"""Encoded bytes to frames a judge can take, within limits; blocking, for the fetcher's threads.

Order: byte cap (the store's) -> own reading of the structure (``probe``) -> pixel, frame and work
limits -> one decoder class, named by the magic -> its size checked again -> reduced decoding of
large JPEGs -> pixels. No plugin but the four named here is ever asked.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from typing import Protocol

import msgspec
from PIL import Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from worker.errors import Undecided
from worker.images import JudgeImage
from worker.media import animation, pixels
from worker.media.probe import ImageFormat, Probe, corrupt, probe, too_large

# Pillow warns of odd metadata, which is dropped here anyway; a warning is not worth a log line per
# image. What it says of too many pixels is another class, and refused below.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

ANIMATION_FACTOR = 4
"""An animation may have this many times the pixels of the largest still, over all its frames."""


_DECODERS: Mapping[ImageFormat, Callable[[BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
}


class DecodeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """``max_pixels`` of one canvas; ``max_frames`` moments judged of an animation."""

    max_pixels: int
    max_frames: int

    def frame_bytes(self) -> int:
        """Most RGB bytes one image decodes to: a still, or two views of every moment."""
        still, frame = 3 * pixels.STILL_SIDE**2, 3 * pixels.MODEL_SIDE**2
        return max(still, 2 * self.max_frames * frame)


class WorkGate(Protocol):
    """Bounds the memory of decoders at work, by bytes."""

    def enter(self, amount: int) -> AbstractContextManager[None]: ...


class _Open(WorkGate):
    def enter(self, amount: int) -> AbstractContextManager[None]:
        return nullcontext()


def decode(
    data: bytes, limits: DecodeLimits, *, sha256: str | None = None, gate: WorkGate | None = None
) -> tuple[JudgeImage, ...]:
    """The frames of one encoded image to judge, at least one.

    A digest stands for exact pixels: ``H`` (sha256 of ``data``) is the still image, ``H#N`` frame N
    of an animation from 0, and ``...@black`` the same frame laid over black where it is partly
    transparent; without it a transparent frame lies over white. All metadata is dropped.

    Raises:
        Undecided: ``image_format``, ``image_too_large`` or ``image_corrupt``.
    """
    digest = sha256 or hashlib.sha256(data).hexdigest()
    found = probe(data)
    _within(found, limits)
    with (gate or _Open()).enter(_work(found)):
        try:
            return (
                _animated(data, found, limits, digest)
                if found.frames > 1
                else _still(data, found, digest)
            )
        except (Undecided, MemoryError):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise too_large("more pixels than announced") from None
        except Exception as error:
            # Decoders meet hostile bytes with every kind of exception; none may cost more than
            # this image. The type is kept, the text is not: it can quote the image.
            raise corrupt(f"cut off or damaged ({type(error).__name__})") from error


def _within(found: Probe, limits: DecodeLimits) -> None:
    area = found.width * found.height
    if area > limits.max_pixels:
        raise too_large(f"{found.width} x {found.height} pixels, over {limits.max_pixels}")
    if found.frames > animation.MAX_FRAMES:
        raise too_large(f"{found.frames} frames, over {animation.MAX_FRAMES}")
    if found.frames > 1 and area * found.frames > ANIMATION_FACTOR * limits.max_pixels:
        raise too_large(
            f"{found.frames} frames of {found.width} x {found.height} pixels, over "
            f"{ANIMATION_FACTOR} x {limits.max_pixels}"
        )


def _still_size(found: Probe) -> tuple[int, int]:
    return pixels.bounded(found.width, found.height, pixels.STILL_SIDE)


def _work(found: Probe) -> int:
    """Bytes of memory that decoding takes at its peak (measured, rounded up)."""
    area = found.width * found.height
    if found.format == "JPEG" and not found.buffered:
        width, height = _still_size(found)
        reduced = min(found.width // width, found.height // height)
        divisor = next(step for step in (8, 4, 2, 1) if reduced >= step)
        return 8 * area // divisor**2
    if found.frames > 1:
        return 24 * area
    return area * (20 if found.format == "WEBP" else 16)


def _open(data: bytes, found: Probe) -> ImageFile.ImageFile:
    image = _DECODERS[found.format](BytesIO(data))
    _same_size(image, found)
    return image


def _same_size(image: Image.Image, found: Probe) -> None:
    """A canvas larger than the one the limits were applied to was announced falsely."""
    if image.width > found.width or image.height > found.height:
        raise corrupt("the canvas is not of the size announced")


def _still(data: bytes, found: Probe, digest: str) -> tuple[JudgeImage, ...]:
    image = _open(data, found)
    size = _still_size(found)
    if isinstance(image, JpegImageFile):
        image.draft(None, size)  # decodes at 1/2, 1/4 or 1/8, never below ``size``
    image.load()
    turn = pixels.orientation(image)
    picture = pixels.normalised(image)
    if picture.mode == "RGBA":
        size = pixels.bounded(found.width, found.height, pixels.MODEL_SIDE)
    return tuple(_frames(picture, size, turn, digest))


def _animated(
    data: bytes, found: Probe, limits: DecodeLimits, digest: str
) -> tuple[JudgeImage, ...]:
    image = _open(data, found)
    signatures = []
    for index in range(found.frames):
        _seek(image, index, found)
        signatures.append(animation.signature(pixels.normalised(image)))
    picks = animation.chosen(signatures, limits.max_frames)
    image = _open(data, found)  # a second pass: keeping every frame of the first would be unbounded
    frames: list[JudgeImage] = []
    for index in range(picks[-1] + 1):
        _seek(image, index, found)
        if index in picks:
            picture = pixels.normalised(image)
            size = pixels.bounded(picture.width, picture.height, pixels.MODEL_SIDE)
            frames += _frames(picture, size, pixels.orientation(image), f"{digest}#{index}")
    return tuple(frames)


def _seek(image: ImageFile.ImageFile, index: int, found: Probe) -> None:
    try:
        image.seek(index)
    except EOFError:
        raise corrupt("fewer frames than announced") from None
    _same_size(image, found)
    image.load()


def _frames(
    picture: Image.Image, size: tuple[int, int], turn: Image.Transpose | None, digest: str
) -> list[JudgeImage]:
    if picture.size != size:
        # Averages over every source pixel: nothing shows only at the reduced size.
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    if turn is not None:
        picture = picture.transpose(turn)
    return [
        JudgeImage(
            sha256=digest + ("@black" if view else ""),
            width=flat.width,
            height=flat.height,
            rgb=flat.tobytes(),
        )
        for view, flat in enumerate(pixels.flattened(picture))
    ]
