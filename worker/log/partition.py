"""One assigned partition in the runner: records in flight, and what may be published of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from worker.log.base import PLAIN, Assignment, Delivery, OffsetMetadata, Run
from worker.log.metadata import MAX_BYTES, encode_metadata
from worker.records import Output, Record

MAX_SPAN = 20_000
"""Offsets between the first unfinished record and the newest one read, at most: all of them are
read again after a crash. Whatever is finished in between, its map fits beside the offset."""
_ROOM = MAX_BYTES - 64
"""For metadata as measured here: the log adds a sequence number and a stamp."""
_NOBODY = "x" * 16
_STAMP = "x" * 24


class Load:
    """What is in flight: events and input bytes."""

    __slots__ = ("bytes", "events")

    def __init__(self) -> None:
        self.events = self.bytes = 0


class InFlight:
    """One record from admission to its commit.

    ``identified`` says that its conversation is known. ``parked`` and ``released`` are for the
    backpressure.
    """

    __slots__ = (
        *("conversation", "delivery", "identified", "offset", "outputs", "partition"),
        *("parked", "released", "running", "size"),
    )

    def __init__(
        self, record: Record, partition: PartitionState, size: int, attempts: int = 1
    ) -> None:
        self.delivery = Delivery(record=record, attempts=attempts, identify=self.identify)
        self.offset = record.offset
        self.partition = partition
        self.size = size
        self.outputs: Sequence[Output] | None = None
        self.conversation: bytes | None = None
        self.identified = False
        self.running = False
        self.parked = False
        self.released = False

    @property
    def share(self) -> Hashable:
        """Who its work is done for: records of one key of one topic share a fair part."""
        record = self.delivery.record
        return record.topic, record.key

    def identify(self, conversation: bytes | None) -> None:
        """Its conversation is known: later records of others need not wait for it."""
        self.conversation = conversation
        if not self.identified:
            self.identified = True
            self.partition.identified(self)


class Unfinished:
    """The records of one partition that are in flight, in input order, and the gaps between.

    An offset below ``position`` that is not in flight is finished: published, or never a record
    (compaction, control markers). ``ahead`` are runs past ``position`` that an earlier owner
    published already.
    """

    def __init__(self, next_offset: int, finished: Iterable[Run] = ()) -> None:
        self._records: dict[int, InFlight] = {}
        self.position = next_offset
        self.ahead: deque[Run] = deque(finished)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[InFlight]:
        return iter(self._records.values())

    def __contains__(self, offset: int) -> bool:
        return offset in self._records

    @property
    def head(self) -> InFlight | None:
        """The oldest record that is not published."""
        return next(iter(self._records.values()), None)

    @property
    def next_offset(self) -> int:
        """The offset to commit: nothing before it is unfinished."""
        head = self.head
        return self.position if head is None else head.offset

    def skips(self, offset: int) -> bool:
        """Whether an earlier owner published the record at ``offset``; moves past it if so."""
        while self.ahead and self.ahead[0][1] <= offset:
            self.ahead.popleft()
        if self.ahead and self.ahead[0][0] <= offset:
            self.position = offset + 1
            return True
        return False

    def add(self, record: InFlight) -> None:
        """Append the next record.

        Raises:
            ValueError: its offset does not lie past the newest one: the input went backwards.
        """
        if record.offset < self.position:
            raise ValueError(
                f"offset {record.offset} after {self.position - 1}: input went backwards"
            )
        self._records[record.offset] = record
        self.position = record.offset + 1

    def remove(self, records: Iterable[InFlight]) -> None:
        """They are published."""
        for record in records:
            del self._records[record.offset]

    def finished(self, besides: Iterable[InFlight] = ()) -> tuple[int, tuple[Run, ...]]:
        """What to commit once ``besides`` is published: the next offset and the runs past it."""
        gone = {record.offset for record in besides}
        runs: list[Run] = []
        first: int | None = None
        at = 0
        for offset in self._records:
            if offset in gone:
                continue
            if first is None:
                first = offset
            elif offset > at:
                runs.append((at, offset))
            at = offset + 1
        if first is None:
            # All that was read is done: what lies right behind it may be done as well.
            first = at = self.position
        elif self.position > at:
            runs.append((at, self.position))
            at = self.position
        for start, end in self.ahead:
            start = max(start, at)
            if start >= end:
                continue
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], end)
            elif not runs and start == first == self.position and not (len(self) - len(gone)):
                first = at = end
            else:
                runs.append((start, end))
        return first, tuple(runs)


class Publishable(msgspec.Struct):
    """Records to publish in one transaction, in input order, and what is committed with them."""

    records: list[InFlight]
    next_offset: int
    finished: tuple[Run, ...]


class PartitionState:
    """State of one assignment; a new one gets a new state, so late results find a dead one."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        incarnation: str,
        isolate_after: int = 2,
        slack: int = 16,
        order: Literal["key", "partition"] = "key",
        now: float = 0.0,
    ) -> None:
        self.assignment = assignment
        self.source = assignment.source
        self.unfinished = Unfinished(assignment.next_offset, assignment.metadata.finished)
        self.load = Load()
        self.full = False
        """Whether the others need the room that this partition would take next."""
        self.backlog: deque[InFlight] = deque()
        """Records not to be started now: it is held, or something is being isolated."""
        self.failed: list[InFlight] = []
        """Records that found a dependency away."""
        self.dependency: str | None = None
        """The dependency that is away; the partition is held while it is."""
        self.retry: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        """Set when something may be published, or a further bound is needed."""
        self.suspected: deque[InFlight] = deque()
        """Records to be tried alone."""
        self.committer: asyncio.Task[None] | None = None
        self.commit_lock = asyncio.Lock()
        self.committing = False
        self.running = 0
        self.closing = False
        self.dead = False
        self.committed = assignment.next_offset
        self.progressed_at = now
        self._order = order
        self._incarnation = incarnation
        self._slack = slack
        self._mapped_until = max((end for _, end in assignment.metadata.finished), default=0)
        self.bound = assignment.next_offset
        """Committed: nothing from here on was started."""
        self.started = assignment.next_offset
        """The offset after the newest record that was given to the processor."""
        self._suspicions(assignment, isolate_after)

    def _suspicions(self, assignment: Assignment, isolate_after: int) -> None:
        mark = assignment.metadata
        strange = bool(mark.worker) and mark.worker != self._incarnation
        self.attempts, self.until = mark.attempts, mark.until
        """How many ends without a word its suspects were in flight at, and where they end."""
        if self.until <= assignment.next_offset:
            self.attempts = self.until = 0
        self.tried: int | None = None
        """The suspect that was alone when ``alone`` incarnations ended."""
        self.alone = 0
        self.explained = mark.explained
        self.trying: int | None = None
        """The suspect that is alone in flight."""
        if mark.tried is not None and mark.tried >= assignment.next_offset:
            self.tried, self.alone = mark.tried, mark.alone + strange
            self.explained = mark.worker if strange else mark.explained
        elif (
            strange
            and mark.started > assignment.next_offset
            and mark.worker not in assignment.explained
        ):
            # Whoever was in flight both times. While suspects are tried alone, others run in
            # between: an end then may be theirs.
            if not self.attempts or self.attempts >= isolate_after:
                self.until = max(self.until, mark.started)
            self.attempts += 1
        if assignment.end is not None:
            self.until = min(self.until, assignment.end)
        self._isolate = self.attempts >= isolate_after or self.tried is not None

    @property
    def suspects(self) -> bool:
        """Whether there are records that were in flight when a worker ended without a word."""
        return self.until > self.committed

    @property
    def isolating(self) -> bool:
        """Whether its suspects are to be tried alone."""
        return self._isolate and self.suspects

    def is_suspect(self, offset: int) -> bool:
        """Whether the record at ``offset`` is to be tried alone."""
        return self._isolate and offset < self.until

    @property
    def held(self) -> bool:
        """Whether a dependency is away: nothing is started but the probe."""
        return self.dependency is not None

    @property
    def stretched(self) -> bool:
        """Whether intake waits for the first unfinished record."""
        return self.unfinished.position - self.committed >= MAX_SPAN

    @property
    def needs_bound(self) -> bool:
        """Whether a record waits to be started past the committed bound."""
        return not self.held and bool(self.backlog) and self.backlog[0].offset >= self.bound

    @property
    def quiet(self) -> bool:
        """Whether no processor call and no commit of this partition is under way or due."""
        return self.running == 0 and not self.committing and not self.ready.is_set()

    def identified(self, record: InFlight) -> None:
        """A conversation became known, so that others behind it may be publishable."""
        if not self.dead and self._order == "key" and len(self.unfinished) > 1:
            self.ready.set()

    def take(self, max_events: int, max_bytes: int) -> Publishable | None:
        """What may be published now, at least one record; None where that is nothing.

        By key: a record waits for earlier ones of its key and of its conversation, and for
        earlier ones whose conversation is not known yet. By partition: for all earlier ones.
        """
        waiting: set[tuple[str, bytes | None]] = set()
        taken: list[InFlight] = []
        size = 0
        for record in self.unfinished:
            groups = [("key", record.delivery.record.key)]
            if record.conversation is not None:
                groups.append(("conversation", record.conversation))
            free = record.outputs is not None and waiting.isdisjoint(groups)
            if free and (taken and size + record.size > max_bytes):
                break
            if free:
                size += record.size
                taken.append(record)
                if len(taken) == max_events:
                    break
                continue
            if self._order == "partition" or (record.outputs is None and not record.identified):
                break
            waiting.update(groups)
        return self._fitting(taken)

    def _fitting(self, taken: list[InFlight]) -> Publishable | None:
        """As much of ``taken`` as leaves a map that fits beside the offset."""
        while taken:
            next_offset, finished = self.unfinished.finished(taken)
            if self._order == "partition" and next_offset >= self._mapped_until:
                return Publishable(taken, next_offset, ())  # versions without the map see none
            metadata = msgspec.structs.replace(
                self.metadata(next_offset), finished=finished, worker=_NOBODY
            )
            if len(encode_metadata(metadata, next_offset, stamp=_STAMP)) <= _ROOM:
                return Publishable(taken, next_offset, finished)
            before = [one for one in taken if one.offset < next_offset]
            half = taken[: len(taken) // 2]
            taken = before if len(before) > len(half) and len(before) < len(taken) else half
        return None

    def finished(self) -> tuple[int, tuple[Run, ...]]:
        """What to commit with nothing published: the next offset and the runs past it."""
        next_offset, finished = self.unfinished.finished()
        if self._order == "partition" and next_offset >= self._mapped_until:
            return next_offset, ()
        return next_offset, finished

    def metadata(self, next_offset: int) -> OffsetMetadata:
        """What to keep beside ``next_offset`` while records are in flight here."""
        suspects = self.until > next_offset
        return OffsetMetadata(
            worker=self._incarnation,
            started=self.next_bound(),
            attempts=self.attempts if suspects else 0,
            until=self.until if suspects else 0,
            tried=self.trying,
            alone=self.alone if self.trying == self.tried else 0,
            explained=self.explained if suspects else "",
        )

    def next_bound(self) -> int:
        """The bound that the next commit declares."""
        wanted = self.backlog[0].offset + 1 if self.needs_bound else 0
        return max(self.bound, max(self.started, wanted) + self._slack)

    def at_rest(self, next_offset: int) -> OffsetMetadata:
        """What to keep beside ``next_offset`` when nothing is in flight any more: whoever comes
        next goes on with the suspects, and counts no end."""
        if self.until <= next_offset:
            return PLAIN
        return OffsetMetadata(
            attempts=self.attempts,
            until=self.until,
            tried=self.tried,
            alone=self.alone if self.tried is not None else 0,
            explained=self.explained,
        )

    def moved(self, next_offset: int, metadata: OffsetMetadata, now: float) -> None:
        """A commit succeeded."""
        self.committed = next_offset
        self.bound = max(self.bound, metadata.started)
        self.progressed_at = now
        if self.until <= next_offset:
            self.attempts, self.tried, self.alone, self.explained, self.until = 0, None, 0, "", 0
            self._isolate = False
