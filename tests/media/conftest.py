"""Fixtures of the media suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.s3 import ACCESS_KEY, SECRET_KEY
from tests.support.s3 import s3_server as s3_server


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials of the test servers, where the worker takes them from."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def faulty(s3_credentials: None) -> Iterator[FaultyS3]:
    """A store that misbehaves on demand."""
    with faulty_s3() as server:
        yield server
