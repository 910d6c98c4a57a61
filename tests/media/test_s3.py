"""The S3 store over HTTP against a real S3 API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from tests.media.conformance import BUCKET, StoreConformance, key
from tests.support.s3 import S3Server
from worker.codes import UndecidedReason
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.media.base import ObjectKey
from worker.media.factory import open_store
from worker.media.s3 import S3Store
from worker.settings import Store

pytestmark = pytest.mark.s3

_names = itertools.count()


class _Bucket:
    """Puts into one bucket; ``BUCKET`` of the conformance suite maps to it."""

    def __init__(self, client: Any, name: str) -> None:
        self.client, self.name = client, name

    def put(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=name, Body=data)


@pytest.fixture
def objects(s3_server: S3Server) -> Iterator[_Bucket]:
    client = s3_server.client()
    name = f"{BUCKET}-{next(_names)}"
    client.create_bucket(Bucket=name)
    yield _Bucket(client, name)
    client.close()


def settings(server: S3Server, *buckets: str, **changes: Any) -> Store:
    return Store(
        endpoint_url=server.endpoint_url,
        region=server.region,
        path_style=True,
        buckets=buckets,
        **changes,
    )


class _InBucket:
    """The store under test, with the suite's bucket name replaced by the test's own."""

    def __init__(self, store: S3Store, bucket: str) -> None:
        self._store, self._bucket = store, bucket

    def read(self, wanted: ObjectKey, max_bytes: int) -> bytes:
        mine = ObjectKey(bucket=self._bucket, key=wanted.key, version_id=wanted.version_id)
        return self._store.read(mine, max_bytes)

    def check(self) -> None:
        self._store.check()

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def store(s3_server: S3Server, objects: _Bucket, s3_credentials: None) -> Iterator[_InBucket]:
    opened = S3Store(settings(s3_server, objects.name))
    yield _InBucket(opened, objects.name)
    opened.close()


class TestConformance(StoreConformance):
    """The S3 store keeps the promises of every store."""


def test_a_version_pin_reads_the_version_and_not_the_newest(
    store: _InBucket, objects: _Bucket
) -> None:
    objects.client.put_bucket_versioning(
        Bucket=objects.name, VersioningConfiguration={"Status": "Enabled"}
    )
    first = objects.client.put_object(Bucket=objects.name, Key="a", Body=b"first")["VersionId"]
    objects.put("a", b"second")
    assert store.read(key("a", version_id=first), 100) == b"first"
    assert store.read(key("a"), 100) == b"second"


def test_a_deleted_object_is_missing(store: _InBucket, objects: _Bucket) -> None:
    objects.put("a", b"x")
    objects.client.delete_object(Bucket=objects.name, Key="a")
    with pytest.raises(Undecided) as refused:
        store.read(key("a"), 100)
    assert refused.value.reason is UndecidedReason.IMAGE_MISSING


def test_a_bucket_that_is_gone_blames_the_settings_and_no_event(
    s3_server: S3Server, s3_credentials: None
) -> None:
    gone = S3Store(settings(s3_server, "no-such-bucket"))
    with pytest.raises(DependencyUnavailable):
        gone.read(ObjectKey(bucket="no-such-bucket", key="a"), 100)
    with pytest.raises(ConfigurationError, match=r"store\.buckets"):
        gone.check()
    gone.close()


def test_the_factory_opens_what_the_settings_name(
    s3_server: S3Server, objects: _Bucket, s3_credentials: None
) -> None:
    objects.put("a", b"x")
    opened = open_store(settings(s3_server, objects.name))
    assert opened.read(ObjectKey(bucket=objects.name, key="a"), 10) == b"x"
    opened.close()
