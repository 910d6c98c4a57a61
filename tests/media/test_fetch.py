"""The fetcher: every image of an event, in order, checked, and none ever dropped."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import threading
from pathlib import Path

import pytest

from tests.media.fetching import errors, fetched, fetching, ref, refs, until
from tests.support.images import animated, encoded, noise, plain, quarters
from tests.support.stores import MemoryStore
from worker.clock import SystemClock
from worker.codes import UndecidedReason
from worker.contracts.event import ImageRef
from worker.errors import Undecided
from worker.media.directory import DirectoryStore
from worker.media.fetch import ImageFetcher
from worker.settings import Store

PICTURE = encoded(quarters())
DIGEST = hashlib.sha256(PICTURE).hexdigest()


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.objects["a.png"] = PICTURE
    return store


async def test_every_image_comes_back_in_the_order_of_the_event(store: MemoryStore) -> None:
    """Whatever finishes first; with frames or with a code, never neither, never both."""
    store.objects["slow.png"] = encoded(noise(1500, 1500))
    store.objects["moving.gif"] = animated([quarters(), plain(80, 40)], "GIF")
    store.objects["text.txt"] = b"hello"
    store.objects["large.png"] = bytes(20_001)
    wanted = [
        *refs("slow.png", "missing.png", "a.png", "text.txt", "moving.gif"),
        ImageRef(uri="http://example.com/a.png"),
        ImageRef(uri="s3://elsewhere/a.png"),
        ref("a.png", sha256="0" * 64),
        ref("a.png", sha256=DIGEST),
    ]
    async with fetching(store) as fetcher:
        images = await fetched(fetcher, wanted)
    assert [image.uri for image in images] == [one.uri for one in wanted]
    assert errors(images) == [
        None,
        "image_missing",
        None,
        "image_format",
        None,
        "image_uri_invalid",
        "image_not_allowed",
        "image_digest_mismatch",
        None,
    ]
    assert all(bool(image.frames) is (image.error is None) for image in images)
    assert [len(image.frames) for image in images] == [1, 0, 1, 0, 2, 0, 0, 0, 1]
    assert images[2].sha256 == images[8].sha256 == DIGEST


async def test_bytes_of_another_digest_are_never_judged(store: MemoryStore) -> None:
    """Not when the object was replaced, and not when the right bytes are in the cache."""
    async with fetching(store) as fetcher:
        assert errors(await fetched(fetcher, [ref("a.png", sha256=DIGEST)])) == [None]
        store.objects["b.png"] = encoded(plain())
        (image,) = await fetched(fetcher, [ref("b.png", sha256=DIGEST)])
    assert image.error == UndecidedReason.IMAGE_DIGEST_MISMATCH
    assert image.frames == ()
    assert image.sha256 == hashlib.sha256(store.objects["b.png"]).hexdigest()


async def test_a_bare_key_is_read_every_time_and_shows_what_is_there_now(
    store: MemoryStore,
) -> None:
    async with fetching(store) as fetcher:
        (before,) = await fetched(fetcher, refs("a.png"))
        store.objects["a.png"] = encoded(plain())
        (after,) = await fetched(fetcher, refs("a.png"))
    assert before.sha256 != after.sha256
    assert before.frames != after.frames
    assert store.reads["a.png"] == 2


@pytest.mark.parametrize("pin", [{"sha256": DIGEST}, {"version_id": "v1"}])
async def test_a_pinned_image_is_read_once_and_then_served_while_the_store_is_away(
    store: MemoryStore, pin: dict[str, str]
) -> None:
    async with fetching(store) as fetcher:
        first = await fetched(fetcher, [ref("a.png", **pin)])
        store.away = True
        assert await fetched(fetcher, [ref("a.png", **pin)]) == first
    assert store.reads["a.png"] == 1


async def test_a_missing_image_is_asked_for_again(store: MemoryStore) -> None:
    """It may arrive a moment after its event: absence is not remembered."""
    async with fetching(store) as fetcher:
        assert errors(await fetched(fetcher, refs("late.png"))) == ["image_missing"]
        store.objects["late.png"] = PICTURE
        assert errors(await fetched(fetcher, refs("late.png"))) == [None]


async def test_the_same_bytes_are_decoded_once(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good or bad: a hostile image that is sent again and again costs one decoding."""
    from worker.media import decode, read

    decoded = []

    def counted(data: bytes, *args: object, **options: object) -> object:
        decoded.append(data)
        return real(data, *args, **options)  # type: ignore[arg-type]

    real = decode.look_at
    monkeypatch.setattr(read, "look_at", counted)
    store.objects["copy.png"] = PICTURE
    store.objects["broken.png"] = PICTURE[:60]
    async with fetching(store) as fetcher:
        for _ in range(3):
            for name in ("a.png", "copy.png", "broken.png"):
                await fetched(fetcher, refs(name))
    assert decoded == [PICTURE, PICTURE[:60]]


async def test_one_object_shown_many_times_is_read_once(store: MemoryStore) -> None:
    async with fetching(store) as fetcher:
        images = await fetched(fetcher, refs(*["a.png"] * 10))
    assert len(images) == 10
    assert store.reads["a.png"] == 1


