"""What every object store promises; a store's test module subclasses ``StoreConformance``."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from worker.codes import UndecidedReason
from worker.errors import Undecided
from worker.media.base import ObjectKey, ObjectStore

BUCKET = "conformance"


class Objects(Protocol):
    """Arranges objects behind the store under test."""

    def put(self, key: str, data: bytes) -> None: ...


def key(name: str, **pins: str) -> ObjectKey:
    return ObjectKey(bucket=BUCKET, key=name, **pins)


class StoreConformance:
    """Needs the fixtures ``store`` and ``objects``."""

    @pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_001])
    def test_an_object_is_read_byte_for_byte(
        self, store: ObjectStore, objects: Objects, size: int
    ) -> None:
        data = bytes(range(256)) * (size // 256 + 1)
        objects.put("sizes/object", data[:size])
        assert store.read(key("sizes/object"), 4_000_000) == data[:size]

    @pytest.mark.parametrize(
        "name",
        ["plain.png", "a b+c&d=e?f#g.png", "100%/%41.png", "ünïcode/日本語.webp", "'quoted\".png"],
    )
    def test_a_key_is_taken_literally(
        self, store: ObjectStore, objects: Objects, name: str
    ) -> None:
        objects.put(name, name.encode())
        assert store.read(key(name), 1_000) == name.encode()

    @pytest.mark.parametrize("name", ["missing", "missing/deeper/still", "there/below-an-object"])
    def test_a_missing_object_is_the_events_fault(
        self, store: ObjectStore, objects: Objects, name: str
    ) -> None:
        objects.put("there", b"x")
        assert _refusal(store, key(name)) is UndecidedReason.IMAGE_MISSING

    def test_a_folder_is_no_object(self, store: ObjectStore, objects: Objects) -> None:
        objects.put("folder/object", b"x")
        assert _refusal(store, key("folder")) is UndecidedReason.IMAGE_MISSING

    def test_an_object_of_exactly_the_cap_is_read(
        self, store: ObjectStore, objects: Objects
    ) -> None:
        objects.put("cap", b"x" * 500)
        assert len(store.read(key("cap"), 500)) == 500

    def test_an_object_one_byte_over_the_cap_is_refused(
        self, store: ObjectStore, objects: Objects
    ) -> None:
        objects.put("cap", b"x" * 501)
        assert _refusal(store, key("cap"), 500) is UndecidedReason.IMAGE_TOO_LARGE

    def test_a_version_that_never_was_is_missing(
        self, store: ObjectStore, objects: Objects
    ) -> None:
        objects.put("pinned", b"x")
        refused = _refusal(store, key("pinned", version_id="01ARZ3NDEKTSV4RRFFQ69G5FAV"))
        assert refused is UndecidedReason.IMAGE_MISSING

    def test_a_store_that_serves_passes_its_check(self, store: ObjectStore) -> None:
        store.check()

    def test_threads_read_at_the_same_time(self, store: ObjectStore, objects: Objects) -> None:
        wanted = {f"many/{index}": hashlib.sha256(bytes([index])).digest() for index in range(32)}
        for name, data in wanted.items():
            objects.put(name, data)
        with ThreadPoolExecutor(16) as pool:
            read = pool.map(lambda name: store.read(key(name), 1_000), list(wanted) * 4)
            assert list(read) == list(wanted.values()) * 4


def _refusal(store: ObjectStore, wanted: ObjectKey, cap: int = 1_000) -> UndecidedReason:
    with pytest.raises(Undecided) as refused:
        store.read(wanted, cap)
    return refused.value.reason
