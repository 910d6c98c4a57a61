"""One claimed partition in the runner, and one of its records in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from worker.log.base import UNMARKED, Claim, Delivery, Mark
from worker.records import Output

# Completions in any order in, the contiguous prefix of one partition out.


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


class Load:
    """What is in flight: events, those of them that are not decided yet, and input bytes."""

    __slots__ = ("bytes", "events", "judging")

    def __init__(self) -> None:
        self.events = self.judging = self.bytes = 0


class Slot:
    """A record in flight; ``judging``, ``parked`` and ``released`` are for the bounds."""

    __slots__ = (
        *("delivery", "lane", "offset", "outputs"),
        *("judging", "parked", "released", "running", "since", "size"),
    )

    def __init__(self, delivery: Delivery, lane: Lane, size: int, since: float) -> None:
        self.delivery = delivery
        self.offset = delivery.record.offset
        self.lane = lane
        self.size = size
        self.since = since
        self.outputs: Sequence[Output] | None = None
        self.running = False
        self.judging = True
        self.parked = False
        self.released = False


class Lane:
    """State of one claim; a new assignment gets a new lane, so late results find a dead one."""

    def __init__(self, claim: Claim, isolate_after: int, span: int, now: float) -> None:
        self.claim = claim
        self.source = claim.source
        self.window: Window[Slot] = Window()
        self.load = Load()
        self.full = False
        """Whether the others need the room that this lane would take next."""
        self.backlog: deque[Slot] = deque()
        """Records not to be started now: the lane is held, or something is being isolated."""
        self.failed: list[Slot] = []
        """Records that found a dependency away."""
        self.dependency: str | None = None
        """The dependency that is away; the lane is held while it is."""
        self.retry: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.committer: asyncio.Task[None] | None = None
        self.committing = False
        self.running = 0
        self.closing = False
        self.dead = False
        self.committed = claim.next_offset
        self.position: int | None = None
        """Offset after the newest record taken in."""
        self.progressed_at = now
        self.mark = Mark(attempts=claim.attempts, until=claim.until)
        """What the log holds beside the committed offset."""
        self.until = claim.until
        if claim.attempts >= isolate_after and self.until <= claim.next_offset:
            self.until = claim.next_offset + span
            if claim.end is not None:
                self.until = min(self.until, claim.end)
        self._isolate_after = isolate_after

    @property
    def suspect(self) -> bool:
        """Whether the next record may be one that kills the worker."""
        return self.until > self.committed

    @property
    def held(self) -> bool:
        """Whether a dependency is away: nothing is started but the probe."""
        return self.dependency is not None

    @property
    def quiet(self) -> bool:
        """Whether no processor call and no commit of this lane is under way or due."""
        return self.running == 0 and not self.committing and not self.window.ready

    def mark_after(self, next_offset: int) -> Mark:
        """The mark to commit with progress up to ``next_offset``."""
        if self.until > next_offset:
            return Mark(attempts=self._isolate_after, until=self.until)
        return UNMARKED
