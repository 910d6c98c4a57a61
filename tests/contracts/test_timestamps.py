"""Times are written in UTC and checked against RFC 3339."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contracts.timestamps import is_rfc3339, rfc3339


def test_seconds_since_the_epoch_are_written_in_utc_with_milliseconds() -> None:
    """One spelling for every time the worker publishes."""
    assert rfc3339(1_767_225_600.125) == "2026-01-01T00:00:00.125Z"


@given(st.floats(0, 4e9))
def test_what_is_written_is_valid(seconds: float) -> None:
    """Any moment of the next century."""
    assert is_rfc3339(rfc3339(seconds))


@pytest.mark.parametrize(
    "text",
    [
        "1985-04-12T23:20:50.52Z",
        "1996-12-19T16:39:57-08:00",
        "1990-12-31T23:59:60Z",
        "1937-01-01T12:00:27.87+00:20",
        "2024-02-29t00:00:00z",
        "2000-02-29 00:00:00Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_times_of_rfc_3339_are_accepted(text: str) -> None:
    """Its own examples, and its corners."""
    assert is_rfc3339(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00Z\n",
        "２０２６-01-01T00:00:00Z",
        "1767225600",
    ],
)
def test_other_times_are_refused(text: str) -> None:
    """Days that do not exist and spellings of other standards."""
    assert not is_rfc3339(text)
