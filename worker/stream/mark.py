"""How a ``Mark`` is written into the metadata of a committed offset."""

from __future__ import annotations

from worker.stream.base import UNMARKED, Mark


def encode_mark(mark: Mark) -> str:
    """Text for the offset's metadata; empty for ``UNMARKED``, so that plain commits look plain."""
    return "" if mark == UNMARKED else f"attempts={mark.attempts};until={mark.until}"


def decode_mark(metadata: str | None) -> Mark:
    """Read what ``encode_mark`` wrote. Metadata of other tools counts as ``UNMARKED``."""
    try:
        fields = dict(part.split("=", 1) for part in (metadata or "").split(";") if part)
        return Mark(attempts=int(fields["attempts"]), until=int(fields["until"]))
    except (KeyError, ValueError):
        return UNMARKED