async def test_too_many_images_make_the_event_undecided_before_any_is_read(
    store: MemoryStore,
) -> None:
    async with fetching(store, max_images=3) as fetcher:
        assert len(await fetched(fetcher, refs(*["a.png"] * 3))) == 3
        store.reads.clear()
        with pytest.raises(Undecided) as error:
            await fetched(fetcher, refs(*["a.png"] * 1_000))
    assert error.value.reason is UndecidedReason.TOO_MANY_IMAGES
    assert not store.reads


async def test_an_event_without_images_needs_no_store(store: MemoryStore) -> None:
    store.away = True
    async with fetching(store) as fetcher:
        assert await fetched(fetcher, []) == ()


async def test_an_image_over_the_byte_cap_or_the_pixel_cap_is_too_large(
    store: MemoryStore,
) -> None:
    store.objects["heavy.png"] = encoded(noise(100, 100))
    store.objects["wide.png"] = encoded(plain(400, 400))
    async with fetching(store, max_image_bytes=20_000, max_image_pixels=100_000) as fetcher:
        images = await fetched(fetcher, refs("heavy.png", "wide.png", "a.png"))
    assert errors(images) == ["image_too_large", "image_too_large", None]


async def test_images_of_one_event_and_of_many_events_are_read_at_the_same_time(
    store: MemoryStore,
) -> None:
    """Eight reads meet at a barrier that only eight at once can pass."""
    barrier = threading.Barrier(8, timeout=20)

    def before(_: str) -> None:
        barrier.wait()

    store.before = before
    store.objects.update({f"{index}.png": PICTURE for index in range(8)})
    async with fetching(store) as fetcher:
        assert errors(await fetched(fetcher, refs(*(f"{index}.png" for index in range(8))))) == (
            [None] * 8
        )
        await asyncio.gather(*(fetched(fetcher, refs(f"{index}.png")) for index in range(8)))


async def test_the_event_loop_turns_while_images_are_decoded(store: MemoryStore) -> None:
    store.objects["large.png"] = encoded(noise(2400, 2400), compress_level=1)
    async with fetching(store) as fetcher:
        turned, longest, loop = 0, 0.0, asyncio.get_running_loop()
        task = asyncio.ensure_future(fetched(fetcher, refs("large.png")))
        while not task.done():
            began = loop.time()
            await asyncio.sleep(0.001)
            longest, turned = max(longest, loop.time() - began), turned + 1
        assert errors(await task) == [None]
    assert turned > 10
    assert longest < 0.5


async def test_the_reading_thread_sees_the_context_of_its_event(store: MemoryStore) -> None:
    """So that spans made there belong to the event's trace."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: dict[str, str] = {}
    store.before = lambda key: seen.update({key: variable.get()})
    store.objects["b.png"] = PICTURE

    async def event(key: str) -> None:
        variable.set(f"context of {key}")
        await fetched(fetcher, refs(key))

    async with fetching(store) as fetcher:
        await asyncio.gather(
            asyncio.create_task(event("a.png")), asyncio.create_task(event("b.png"))
        )
    assert seen == {"a.png": "context of a.png", "b.png": "context of b.png"}


async def test_bytes_are_held_until_the_event_is_done_and_then_given_back(
    store: MemoryStore,
) -> None:
    async with fetching(store) as fetcher:
        async with fetcher.fetch(refs("a.png", "missing.png")) as images:
            held = sum(len(frame.rgb) for image in images for frame in image.frames)
            assert fetcher.inflight_bytes == held > 0
        assert fetcher.inflight_bytes == 0
        with pytest.raises(ValueError, match="judging failed"):
            async with fetcher.fetch(refs("a.png")):
                raise ValueError("judging failed")
        assert fetcher.inflight_bytes == 0


async def test_a_cancelled_event_gives_its_bytes_back_when_its_reads_have_ended(
    store: MemoryStore,
) -> None:
    go, waiting = threading.Event(), threading.Semaphore(0)

    def before(_: str) -> None:
        waiting.release()
        assert go.wait(20)

    store.before = before
    async with fetching(store, threads=1) as fetcher:
        task = asyncio.ensure_future(fetched(fetcher, refs("a.png", "b.png")))
        await asyncio.to_thread(waiting.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert fetcher.inflight_bytes > 0  # one read still runs and may still fill its memory
        go.set()
        await until(lambda: fetcher.inflight_bytes == 0)
        assert store.reads["b.png"] == 0  # the other never started


async def test_stopping_closes_the_store(store: MemoryStore) -> None:
    async with fetching(store) as fetcher:
        await fetched(fetcher, refs("a.png"))
    assert store.closed


async def test_a_directory_store_serves_the_fetcher(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(PICTURE)
    settings = Store(backend="directory", directory=tmp_path, buckets=("images",))
    fetcher = ImageFetcher(DirectoryStore(tmp_path), settings, SystemClock())
    await fetcher.start()
    (image,) = await fetched(fetcher, refs("a.png"))
    await fetcher.stop()
    assert image.sha256 == DIGEST
