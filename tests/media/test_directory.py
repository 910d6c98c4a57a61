"""The directory store: S3's semantics over a directory that nothing leads out of."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.media.conformance import BUCKET, StoreConformance, key
from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.media.base import ObjectKey
from worker.media.directory import DirectoryStore


class _Files:
    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, data: bytes) -> None:
        path = self.root / BUCKET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "objects" / BUCKET).mkdir(parents=True)
    return tmp_path / "objects"


@pytest.fixture
def objects(root: Path) -> _Files:
    return _Files(root)


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return DirectoryStore(root)


class TestConformance(StoreConformance):
    """The directory store keeps the promises of every store."""


def refusal(store: DirectoryStore, wanted: ObjectKey) -> Undecided:
    with pytest.raises(Undecided) as refused:
        store.read(wanted, 1_000)
    return refused.value


def test_a_version_is_refused_with_the_reason(store: DirectoryStore, objects: _Files) -> None:
    """Serving the one copy there is for a named version would be a wrong success."""
    objects.put("a.png", b"x")
    error = refusal(store, key("a.png", version_id="null"))
    assert error.reason is UndecidedReason.IMAGE_MISSING
    assert "no versions" in error.detail


@pytest.mark.parametrize(
    "name", ["../secret", "a/../../secret", "..", "./../secret", "a//../../secret", "/etc/passwd"]
)
def test_no_key_leads_out_of_the_bucket(
    store: DirectoryStore, objects: _Files, root: Path, name: str
) -> None:
    (root / "secret").write_bytes(b"secret")
    objects.put("a/b", b"x")
    assert refusal(store, key(name)).reason is UndecidedReason.IMAGE_MISSING


def test_a_symbolic_link_is_not_followed(
    store: DirectoryStore, objects: _Files, root: Path
) -> None:
    """Neither as the object nor as a folder on the way to it."""
    objects.put("real/object", b"secret")
    (root / BUCKET / "link").symlink_to(root / BUCKET / "real" / "object")
    (root / BUCKET / "folder").symlink_to(root / BUCKET / "real", target_is_directory=True)
    for name in ("link", "folder/object"):
        reason = refusal(store, key(name)).reason
        assert reason in {UndecidedReason.IMAGE_FORBIDDEN, UndecidedReason.IMAGE_MISSING}


def test_a_pipe_or_a_socket_is_refused_without_waiting(
    store: DirectoryStore, objects: _Files, root: Path
) -> None:
    objects.put("object", b"x")
    os.mkfifo(root / BUCKET / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / BUCKET / "socket"))
        for name in ("pipe", "socket"):
            assert refusal(store, key(name)).reason is UndecidedReason.IMAGE_FORBIDDEN


def test_a_key_longer_than_a_file_name_is_missing(store: DirectoryStore) -> None:
    assert refusal(store, key("x" * 1_024)).reason is UndecidedReason.IMAGE_MISSING


def test_a_directory_that_is_gone_is_an_outage_and_no_fault_of_the_event(
    store: DirectoryStore, objects: _Files, root: Path
) -> None:
    objects.put("object", b"x")
    root.rename(root.with_name("away"))
    with pytest.raises(DependencyUnavailable):
        store.read(key("object"), 1_000)
    with pytest.raises(ConfigurationError, match=r"store\.directory"):
        store.check()
    root.with_name("away").rename(root)
    assert store.read(key("object"), 1_000) == b"x"


def test_reading_leaves_no_descriptor_open(store: DirectoryStore, objects: _Files) -> None:
    objects.put("a/b/c", b"x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        store.read(key("a/b/c"), 1_000)
        refusal(store, key("a/b/missing"))
        refusal(store, key("a"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
