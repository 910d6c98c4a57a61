"""Named streams of reproducible random numbers."""

from __future__ import annotations

from random import Random


def stream(name: str, seed: int) -> Random:
    """The random stream called ``name``; equal names and seeds give equal draws on any machine."""
    return Random(f"{name}:{seed}")  # noqa: S311
