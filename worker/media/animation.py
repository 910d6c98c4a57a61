"""Which frames of an animation are judged: the first, the last, and those unlike any other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_FRAMES = 3_000
"""Frames of one animation; more make the image too large to judge."""
_SIDE = 16

Signature = npt.NDArray[np.float32]
"""A frame seen from afar: 16 x 16 x 4 values, 0 to 255."""


def signature(frame: Image.Image) -> Signature:
    """What a frame looks like from afar, transparency included."""
    small = frame.convert("RGBA").resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small, dtype=np.float32).reshape(-1)


def chosen(signatures: Sequence[Signature], count: int) -> list[int]:
    """Indices, ascending, of at most ``count`` frames to judge.

    The first and the last, then each time the frame farthest from all chosen ones, so that a
    picture flashed for one frame is found where frames at even steps would pass over it. Where all
    are equally far (nothing stands out), the middle of the longest gap. Frames equal to a chosen
    one are not judged twice. Deterministic: the same bytes give the same frames.
    """
    total = len(signatures)
    if count == 1:
        return [0]
    picked = [0]
    stacked = np.stack(signatures)
    distance = np.abs(stacked - stacked[0]).max(axis=1)
    if total > 1 and distance[-1] > 0:
        picked.append(total - 1)
        distance = np.minimum(distance, np.abs(stacked - stacked[-1]).max(axis=1))
    while len(picked) < count and distance.max() > 0:
        # Among the farthest, the one in the middle of the widest stretch without a chosen frame.
        farthest = np.flatnonzero(distance >= distance.max() * 0.99)
        gaps = np.abs(farthest[:, None] - np.array(picked)).min(axis=1)
        best = int(farthest[int(gaps.argmax())])
        picked.append(best)
        distance = np.minimum(distance, np.abs(stacked - stacked[best]).max(axis=1))
    return sorted(picked)
