"""Completions in any order in, the contiguous prefix of one partition out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from worker.stream.base import Output


class Entry(Protocol):
    """One record in flight. ``outputs`` is ``None`` until it is complete; ``size`` is bytes."""

    offset: int
    size: int
    outputs: Sequence[Output] | None


E = TypeVar("E", bound=Entry)


class Window(Generic[E]):
    """Records in flight of one partition, in input order.

    A record completes by getting ``outputs``; ``take`` gives out only records before which nothing
    is unfinished. Offsets may have gaps (compaction, control markers), but only grow.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[E] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        return iter(self._entries)

    @property
    def head(self) -> E | None:
        """The oldest record not yet taken."""
        return self._entries[0] if self._entries else None

    @property
    def ready(self) -> bool:
        """Whether ``take`` would give out anything."""
        return bool(self._entries) and self._entries[0].outputs is not None

    def add(self, entry: E) -> None:
        """Append the next record.

        Raises:
            ValueError: its offset does not lie past the newest one: the input went backwards.
        """
        if self._entries and entry.offset <= self._entries[-1].offset:
            raise ValueError(
                f"offset {entry.offset} after {self._entries[-1].offset}: input went backwards"
            )
        self._entries.append(entry)

    def take(self, max_events: int, max_bytes: int) -> list[E]:
        """Remove and return the complete prefix: at least one record where one is ready."""
        taken: list[E] = []
        size = 0
        while self._entries and len(taken) < max_events:
            entry = self._entries[0]
            if entry.outputs is None or (taken and size + entry.size > max_bytes):
                break
            size += entry.size
            taken.append(self._entries.popleft())
        return taken
