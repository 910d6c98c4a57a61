"""Images a policy lists: by SHA-256 of the file's bytes, or by a perceptual hash of its pixels.

    32 x 32 grey -> cosine transform -> the 8 x 8 lowest frequencies -> above their median: 1

The hash is the one of ImageHash's ``phash`` with its defaults (16 hex digits), so that lists made
with that library or taken over from elsewhere work as they are. Why not the library:
docs/decisions/prefilter.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.images import FetchedImage, JudgeImage

SHA256 = re.compile(r"[0-9a-f]{64}")
PHASH = re.compile(r"[0-9a-f]{16}")
DEFAULT_DISTANCE: Final = 4
"""Bits of 64 in which two images may differ and still count as the same."""
MAX_DISTANCE: Final = 12
"""Beyond it unrelated images begin to meet."""

_SIDE, _KEPT = 32, 8
_FLAT = 2.0
"""Standard deviation of the grey levels (0 to 255) below which there is nothing to compare."""

# The cosine transform (type II) of one axis, its 8 lowest frequencies.
_COSINES: Final = 2 * np.cos(
    np.pi * np.outer(np.arange(_KEPT), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE)
)


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of one list: 64 hex digits are a SHA-256, 16 a pHash."""

    digests: Sequence[str]
    distance: int = DEFAULT_DISTANCE


def phash(frame: JudgeImage) -> int | None:
    """64 bits; None of a picture of one colour, which every other such picture would equal."""
    return phash_of(Image.frombytes("RGB", (frame.width, frame.height), frame.rgb))


def phash_of(image: Image.Image) -> int | None:
    """As ``phash``, of a picture in any mode that Pillow turns into grey."""
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    levels = np.asarray(grey, dtype=np.float64)
    if levels.std() < _FLAT:
        return None
    low = _COSINES @ levels @ _COSINES.T
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


class ImageMatcher:
    """Which of several lists have an image."""

    def __init__(self, lists: Sequence[ImageList]) -> None:
        self._exact: dict[str, list[int]] = {}
        self._similar: list[tuple[int, int, NDArray[np.uint64]]] = []
        for index, each in enumerate(lists):
            hashes = []
            for digest in each.digests:
                if len(digest) == 64:
                    self._exact.setdefault(digest, []).append(index)
                else:
                    hashes.append(int(digest, 16))
            if hashes:
                known = np.array(hashes, dtype=np.uint64)
                self._similar.append((index, each.distance, known))

    @property
    def looks(self) -> bool:
        """Whether pixels have to be hashed: milliseconds, for a thread."""
        return bool(self._similar)

    def search(self, image: FetchedImage) -> list[int]:
        """Indexes of the lists that have the image or one of its frames, ascending."""
        hits = set(self._exact.get(image.sha256 or "", ()))
        for seen in {phash(frame) for frame in image.frames} if self._similar else ():
            if seen is not None:
                hits.update(
                    index
                    for index, distance, known in self._similar
                    if int(np.bitwise_count(known ^ np.uint64(seen)).min()) <= distance
                )
        return sorted(hits)
