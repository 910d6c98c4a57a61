"""The worker's pictures are those that Chrome shows, or they are not judged.

The corpus (tests/support/image_corpus.py) has every colour type, depth, colour chunk, disposal,
blend, frame rectangle and orientation that the formats allow. A share of it runs here; all of it:
``make test ARGS="tests/media/test_viewers.py -m slow"``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from tests.support.image_corpus import Sample, sample
from tests.support.viewers import (
    Pixels,
    Shown,
    chromium,
    shown_by_chromium,
    shown_by_skia,
    skia_missing,
)
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.media.container import read_container
from worker.media.decode import DecodeLimits, look_at
from worker.media.render import moving, still, upright

LEVELS, FEW = 24, 0.01
"""Pictures are the same where they differ by 3 of 255 on average, on white and on black, and one
pixel in a hundred by more than 24: conversions of colour round and interpolate differently."""
UNDECIDED_SHARE = 0.08
"""Of a corpus made of oddities; what it says is that being undecided is no way out."""

LIMITS = DecodeLimits(max_pixels=1_000_000, max_frames=16)
needs_chromium = pytest.mark.skipif(chromium() is None, reason="needs chromium (Debian: chromium)")


def made(one: Sample) -> list[Pixels]:
    """Every frame as the worker composes it, RGBA.

    Raises:
        Undecided: what the worker does not judge.
    """
    look_at(one.data, LIMITS)  # refuses what is damaged, with its code
    found = read_container(one.data)
    if len(found.frames) == 1:
        pictures = [still(one.data, found)]
    else:
        pictures = [
            picture.copy()
            for picture, frame in zip(moving(one.data, found), found.frames, strict=True)
            if not frame.hidden
        ]
    return [np.asarray(upright(each, found.turn).convert("RGBA")) for each in pictures]


def differ(first: Pixels, second: Pixels) -> bool:
    """Whether two RGBA pictures look different, on white or on black."""
    if first.shape != second.shape:
        return True
    most = np.zeros(first.shape[:2])
    for ground in (0.0, 255.0):
        laid = [
            each[..., :3] * (each[..., 3:] / 255) + ground * (1 - each[..., 3:] / 255)
            for each in (first.astype(float), second.astype(float))
        ]
        most = np.maximum(most, np.abs(laid[0] - laid[1]).max(axis=-1))
    return bool(most.mean() > 3 or (most > LEVELS).mean() > FEW)


def compared(pairs: Iterable[tuple[Sample, Shown]]) -> tuple[list[str], Counter[str]]:
    """Files that the worker would judge by another picture, and how all of them ended."""
    wrong: list[str] = []
    ends: Counter[str] = Counter()
    for one, shown in pairs:
        try:
            mine = made(one)
        except Undecided as refusal:
            ends[refusal.reason] += 1
            continue
        same = len(mine) == len(shown.frames) and not any(map(differ, mine, shown.frames))
        ends["same" if same else "different"] += 1
        if not same:
            wrong.append(f"{one.name}: {len(mine)} and {len(shown.frames)} frames {shown.error}")
    return wrong, ends


def by_chromium(samples: Sequence[Sample]) -> list[tuple[Sample, Shown]]:
    pairs: list[tuple[Sample, Shown]] = []
    for animated in (False, True):
        group = [one for one in samples if one.animated == animated]
        shown = shown_by_chromium([one.data for one in group], animated=animated)
        pairs += zip(group, shown, strict=True)
    return pairs


def held(samples: Sequence[Sample]) -> Counter[str]:
    """Compare with Chromium; print and return how the files ended."""
    wrong, ends = compared(by_chromium(samples))
    print(f"{len(samples)} files: {dict(ends.most_common())}")
    assert not wrong, "\n".join(wrong[:20])
    assert set(ends) <= {"same", UndecidedReason.IMAGE_RENDERING}
    assert ends[UndecidedReason.IMAGE_RENDERING] <= UNDECIDED_SHARE * len(samples)
    return ends


@needs_chromium
def test_the_worker_sees_what_chromium_shows() -> None:
    """Another picture than a person sees would be judged, and harm pass."""
    held([sample(number) for number in range(420)])


@pytest.mark.slow
@needs_chromium
def test_the_worker_sees_what_chromium_shows_of_the_whole_corpus() -> None:
    """The same over 3,500 other files."""
    for start in range(420, 3_920, 700):
        held([sample(number) for number in range(start, start + 700)])


@pytest.mark.skipif(skia_missing() is not None, reason=str(skia_missing()))
def test_the_worker_composes_stills_gif_and_webp_as_skia_does() -> None:
    """A second oracle, without a browser. What the two show differently is left to Chromium:
    colours of PNG chunks, APNG, and a WebP that is turned by its EXIF.
    """
    kinds = ("GIF", "WebP", "JPEG", "animated")
    samples = [sample(number) for number in range(2_000)]
    plain = [
        one
        for one in samples
        if one.name.split()[1] in kinds and not any(odd in one.name for odd in ("icc", "exif"))
    ]
    wrong, ends = compared((one, shown_by_skia(one.data)) for one in plain)
    print(f"{len(plain)} files: {dict(ends.most_common())}")
    assert not wrong, "\n".join(wrong[:20])
    assert ends["same"] > 400
