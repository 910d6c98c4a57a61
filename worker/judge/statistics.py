"""What the device keeps from batch to batch, for those who watch it. No torch here."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec

from worker.judge.base import Judge
from worker.judge.cache import CachingJudge


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """Keys and values of policies and of images under them, and embeddings of images; bytes of
    device memory.

    ``graphs`` are those that ``judge.compile`` has made, ``compile_s`` the seconds at the start.
    """

    policies: int = 0
    policy_bytes: int = 0
    policy_max_bytes: int = 0
    images: int = 0
    image_bytes: int = 0
    image_max_bytes: int = 0
    image_keys: int = 0
    image_keys_bytes: int = 0
    image_keys_max_bytes: int = 0
    graphs: int = 0
    compile_s: float = 0.0


@runtime_checkable
class Keeps(Protocol):
    """A judge with a device of its own."""

    def kept(self) -> Kept:
        """What it keeps now; callable from any thread."""
        ...


def kept_by(judge: Judge) -> Kept:
    """What a judge's device keeps; nothing where it has none."""
    inner = judge.inner if isinstance(judge, CachingJudge) else judge
    return inner.kept() if isinstance(inner, Keeps) else Kept()
