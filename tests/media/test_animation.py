"""Animations: no frame is a hiding place."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.support.images import animated, encoded, pixel, plain, png_chunk, quarters
from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.images import JudgeImage
from worker.media import container
from worker.media.decode import ANIMATION_FACTOR, DecodeLimits, decode

LIMITS = DecodeLimits(max_pixels=4_000_000, max_frames=20)
KINDS = ["GIF", "PNG", "WEBP"]


def indices(frames: tuple[JudgeImage, ...]) -> list[int]:
    return [int(frame.sha256.split("#")[1].split("@")[0]) for frame in frames]


def refused(data: bytes, limits: DecodeLimits = LIMITS) -> UndecidedReason:
    with pytest.raises(Undecided) as error:
        decode(data, limits)
    return error.value.reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 17, 50, 98])
def test_a_picture_flashed_for_one_frame_is_judged(kind: str, at: int) -> None:
    """A hundred frames, one of them different, wherever it is."""
    frames = [plain(60, 40, (250, 250, 250 - index)) for index in range(100)]
    frames[at] = quarters(60, 40)
    judged = decode(animated(frames, kind, lossless=True), LIMITS)
    assert len(judged) <= 10
    assert at in indices(judged)
    flashed = judged[indices(judged).index(at)]
    assert pixel(flashed, 0.25, 0.25)[0] > 200 > pixel(flashed, 0.25, 0.25)[1] + 100


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_look_alike_are_judged_once(kind: str) -> None:
    """A small change that no frame repeats keeps encoders from merging the frames."""
    frames = []
    for index in range(6):
        frame = quarters(64, 64)
        frame.putpixel((index, 0), (254, 0, 0))
        frames.append(frame)
    judged = decode(animated(frames, kind, lossless=True), LIMITS)
    assert len(judged) < 4


def test_frames_are_shown_as_a_viewer_composes_them() -> None:
    """The second frame holds only what changed; the judge gets the whole picture."""
    first, second = quarters(80, 40), quarters(80, 40)
    second.paste((0, 0, 0), (0, 0, 10, 10))
    for kind in KINDS:
        judged = decode(animated([first, second], kind, lossless=True), LIMITS)
        last = judged[-1]
        assert pixel(last, 0.02, 0.02) == (0, 0, 0)
        assert pixel(last, 0.75, 0.75) == (255, 255, 255)


def test_the_pixels_of_all_frames_together_are_bounded() -> None:
    limits = DecodeLimits(max_pixels=10_000, max_frames=4)
    frames = [plain(100, 100, (index, 0, 0)) for index in range(ANIMATION_FACTOR + 1)]
    decode(animated(frames[:-1], "GIF"), limits)
    assert refused(animated(frames, "GIF"), limits) is UndecidedReason.IMAGE_TOO_LARGE


def test_the_number_of_frames_is_bounded_whatever_their_size() -> None:
    one = animated([plain(1, 1), plain(1, 1, (0, 0, 0))], "GIF")
    start = one.index(b"\x21\xf9")
    frame = one[start : one.index(b"\x21\xf9", start + 1)]
    many = one[:start] + frame * (container.MAX_FRAMES + 1) + b";"
    assert refused(many) is UndecidedReason.IMAGE_TOO_LARGE


def test_an_apng_that_announces_other_frames_than_it_has_is_corrupt() -> None:
    data = animated([plain(20, 20), quarters(20, 20), plain(20, 20, (0, 0, 9))], "PNG")
    at = data.index(b"acTL") - 4
    for claimed in (0, 1, 2, 4, 4_000_000_000):
        lie = png_chunk(b"acTL", claimed.to_bytes(4, "big") + bytes(4))
        assert refused(data[:at] + lie + data[at + 20 :]) is UndecidedReason.IMAGE_CORRUPT


@pytest.mark.parametrize("kind", KINDS)
def test_an_animation_cut_short_is_corrupt_and_never_judged_by_its_first_frames(kind: str) -> None:
    frames = [
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (40, 40, 3), np.uint8))
        for index in range(6)
    ]
    data = animated(frames, kind)
    assert refused(data[: len(data) * 2 // 3]) is UndecidedReason.IMAGE_CORRUPT


def test_a_frame_past_the_edge_of_a_small_gif_counts_with_its_real_size() -> None:
    data = bytearray(encoded(plain(300, 300), "GIF"))
    data[6:10] = (1).to_bytes(2, "little") * 2
    (frame,) = decode(bytes(data), LIMITS)
    assert (frame.width, frame.height) == (300, 300)
    small = DecodeLimits(max_pixels=10_000, max_frames=4)
    assert refused(bytes(data), small) is UndecidedReason.IMAGE_TOO_LARGE
