"""A listed image is found again, as a file and as a picture; another one is not."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.support.images import encoded, noise, plain
from worker.images import FetchedImage
from worker.media.decode import DecodeLimits, decode
from worker.prefilter.pictures import ImageList, ImageMatcher, phash_of

LIMITS = DecodeLimits(max_pixels=10_000_000, max_frames=4)
# As ImageHash 4.3.2 prints them (``imagehash.phash``) for the pictures that ``pictures`` makes.
IMAGEHASH = (
    "cce45113f64fcc43",
    "fcbb787395006a8c",
    "f04e52f10ed2ece4",
    "ce19e48393933c7c",
    "a5645b640f9af193",
    "fcb9ecc9490cb0b1",
)


def pictures() -> list[Image.Image]:
    """Soft patches of colour, each in a size of its own; the same ones every time."""
    source = np.random.default_rng(7)
    return [
        Image.fromarray(
            source.integers(
                0, 256, (source.integers(3, 9), source.integers(3, 9), 3), dtype=np.uint8
            )
        ).resize((200 + number * 31, 150 + number * 17), Image.Resampling.BICUBIC)
        for number in range(len(IMAGEHASH))
    ]


def fetched(data: bytes) -> FetchedImage:
    return FetchedImage(
        uri="s3://b/k", sha256=hashlib.sha256(data).hexdigest(), frames=decode(data, LIMITS)
    )


def test_the_hash_is_the_one_of_imagehash() -> None:
    """Lists made with that library work as they are."""
    assert [f"{phash_of(picture):016x}" for picture in pictures()] == list(IMAGEHASH)


def small(picture: Image.Image) -> bytes:
    return encoded(picture.resize((90, 70)), "PNG")


def squeezed(picture: Image.Image) -> bytes:
    return encoded(picture, "JPEG", quality=30)


def stretched(picture: Image.Image) -> bytes:
    return encoded(picture.resize((700, 400)), "WEBP", quality=50)


@pytest.mark.parametrize("change", [small, squeezed, stretched])
def test_a_listed_picture_is_found_after_rescaling_and_compression(change: object) -> None:
    """And only in the list that has it."""
    matcher = ImageMatcher([ImageList(digests=[each]) for each in IMAGEHASH])
    for number, picture in enumerate(pictures()):
        assert matcher.search(fetched(change(picture))) == [number]  # type: ignore[operator]


def test_the_very_file_is_found_by_its_digest_and_another_file_is_not() -> None:
    """One byte more is another file."""
    data = encoded(noise(40, 40))
    matcher = ImageMatcher([ImageList(digests=[hashlib.sha256(data).hexdigest()])])
    assert matcher.search(fetched(data)) == [0]
    assert matcher.search(fetched(encoded(noise(40, 40, seed=1)))) == []
    assert not matcher.looks


def test_pictures_of_one_colour_are_never_alike() -> None:
    """Every one of them would be the first one that was listed."""
    file = BytesIO()
    plain(64, 64, (10, 20, 30)).save(file, "PNG")
    assert phash_of(plain()) is None
    everything = [f"{bits:016x}" for bits in (0, 1 << 63, 2**64 - 1)]
    matcher = ImageMatcher([ImageList(digests=everything, distance=12)])
    assert matcher.search(fetched(file.getvalue())) == []


@pytest.mark.parametrize("bits", [0, 4, 5])
def test_the_distance_says_how_far_apart_is_still_the_same(bits: int) -> None:
    """Four bits by default."""
    picture = pictures()[0]
    near = int(IMAGEHASH[0], 16) ^ ((1 << bits) - 1)
    matcher = ImageMatcher([ImageList(digests=[f"{near:016x}"])])
    assert matcher.search(fetched(encoded(picture))) == ([0] if bits <= 4 else [])
