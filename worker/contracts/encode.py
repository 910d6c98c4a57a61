"""Structs to JSON, the same bytes for the same value, and times as the contracts write them."""

from __future__ import annotations

import msgspec

from worker.contracts.timestamps import rfc3339

__all__ = ["encode", "rfc3339"]

_encoder = msgspec.json.Encoder(order="deterministic")


def encode(value: msgspec.Struct) -> bytes:
    """Compact UTF-8 JSON: fields in the order of the type, keys of free objects sorted."""
    return _encoder.encode(value)
