"""Memory stays within the settings while many events bring large images at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_PROGRAM = """
import asyncio, json, random, resource, sys
from tests.media.fetching import fetching, refs
from tests.support.images import encoded, noise
from tests.support.stores import MemoryStore

EVENTS, MIB = 24, 1024 * 1024

async def main():
    store = MemoryStore()
    large = noise(250, 200).resize((4000, 3000))
    for index, kind in enumerate(("JPEG", "PNG", "WEBP", "JPEG")):
        options = {"method": 0} if kind == "WEBP" else {}
        store.objects[f"{index}"] = encoded(large, kind, **options)
    del large
    settings = dict(threads=16, inflight_bytes=96 * MIB, cache_bytes=32 * MIB)
    async with fetching(store, **settings) as fetcher:
        async with fetcher.fetch(refs("0")):
            pass
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        held = peak = most = judged = 0

        async def event(index):
            nonlocal held, peak, most, judged
            async with fetcher.fetch(refs(str(index % 4))) as images:
                size = sum(len(frame.rgb) for image in images for frame in image.frames)
                assert size > 6 * MIB and not any(image.error for image in images)
                held += size
                most = max(most, held)
                peak = max(peak, fetcher.inflight_bytes)
                await asyncio.sleep(random.random() * 0.05)
                held -= size
                judged += 1

        await asyncio.gather(*(event(index) for index in range(EVENTS)))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"judged": judged, "reserved": peak, "held": most, "cached":
            fetcher.cached_bytes, "left": fetcher.inflight_bytes, "grown": after - before}))

asyncio.run(main())
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    """A process of its own: what other tests left behind does not count."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROGRAM],
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, int] = json.loads(done.stdout)
    return result


def test_every_one_of_24_events_with_a_12_megapixel_image_is_served(
    measured: dict[str, int],
) -> None:
    assert measured["judged"] == 24
    assert measured["left"] == 0


def test_decoded_bytes_in_flight_stay_within_the_setting(measured: dict[str, int]) -> None:
    assert measured["held"] <= measured["reserved"] <= 96 * 1024 * 1024


def test_the_cache_stays_within_the_setting(measured: dict[str, int]) -> None:
    assert 0 < measured["cached"] <= 32 * 1024 * 1024


def test_the_process_grows_by_no_more_than_the_settings_and_one_decoder_allow(
    measured: dict[str, int],
) -> None:
    """96 MiB in flight, 32 MiB of cache, one large decoder at a time (20 bytes a pixel of
    12 megapixels), and the allocator's slack; 24 images at once would be 6 GiB."""
    assert measured["grown"] < (96 + 32) * 1024**2 + 20 * 12_000_000 + 64 * 1024**2
