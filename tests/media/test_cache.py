"""The cache: bounded by bytes, and never an answer that a read would not have given."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.images import JudgeImage
from worker.media.base import ObjectKey
from worker.media.cache import Decoded, ImageCache


def content(size: int, name: str = "x") -> Decoded:
    return Decoded(frames=(JudgeImage(sha256=name, width=1, height=1, rgb=bytes(size)),))


def named(key: str, version: str | None = None, sha256: str | None = None) -> ObjectKey:
    return ObjectKey(bucket="b", key=key, version_id=version, sha256=sha256)


def test_a_version_or_a_digest_names_content_and_a_bare_key_does_not() -> None:
    """A bare key may hold something else by now: it is read again, always."""
    cache = ImageCache(1_000_000)
    for key in (named("a"), named("a", "v1"), named("a", None, "d1"), named("a", "v1", "d1")):
        cache.put(key, "d1", content(10))
    assert cache.find(named("a")) is None
    assert cache.find(named("a", "v1")) == ("d1", content(10))
    assert cache.find(named("a", None, "d1")) == ("d1", content(10))
    assert cache.find(named("a", "v1", "d1")) == ("d1", content(10))


@pytest.mark.parametrize(
    "other",
    [
        named("b", None, "d1"),
        ObjectKey(bucket="other", key="a", sha256="d1"),
        named("a", "v2"),
        named("a", "v2", "d1"),
        named("a", None, "d2"),
    ],
)
def test_a_pin_counts_only_for_the_object_it_was_read_from(other: ObjectKey) -> None:
    """Else an event could name one object and be judged by another."""
    cache = ImageCache(1_000_000)
    cache.put(named("a", None, "d1"), "d1", content(10))
    cache.put(named("a", "v1"), "d1", content(10))
    assert cache.find(other) is None


def test_content_is_found_by_its_digest_however_it_was_read() -> None:
    cache = ImageCache(1_000_000)
    cache.put(named("a"), "d1", content(10))
    assert cache.get("d1") == content(10)
    assert cache.get("d2") is None


def test_the_least_recently_used_goes_first() -> None:
    cache = ImageCache(40_000)
    for name in ("d1", "d2", "d3"):
        cache.put(named(name, "v"), name, content(10_000))
        cache.get("d1")
    assert cache.find(named("d1", "v")) is not None
    assert cache.find(named("d2", "v")) is None
    assert cache.get("d2") is None
    assert cache.find(named("d3", "v")) is not None


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = ImageCache(10_000)
    cache.put(named("a", "v"), "d1", content(20_000))
    assert (len(cache), cache.bytes) == (0, 0)
    assert ImageCache(0).get("d1") is None


def test_a_version_that_changed_its_content_forgets_the_old_one() -> None:
    cache = ImageCache(1_000_000)
    cache.put(named("a", "null"), "d1", content(10))
    cache.put(named("a", "null"), "d2", content(20))
    assert cache.find(named("a", "null")) == ("d2", content(20))
    cache.put(named("b", "v"), "d1", content(10))
    assert cache.find(named("a", "null")) == ("d2", content(20))


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 30_000), st.booleans()),
        max_size=40,
    )
)
def test_whatever_is_put_the_bytes_stay_within_the_bound_and_add_up(
    puts: list[tuple[int, int, int, bool]],
) -> None:
    cache = ImageCache(50_000)
    for key, digest, size, pinned in puts:
        cache.put(named(str(key), "v" if pinned else None), str(digest), content(size))
        assert 0 <= cache.bytes <= 50_000
        found = cache.find(named(str(key), "v"))
        assert found is None or cache.get(found[0]) == found[1]
    for filler in range(50):
        cache.put(named(f"filler{filler}"), f"filler{filler}", content(20_000))
    assert len(cache) == 2
    assert cache.bytes == 2 * (20_000 + 1_024)


def test_threads_share_it() -> None:
    cache = ImageCache(100_000)

    def use(index: int) -> None:
        for turn in range(300):
            name = str((index * 7 + turn) % 20)
            cache.put(named(name, "v"), name, content(9_000, name))
            found = cache.get(name)
            assert found is None or found.frames[0].sha256 == name

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert cache.bytes <= 100_000
