"""What the S3 store makes of a server that fails in every way a server fails."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from tests.support.faulty_s3 import Fault, FaultyS3
from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.media.base import ObjectKey
from worker.media.s3 import ATTEMPTS, CHECK_KEY, S3Store
from worker.settings import Store

KEY = ObjectKey(bucket="images", key="a.png")


def opened(faulty: FaultyS3, **changes: float) -> S3Store:
    return S3Store(
        Store(
            endpoint_url=faulty.endpoint_url,
            region="us-east-1",
            path_style=True,
            buckets=("images",),
            **{"connect_timeout_s": 0.5, "read_timeout_s": 0.3, **changes},
        )
    )


@pytest.fixture
def store(faulty: FaultyS3) -> Iterator[S3Store]:
    faulty.objects["images/a.png"] = bytes(range(256)) * 20
    store = opened(faulty)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("access_denied", UndecidedReason.IMAGE_FORBIDDEN),
        ("archived", UndecidedReason.IMAGE_FORBIDDEN),
        ("kms", UndecidedReason.IMAGE_FORBIDDEN),
        ("delete_marker", UndecidedReason.IMAGE_MISSING),
    ],
)
def test_a_refusal_of_this_object_is_the_events_and_is_not_tried_again(
    faulty: FaultyS3, store: S3Store, fault: Fault, reason: UndecidedReason
) -> None:
    faulty.faults["images/a.png"] = fault
    with pytest.raises(Undecided) as refused:
        store.read(KEY, 100_000)
    assert refused.value.reason is reason
    assert faulty.requests["images/a.png"] == 1


@pytest.mark.parametrize("fault", ["500", "slow_down", "reset", "silent", "garbage"])
def test_a_failing_server_is_tried_again_and_blames_no_event(
    faulty: FaultyS3, store: S3Store, fault: Fault
) -> None:
    faulty.fault = fault
    with pytest.raises(DependencyUnavailable):
        store.read(KEY, 100_000)
    assert faulty.requests["images/a.png"] == ATTEMPTS


@pytest.mark.parametrize("fault", ["truncated", "longer_than_announced"])
def test_a_body_of_another_length_than_announced_is_never_taken_for_the_object(
    faulty: FaultyS3, store: S3Store, fault: Fault
) -> None:
    faulty.fault = fault
    if fault == "longer_than_announced":
        # What is announced is all that HTTP reads; the rest poisons the connection, not the data.
        assert store.read(KEY, 100_000) == faulty.objects["images/a.png"][:-10]
        faulty.fault = None
        assert store.read(KEY, 100_000) == faulty.objects["images/a.png"]
    else:
        with pytest.raises(DependencyUnavailable):
            store.read(KEY, 100_000)


def test_a_body_without_a_length_is_read_to_its_end_within_the_cap(
    faulty: FaultyS3, store: S3Store
) -> None:
    faulty.fault = "no_length"
    assert store.read(KEY, 100_000) == faulty.objects["images/a.png"]
    with pytest.raises(Undecided) as refused:
        store.read(KEY, 1_000)
    assert refused.value.reason is UndecidedReason.IMAGE_TOO_LARGE


def test_a_body_that_drips_in_is_given_up_at_the_deadline(faulty: FaultyS3) -> None:
    """Every byte comes within the read timeout, so only the deadline can end it."""
    faulty.objects["images/a.png"] = b"x" * 10_000
    faulty.fault = "drip"
    store = opened(faulty, fetch_deadline_s=0.5)
    began = time.monotonic()
    with pytest.raises(DependencyUnavailable, match="deadline"):
        store.read(KEY, 100_000)
    assert 0.4 < time.monotonic() - began < 5
    store.close()


def test_an_announced_length_over_the_cap_is_refused_before_the_body_is_read(
    faulty: FaultyS3, store: S3Store
) -> None:
    faulty.fault = "drip"
    began = time.monotonic()
    with pytest.raises(Undecided) as refused:
        store.read(KEY, 100)
    assert refused.value.reason is UndecidedReason.IMAGE_TOO_LARGE
    assert time.monotonic() - began < 2


def test_a_server_that_is_not_there_is_an_outage(faulty: FaultyS3, store: S3Store) -> None:
    faulty.stop()
    with pytest.raises(DependencyUnavailable):
        store.read(KEY, 100_000)
    with pytest.raises(DependencyUnavailable):
        store.check()
    faulty.start()
    store.check()
    assert store.read(KEY, 100_000) == faulty.objects["images/a.png"]


def test_refused_credentials_blame_no_event_and_the_check_says_what_to_change(
    faulty: FaultyS3, store: S3Store
) -> None:
    faulty.fault = "bad_credentials"
    with pytest.raises(DependencyUnavailable):
        store.read(KEY, 100_000)
    with pytest.raises(ConfigurationError, match="InvalidAccessKeyId"):
        store.check()


def test_missing_credentials_blame_no_event_and_the_check_says_what_to_change(
    faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", f"{tmp_path}/none")
    monkeypatch.setenv("AWS_CONFIG_FILE", f"{tmp_path}/none")
    store = opened(faulty)
    with pytest.raises(DependencyUnavailable):
        store.read(KEY, 100)
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        store.check()
    store.close()


def test_the_check_passes_where_listing_is_not_allowed(faulty: FaultyS3, store: S3Store) -> None:
    """Without the right to list, S3 answers 403 for a key that is not there: it answers."""
    faulty.faults[f"images/{CHECK_KEY}"] = "access_denied"
    store.check()


def test_an_endpoint_that_is_no_url_is_refused_when_the_store_is_opened() -> None:
    with pytest.raises(ConfigurationError, match=r"store\.endpoint_url"):
        S3Store(Store(endpoint_url="not a url", region="us-east-1"))


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "aws-chunked, gzip"])
def test_an_object_stored_compressed_is_read_as_a_viewer_reads_it(
    faulty: FaultyS3, store: S3Store, encoding: str
) -> None:
    """Uploaders compress whatever they upload; browsers unpack it without a word."""
    picture = bytes(range(256)) * 20
    members = gzip.compress(picture[:99]) + gzip.compress(picture[99:])
    for packed in (gzip.compress(picture), members):
        faulty.objects["images/a.png"] = packed
        faulty.encodings["images/a.png"] = encoding
        assert store.read(KEY, 100_000) == picture


def test_an_object_unpacked_on_the_way_is_taken_as_it_is(faulty: FaultyS3, store: S3Store) -> None:
    """Some stores unpack and keep the header."""
    faulty.encodings["images/a.png"] = "gzip"
    assert store.read(KEY, 100_000) == bytes(range(256)) * 20


def test_a_compressed_object_is_bounded_while_it_is_unpacked(
    faulty: FaultyS3, store: S3Store
) -> None:
    """A megabyte may hold a gigabyte."""
    faulty.objects["images/a.png"] = gzip.compress(bytes(100_000_000))
    faulty.encodings["images/a.png"] = "gzip"
    tracemalloc.start()
    try:
        with pytest.raises(Undecided) as refused:
            store.read(KEY, 1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert refused.value.reason is UndecidedReason.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    ("encoding", "reason"),
    [("gzip", UndecidedReason.IMAGE_CORRUPT), ("br", UndecidedReason.IMAGE_FORMAT)],
)
def test_a_compressed_object_that_cannot_be_unpacked_is_the_events(
    faulty: FaultyS3, store: S3Store, encoding: str, reason: UndecidedReason
) -> None:
    """It fails alike at every try."""
    faulty.objects["images/a.png"] = gzip.compress(bytes(range(256)) * 20)[:-20]
    faulty.encodings["images/a.png"] = encoding
    with pytest.raises(Undecided) as refused:
        store.read(KEY, 100_000)
    assert refused.value.reason is reason
