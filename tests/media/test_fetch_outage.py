"""An outage is not a bad event, and a bad object is not an outage."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.media.fetching import errors, fetched, fetching, ref, refs, until
from tests.support.faulty_s3 import FaultyS3
from tests.support.images import encoded, quarters
from tests.support.stores import MemoryStore
from worker.contracts.event import ImageRef
from worker.errors import DependencyUnavailable
from worker.images import FetchedImage
from worker.media.attempts import Attempts
from worker.media.directory import DirectoryStore
from worker.media.fetch import ImageFetcher
from worker.media.s3 import S3Store
from worker.settings import Store

PICTURE = encoded(quarters())
RETRY_WITHIN_S = 60.0


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.objects = {f"{index}.png": PICTURE for index in range(64)}
    return store


async def retried(
    fetcher: ImageFetcher, wanted: list[ImageRef]
) -> tuple[tuple[FetchedImage, ...], int]:
    """What the stream does: the same event again until it is not told that the store is away."""
    until, refusals = time.monotonic() + RETRY_WITHIN_S, 0
    while True:
        try:
            return await fetched(fetcher, wanted), refusals
        except DependencyUnavailable:
            refusals += 1
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


async def test_one_bad_object_beside_others_that_are_read_is_that_events_alone(
    store: MemoryStore,
) -> None:
    store.bad = {"7.png"}
    async with fetching(store) as fetcher:
        events = await asyncio.gather(
            *(retried(fetcher, refs(f"{index}.png")) for index in range(16))
        )
    codes = [errors(images) for images, _ in events]
    assert codes == [["image_timeout"] if index == 7 else [None] for index in range(16)]


async def test_one_bad_object_on_a_quiet_worker_does_not_hold_its_partition_for_ever(
    store: MemoryStore,
) -> None:
    store.bad = {"7.png"}
    async with fetching(store) as fetcher:
        images, _ = await retried(fetcher, refs("7.png"))
    assert errors(images) == ["image_timeout"]


async def test_an_event_of_only_bad_objects_is_undecided_and_holds_up_no_other(
    store: MemoryStore,
) -> None:
    store.bad = {f"{index}.png" for index in range(16)}
    async with fetching(store) as fetcher:
        bad = asyncio.ensure_future(retried(fetcher, refs(*sorted(store.bad))))
        for index in range(20, 40):
            images, refusals = await retried(fetcher, refs(f"{index}.png"))
            assert (errors(images), refusals) == ([None], 0)
        images, _ = await bad
    assert errors(images) == ["image_timeout"] * 16


async def test_a_store_that_is_away_blames_no_event(store: MemoryStore) -> None:
    """Not the first, not the hundredth; and once it is back every event is judged whole."""
    async with fetching(store) as fetcher:
        for index in range(8):
            await fetched(fetcher, refs(f"{index}.png"))
        store.away = True
        refused = await asyncio.gather(
            *(fetched(fetcher, refs(f"{index % 64}.png")) for index in range(100)),
            return_exceptions=True,
        )
        assert all(isinstance(one, DependencyUnavailable) for one in refused)
        reads = store.reads.total()
        with pytest.raises(DependencyUnavailable):
            await fetched(fetcher, refs("1.png"))
        assert store.reads.total() == reads  # refused at once, without another read
        store.away = False
        events = await asyncio.gather(
            *(retried(fetcher, refs(f"{index}.png")) for index in range(64))
        )
    assert all(errors(images) == [None] for images, _ in events)


async def test_a_blink_in_the_middle_blames_no_event(store: MemoryStore) -> None:
    """The store goes away for a moment, at any moment, while events stream through."""
    async with fetching(store, threads=4) as fetcher:

        async def blink() -> None:
            for _ in range(10):
                await asyncio.sleep(0.03)
                store.away = not store.away
            store.away = False

        blinking = asyncio.ensure_future(blink())
        events = []
        for start in range(0, 320, 8):
            events += await asyncio.gather(
                *(retried(fetcher, refs(f"{index % 64}.png")) for index in range(start, start + 8))
            )
        await blinking
    assert len(events) == 320
    assert all(errors(images) == [None] for images, _ in events)


async def test_an_event_with_a_good_and_an_unreadable_image_waits_as_a_whole(
    store: MemoryStore,
) -> None:
    """A store that answers nothing for one image is no verdict about the event."""
    async with fetching(store) as fetcher:
        store.away = True
        wanted = [ImageRef(uri="http://example.com/x"), *refs("1.png")]
        with pytest.raises(DependencyUnavailable):
            await fetched(fetcher, wanted)
        store.away = False
        images, _ = await retried(fetcher, wanted)
    assert errors(images) == ["image_uri_invalid", None]


async def test_a_probe_is_shared_by_all_who_wait_for_it(store: MemoryStore) -> None:
    async with fetching(store) as fetcher:
        store.away = True
        with pytest.raises(DependencyUnavailable):
            await fetched(fetcher, refs("1.png"))
        attempts: Attempts | None = fetcher._attempts
        assert attempts is not None
        breaker = attempts._breaker
        await until(lambda: breaker.needs_probe)
        store.away, checks = False, store.checks
        await asyncio.gather(*(fetched(fetcher, refs(f"{index}.png")) for index in range(20)))
    assert store.checks == checks + 1


async def test_a_directory_that_is_moved_away_and_back_blames_no_event(tmp_path: Path) -> None:
    root = tmp_path / "objects"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.png").write_bytes(PICTURE)
    async with fetching(DirectoryStore(root)) as fetcher:
        root.rename(tmp_path / "away")
        waiting = asyncio.ensure_future(retried(fetcher, refs("a.png")))
        await asyncio.sleep(0.3)
        (tmp_path / "away").rename(root)
        images, refusals = await waiting
    assert errors(images) == [None]
    assert refusals > 0


def s3(faulty: FaultyS3, **changes: Any) -> tuple[S3Store, dict[str, Any]]:
    options = {
        "endpoint_url": faulty.endpoint_url,
        "region": "us-east-1",
        "path_style": True,
        "buckets": ("images",),
        "connect_timeout_s": 0.5,
        "read_timeout_s": 0.5,
        **changes,
    }
    return S3Store(Store(**options)), options


async def test_an_s3_server_that_stops_in_the_middle_and_comes_back_blames_no_event(
    faulty: FaultyS3,
) -> None:
    faulty.objects = {f"images/{index}.png": PICTURE for index in range(24)}
    opened, options = s3(faulty)
    async with fetching(opened, **options) as fetcher:
        first = await fetched(fetcher, refs(*(f"{index}.png" for index in range(8))))
        await asyncio.to_thread(faulty.stop)
        waiting = [
            asyncio.ensure_future(retried(fetcher, refs(f"{index}.png"))) for index in range(24)
        ]
        await asyncio.sleep(1.0)
        await asyncio.to_thread(faulty.start)
        events = await asyncio.gather(*waiting)
    assert errors(first) == [None] * 8
    assert all(errors(images) == [None] for images, _ in events)
    assert sum(refusals for _, refusals in events) > 0


@pytest.mark.parametrize("fault", ["500", "slow_down", "reset", "truncated", "garbage"])
async def test_an_s3_server_that_fails_every_read_blames_no_event(
    faulty: FaultyS3, fault: Any
) -> None:
    faulty.objects = {f"images/{index}.png": PICTURE for index in range(8)}
    faulty.fault = fault
    opened, options = s3(faulty)
    async with fetching(opened, **options) as fetcher:
        refused = await asyncio.gather(
            *(fetched(fetcher, refs(f"{index}.png")) for index in range(8)),
            return_exceptions=True,
        )
        assert all(isinstance(one, DependencyUnavailable) for one in refused)
        faulty.fault = None
        events = await asyncio.gather(
            *(retried(fetcher, refs(f"{index}.png")) for index in range(8))
        )
    assert all(errors(images) == [None] for images, _ in events)


async def test_an_object_that_drips_is_undecided_at_the_deadline_and_others_are_not(
    faulty: FaultyS3,
) -> None:
    faulty.objects = {"images/good.png": PICTURE, "images/drip.png": bytes(20_000)}
    faulty.faults = {"images/drip.png": "drip"}
    opened, options = s3(faulty, fetch_deadline_s=0.4)
    async with fetching(opened, **options) as fetcher:
        began = time.monotonic()
        images, _ = await retried(fetcher, refs("good.png", "drip.png"))
        assert errors(images) == [None, "image_timeout"]
        assert time.monotonic() - began < 20
        assert errors(await fetched(fetcher, [ref("good.png")])) == [None]


async def test_as_many_dripping_objects_as_threads_stop_no_fetching_beyond_the_deadline(
    faulty: FaultyS3,
) -> None:
    """Each read gives its thread back at the deadline, whatever still comes in."""
    bad = [f"drip-{number}.png" for number in range(4)]
    faulty.objects = {f"images/{name}": bytes(20_000) for name in bad}
    faulty.objects["images/good.png"] = PICTURE
    faulty.faults = {f"images/{name}": "drip" for name in bad}
    opened, options = s3(faulty, fetch_deadline_s=0.4, threads=2)
    async with fetching(opened, **options) as fetcher:
        dripping = [asyncio.ensure_future(retried(fetcher, refs(name))) for name in bad]
        await until(lambda: sum(faulty.requests.values()) >= 2)
        assert errors((await retried(fetcher, refs("good.png")))[0]) == [None]
        for images, _ in await asyncio.gather(*dripping):
            assert errors(images) == ["image_timeout"]
