"""Nothing that a person sees of an image goes unlooked at without being said."""

from __future__ import annotations

import struct
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.clips import KINDS as KINDS_OF_CLIPS
from tests.support.clips import harmless
from tests.support.image_corpus import png_rows
from tests.support.images import animated, encoded, noise, pixel, png_chunk, shown
from tests.support.judgements import judgement, policy
from worker.codes import UndecidedReason
from worker.images import FetchedImage, JudgeImage
from worker.media.decode import DecodeLimits, decode, look_at
from worker.media.fetch import shared_out
from worker.media.views import moments, seen_from_afar, tiles
from worker.outcome.decide import decide
from worker.outcome.passes import PassResult

LIMITS = DecodeLimits(max_pixels=40_000_000, max_frames=20)
KINDS = ["GIF", "PNG", "WEBP"]


def scene(seed: int, width: int = 96, height: int = 64) -> Image.Image:
    """A picture like no other: blocks of colour."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.NEAREST)


def marked(image: Image.Image, share: float = 0.4) -> Image.Image:
    """The picture with a black cross on white in its middle, ``share`` of its height."""
    picture, side = image.copy(), int(image.height * share)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, top, left + side, top + side), fill=(255, 255, 255))
    draw.rectangle((left + side // 3, top, left + 2 * side // 3, top + side), fill=(0, 0, 0))
    draw.rectangle((left, top + side // 3, left + side, top + 2 * side // 3), fill=(0, 0, 0))
    return picture


def numbers(frames: tuple[JudgeImage, ...]) -> list[int]:
    return [int(frame.sha256.split("#")[1].split("@")[0]) for frame in frames]


def moving(frames: list[Image.Image], kind: str, duration: int | list[int]) -> bytes:
    options = {} if kind == "GIF" else {"lossless": True} if kind == "WEBP" else {}
    return encoded(
        frames[0], kind, save_all=True, append_images=frames[1:], duration=duration, **options
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_that_stands_between_flashes_is_judged_first(kind: str) -> None:
    """What is on the screen for ten minutes is what a person sees, however many frames pass by."""
    frames = [scene(index) for index in range(9)]
    durations = [20] * 9
    durations[4] = 60_000
    judged = decode(moving(frames, kind, durations), LIMITS)
    assert numbers(judged)[0] == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [6, 8, 12, 20])
def test_every_slide_of_a_slide_show_is_judged(kind: str, count: int) -> None:
    """The bad slide may be any of them."""
    seen = look_at(moving([scene(index) for index in range(count)], kind, 2_000), LIMITS)
    assert sorted(numbers(seen.frames)) == list(range(count))
    assert seen.total == count


@pytest.mark.parametrize("kind", KINDS)
def test_slides_beyond_the_limit_are_counted(kind: str) -> None:
    """What was not seen must be known, for it is not safe."""
    seen = look_at(moving([scene(index) for index in range(30)], kind, 2_000), LIMITS)
    assert len(seen.frames) == 20
    assert seen.total == 30


@pytest.mark.parametrize("at", [1, 13, 29])
def test_a_thing_that_flashes_up_in_a_moving_picture_is_judged(at: int) -> None:
    """One frame of a clip has something that its neighbours do not."""
    wide = scene(1, 256, 64).resize((512, 128), Image.Resampling.BICUBIC)
    frames = [wide.crop((4 * index, 0, 4 * index + 192, 128)) for index in range(30)]
    frames[at] = marked(frames[at], 0.3)
    assert at in numbers(decode(moving(frames, "GIF", 50), LIMITS))


def test_a_pan_is_a_few_moments_and_not_one_a_frame() -> None:
    """Passing by is not standing: what is between two moments is on both of them."""
    wide = scene(1, 256, 64).resize((512, 128), Image.Resampling.BICUBIC)
    frames = [wide.crop((4 * index, 0, 4 * index + 192, 128)) for index in range(60)]
    seen = look_at(moving(frames, "GIF", 50), LIMITS)
    assert seen.total <= LIMITS.max_frames
    assert seen.total == len(seen.frames)


def test_frames_that_come_again_are_one_moment() -> None:
    """A loop of three pictures costs three views, however long it is."""
    seen = look_at(moving([scene(index % 3) for index in range(30)], "GIF", 700), LIMITS)
    assert sorted(numbers(seen.frames)) == [0, 1, 2]
    assert seen.total == 3


def test_looking_is_deterministic() -> None:
    """The same bytes give the same views, or a verdict could not be repeated."""
    frames = [Image.blend(scene(1), scene(2), index / 19) for index in range(20)]
    data = moving(frames, "GIF", 60)
    assert look_at(data, LIMITS) == look_at(data, LIMITS)


@pytest.mark.parametrize("repeated", [1, 20])
def test_slides_that_differ_in_their_words_alone_are_both_judged(repeated: int) -> None:
    """Lines of text at one place are nearly the same grey from afar; as one frame or many."""
    slides = []
    for words in ("good morning to all of you", "you should go and kill him"):
        slide = Image.new("RGB", (480, 320), (250, 250, 250))
        for line in range(5):
            ImageDraw.Draw(slide).text((40, 40 + 50 * line), words, fill=(20, 20, 20))
        slides += [slide] * repeated
    for index, slide in enumerate(slides):
        slides[index] = slide.copy()
        slides[index].putpixel((index % 480, 0), (200, 0, 0))  # encoders merge equal frames
    seen = numbers(decode(moving(slides, "PNG", 2_000 // repeated), LIMITS))
    assert min(seen) < repeated <= max(seen)


@pytest.mark.slow
def test_harmless_animations_are_seen_whole() -> None:
    """Clips, pans, recordings and stickers that end undecided are work for people: at most 2 %."""
    unseen = []
    for kind in KINDS_OF_CLIPS:
        for number in range(4):
            clip = harmless(kind, number)
            looks = [seen_from_afar(frame.convert("RGBA")) for frame in clip.frames]
            if moments(looks, clip.ms, LIMITS.max_frames)[1] > LIMITS.max_frames:
                unseen.append(f"{kind} {number}")
    assert len(unseen) <= 0.02 * 4 * len(KINDS_OF_CLIPS), unseen


# Composing


def two_frame_gif(shape: tuple[int, int, int, int], disposal: int) -> bytes:
    """A canvas of 40 x 40 that nobody draws on but for a black rectangle, twice."""
    x, y, width, height = shape
    bits = "".join(
        format(code, "03b")[::-1] for code in [4, *([0, 0, 4] * (width * height // 2)), 5]
    )
    packed = bytes(int(bits[at : at + 8][::-1].rjust(8, "0"), 2) for at in range(0, len(bits), 8))
    blocks = b"".join(
        bytes([len(packed[at : at + 255])]) + packed[at : at + 255]
        for at in range(0, len(packed), 255)
    )
    frame = (
        b"\x21\xf9\x04"
        + struct.pack("<BHB", disposal << 2, 50, 0)
        + b"\0,"
        + struct.pack("<HHHHB", x, y, width, height, 0)
        + b"\x02"
        + blocks
        + b"\0"
    )
    head = b"GIF89a" + struct.pack("<HHBBB", 40, 40, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + frame * 2 + b";"


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_black_on_a_canvas_that_nobody_drew_on_is_seen(disposal: int) -> None:
    """The page shows through: black on black for a decoder that fills it, black on white for a
    person.
    """
    on_white, on_black = decode(two_frame_gif((10, 10, 20, 20), disposal), LIMITS)[:2]
    assert pixel(on_white, 0.5, 0.5) == (0, 0, 0)
    assert pixel(on_white, 0.05, 0.05) == (255, 255, 255)
    assert pixel(on_black, 0.05, 0.05) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_frame_cleared_away_leaves_the_page(kind: str) -> None:
    """Disposal to the background is disposal to nothing, in an RGB file too."""
    first = Image.new("RGBA", (40, 40), (0, 0, 0, 255))
    second = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    second.paste((0, 0, 0, 255), (15, 15, 25, 25))
    data = moving([first, second], kind, 500)
    views = {frame.sha256.partition("#")[2]: frame for frame in decode(data, LIMITS)}
    assert pixel(views["1"], 0.05, 0.05) == (255, 255, 255)
    assert pixel(views["1"], 0.5, 0.5) == (0, 0, 0)


def test_a_default_image_that_is_no_part_of_the_animation_is_judged_too() -> None:
    """Programs that cannot animate show it and nothing else."""
    rng = Random(1)

    def rows(level: int) -> bytes:
        return png_rows(np.full((16, 16, 1), level, dtype=np.int64), 8, rng, False)

    header = struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)
    control = struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 2, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            png_chunk(b"IHDR", header),
            png_chunk(b"acTL", struct.pack(">II", 1, 0)),
            png_chunk(b"IDAT", rows(10)),
            png_chunk(b"fcTL", control),
            png_chunk(b"fdAT", struct.pack(">I", 1) + rows(200)),
            png_chunk(b"IEND", b""),
        ]
    )
    assert sorted(frame.rgb[0] for frame in decode(data, LIMITS)) == [10, 200]


# Tiles


@pytest.mark.parametrize(
    "size", [(4_000, 4_000), (4_032, 3_024), (1_080, 20_000), (20_000, 300), (6_000, 900)]
)
def test_the_parts_of_a_picture_cover_it_and_overlap(size: tuple[int, int]) -> None:
    """A gap would be a hiding place, and so would a border through a small thing."""
    boxes = tiles(*size, 1_792)
    covered = np.zeros((size[1] // 20, size[0] // 20), dtype=int)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert max(right - left, bottom - top) <= 1_792
        covered[top // 20 : -(-bottom // 20), left // 20 : -(-right // 20)] += 1
    assert covered.min() >= 1
    assert covered.max() >= 2


@pytest.mark.parametrize("size", [(10, 10), (1_920, 1_080), (2_048, 2_048), (900, 300), (1, 500)])
def test_a_picture_of_ordinary_size_is_judged_whole_alone(size: tuple[int, int]) -> None:
    """Parts cost a pass each."""
    assert tiles(*size, 1_792) == []


def test_a_small_thing_in_a_large_picture_is_large_in_one_of_its_parts() -> None:
    """160 pixels of 4,000 are 36 of the 896 that the model sees, and about 100 in a part."""
    image = Image.new("RGB", (4_000, 4_000), (250, 250, 250))
    image.paste((0, 0, 0), (2_900, 700, 3_060, 860))
    seen = look_at(encoded(image, compress_level=1), LIMITS)
    shares = [float((np.asarray(shown(frame))[..., 0] < 128).mean()) for frame in seen.frames]
    assert max(shares[1:]) > 6 * shares[0]
    assert seen.total == len(seen.frames) == 10
    assert seen.scale == 1.62


def test_a_strip_longer_than_the_budget_is_not_all_seen() -> None:
    """A thing of 160 pixels in 160 x 16,000 is 9 rows of the whole: it must not pass as seen."""
    strip = noise(16, 1_600).resize((160, 16_000), Image.Resampling.NEAREST)
    seen = look_at(encoded(strip, compress_level=1), LIMITS)
    assert len(seen.frames) == 20
    assert seen.total > 60


def test_it_is_said_how_coarsely_a_picture_was_seen() -> None:
    """Detail that the model never had is not found safe without a word."""
    assert look_at(encoded(noise(800, 600), "JPEG"), LIMITS).scale == 1.0
    assert look_at(encoded(noise(1_920, 1_080), "JPEG"), LIMITS).scale == 2.14


def test_parts_can_be_switched_off() -> None:
    """For who knows that large pictures come from a trusted source."""
    whole = DecodeLimits(max_pixels=40_000_000, max_frames=20, tile_side=0)
    assert look_at(encoded(noise(3_000, 2_600), "JPEG"), whole).total == 1


# One event


def fetched(views: int, total: int = 0) -> FetchedImage:
    frames = tuple(JudgeImage(sha256=f"{n}", width=1, height=1, rgb=b"abc") for n in range(views))
    return FetchedImage(uri="s3://b/k", sha256="0", frames=frames, total=total or views)


def test_the_views_of_an_event_are_shared_out_evenly() -> None:
    """Two long animations do not take the one view of a still."""
    images = shared_out([fetched(20), fetched(1), fetched(20)], 11)
    assert [len(image.frames) for image in images] == [5, 1, 5]
    assert [image.unseen for image in images] == [15, 0, 15]


def test_every_image_of_an_event_is_looked_at_however_many_there_are() -> None:
    """More images than views are still judged, one view each."""
    images = shared_out([fetched(3) for _ in range(5)], 2)
    assert [len(image.frames) for image in images] == [1] * 5


def judged(score: float, views: int) -> list[PassResult]:
    return [
        PassResult(source="builtin", image=0, judgement=judgement(user=score)) for _ in range(views)
    ]


def test_an_image_that_was_not_all_seen_is_undecided_and_says_how_much_was() -> None:
    """Safe would claim what nobody looked at."""
    decision = decide(policy(), judged(0.01, 20), [fetched(20, total=30)])
    assert decision.outcome == "undecided"
    assert decision.undecided_reason is UndecidedReason.IMAGE_NOT_ALL_SEEN
    assert decision.undecided_detail == "images[0]: 20 of 30 views"
    assert (decision.images[0].seen, decision.images[0].total) == (20, 30)


def test_harm_in_what_was_seen_is_unsafe_whatever_was_not() -> None:
    """More to see never makes a verdict milder."""
    results = [*judged(0.01, 19), *judged(0.99, 1)]
    decision = decide(policy(), results, [fetched(20, total=30)])
    assert decision.outcome == "unsafe"
    assert (decision.images[0].seen, decision.images[0].total) == (20, 30)


def test_animated_files_of_the_tests_are_animations() -> None:
    """The helper that other suites use keeps its frames apart."""
    assert len(decode(animated([scene(1), scene(2)], "GIF"), LIMITS)) == 2
