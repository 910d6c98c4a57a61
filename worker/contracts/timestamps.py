"""RFC 3339 times: written in UTC with milliseconds, checked without being interpreted."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from functools import lru_cache

_RFC3339 = re.compile(
    r"(\d{4})-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt ]"
    r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_SHORT_MONTHS = frozenset({"04", "06", "09", "11"})


def rfc3339(seconds: float) -> str:
    """Seconds since the epoch as UTC, to the millisecond: ``2026-01-31T09:30:00.125Z``."""
    second = math.floor(seconds)
    return f"{_second(second)}.{int((seconds - second) * 1000):03d}Z"


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")


def is_rfc3339(text: str) -> bool:
    """Whether ``text`` is a date-time of RFC 3339 §5.6 on a day that exists.

    Any year and any offset will do, for a producer's clock may be far off. Leap seconds (``:60``)
    are allowed on every day, as no table of past and future ones is kept.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return False
    year, month, day = match.groups()
    if month == "02":
        return day <= ("29" if _is_leap(int(year)) else "28")
    return not (day == "31" and month in _SHORT_MONTHS)


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
