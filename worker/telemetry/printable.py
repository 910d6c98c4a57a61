"""Text that can neither break a log line nor move a terminal's cursor."""

from __future__ import annotations

from typing import Any


def printable(value: Any) -> Any:
    """``value`` with everything escaped that could break a line or move a terminal's cursor."""
    if isinstance(value, dict):
        return {str(key): printable(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [printable(each) for each in value]
    if isinstance(value, str) and not value.isprintable():
        return value.encode("unicode_escape").decode("ascii")
    return value
