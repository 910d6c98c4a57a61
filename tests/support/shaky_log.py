"""A log in memory whose group rebalances at any await, as the dice have it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable, Mapping, Sequence

from worker.log.base import (
    PLAIN,
    Assignment,
    LogActivity,
    OffsetMetadata,
    Owner,
    PartitionLost,
)
from worker.log.metadata import MAX_BYTES, decode_metadata, encode_metadata
from worker.records import Output, Record, TopicPartition

TOPIC = "events"
KEYS = 3


class Group:
    """What outlives a worker: committed offsets with their metadata as text, and what was
    published of each partition, in that order."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sources = [TopicPartition(TOPIC, number) for number in range(len(sizes))]
        self.sizes = dict(zip(self.sources, sizes, strict=True))
        self.committed = dict.fromkeys(self.sources, 0)
        self.texts = dict.fromkeys(self.sources, "")
        self.published: dict[TopicPartition, list[int]] = {each: [] for each in self.sources}
        self.generation = 0

    @property
    def done(self) -> bool:
        return self.committed == self.sizes

    def metadata(self, source: TopicPartition) -> OffsetMetadata:
        return decode_metadata(self.texts[source], self.committed[source]).metadata

    def publish(
        self,
        source: TopicPartition,
        outputs: Iterable[int],
        next_offset: int,
        metadata: OffsetMetadata,
    ) -> None:
        """One transaction."""
        assert next_offset >= self.committed[source], "the group never goes back"
        self.published[source].extend(outputs)
        self.committed[source] = next_offset
        self.texts[source] = encode_metadata(metadata, next_offset)
        assert len(self.texts[source]) <= MAX_BYTES


class ShakyLog:
    """See ``Log``. Partitions are lost and come back at any await, and commits may end unknown.

    In between, another member may get on with a partition. ``shakes`` faults at most; the last
    one hands everything back.
    """

    def __init__(self, group: Group, dice: random.Random, shakes: int) -> None:
        self._group = group
        self._dice = dice
        self._shakes = shakes
        self._owner: Owner | None = None
        self._assignments: dict[TopicPartition, Assignment] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._rebalance: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def connect(self, topics: Sequence[str]) -> None:
        """It is always there."""

    async def _shake(self) -> None:
        for _ in range(self._dice.randrange(3)):
            await asyncio.sleep(0)
        idle = self._rebalance is None or self._rebalance.done()
        if self._shakes and idle and self._dice.random() < 0.15:
            self._shakes -= 1
            self._rebalance = asyncio.create_task(self._reassign())

    async def _reassign(self) -> None:
        assert self._owner is not None
        gone = [
            each for each in self._group.sources if not self._shakes or self._dice.random() < 0.6
        ]
        for source in gone:
            self._assignments.pop(source, None)
            self._positions.pop(source, None)
        if self._dice.random() < 0.5:
            await asyncio.sleep(0)  # commits may find out first
        await self._owner.revoked(gone)
        for source in gone:
            if self._dice.random() < 0.3:
                self._work_elsewhere(source)
        await self._assign(
            each
            for each in self._group.sources
            if each not in self._assignments and (not self._shakes or self._dice.random() < 0.8)
        )

    def _work_elsewhere(self, source: TopicPartition) -> None:
        metadata = self._group.metadata(source)
        start = self._group.committed[source]
        first = metadata.finished[0][0] if metadata.finished else self._group.sizes[source]
        end = min(first, start + self._dice.randrange(4))
        if end > start:
            runs = metadata.finished
            committed = end
            if runs and runs[0][0] == end:
                committed, runs = runs[0][1], runs[1:]
            self._group.publish(source, range(start, end), committed, OffsetMetadata(finished=runs))

    async def _assign(self, sources: Iterable[TopicPartition]) -> None:
        assert self._owner is not None
        self._group.generation += 1
        assignments = [
            Assignment(
                source=source,
                generation=self._group.generation,
                next_offset=self._group.committed[source],
                metadata=self._group.metadata(source),
                end=self._group.sizes[source],
            )
            for source in sources
        ]
        self._assignments.update({each.source: each for each in assignments})
        await self._owner.assigned(assignments)
        for each in assignments:
            if self._assignments.get(each.source) is each:
                self._positions[each.source] = each.next_offset
        self._changed.set()

    async def start(self, topics: Sequence[str], owner: Owner) -> None:
        self._owner = owner
        self._rebalance = asyncio.create_task(self._assign(self._group.sources))

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        await self._shake()
        records: list[Record] = []
        for source, position in self._positions.items():
            if source not in self._paused:
                room = self._dice.randint(1, max_records) if max_records else 0
                end = min(self._group.sizes[source], position + room - len(records))
                records += [_record(source, offset) for offset in range(position, end)]
                self._positions[source] = max(position, end)
        if not records:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.001)
        return records

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.update(sources)

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.difference_update(sources)
        self._changed.set()

    async def commit(
        self,
        assignment: Assignment,
        outputs: Sequence[Output],
        next_offset: int,
        metadata: OffsetMetadata = PLAIN,
    ) -> None:
        await self._shake()
        source = assignment.source
        if self._assignments.get(source) is not assignment:
            raise PartitionLost("fenced")
        fate = self._dice.random() if self._shakes else 1.0
        if fate >= 0.02:
            self._group.publish(
                source, [int(output.value or b"") for output in outputs], next_offset, metadata
            )
        if fate < 0.04:  # unknown outcome: half of them went through
            self._shakes -= 1
            self._assignments.pop(source, None)
            self._positions.pop(source, None)
            if self._rebalance is None or self._rebalance.done():
                self._rebalance = asyncio.create_task(self._assign([source]))
            else:
                self._shakes = max(self._shakes, 1)  # one more rebalance hands it back
            raise PartitionLost("unanswered")
        await self._shake()

    async def lag(self) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(self._assignments, 0)

    def activity(self) -> LogActivity:
        return LogActivity()

    async def stop(self) -> None:
        if self._rebalance is not None:
            self._rebalance.cancel()
            await asyncio.gather(self._rebalance, return_exceptions=True)
        self._assignments.clear()
        self._positions.clear()


def key_of(offset: int) -> bytes:
    return b"k%d" % (offset * 7 % KEYS)


def _record(source: TopicPartition, offset: int) -> Record:
    return Record(
        topic=source.topic,
        partition=source.partition,
        offset=offset,
        timestamp=0,
        key=key_of(offset),
        value=b"%d" % offset,
    )
