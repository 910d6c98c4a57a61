"""Structs to JSON, the same bytes for the same value."""

from __future__ import annotations

import msgspec

_encoder = msgspec.json.Encoder(order="deterministic")


def encode(value: msgspec.Struct) -> bytes:
    """Compact UTF-8 JSON: fields in the order of the type, keys of free objects sorted."""
    return _encoder.encode(value)
