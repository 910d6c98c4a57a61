"""A log in memory whose group rebalances at any await, as the dice have it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable, Mapping, Sequence

from worker.errors import FatalError
from worker.log.base import UNMARKED, Claim, Mark, Owner
from worker.records import Output, Record, TopicPartition

TOPIC = "events"


class Group:
    """What outlives a worker: committed offsets and marks, and what was published for each."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sources = [TopicPartition(TOPIC, number) for number in range(len(sizes))]
        self.sizes = dict(zip(self.sources, sizes, strict=True))
        self.committed = dict.fromkeys(self.sources, 0)
        self.marks = dict.fromkeys(self.sources, UNMARKED)
        self.published: dict[TopicPartition, list[int]] = {each: [] for each in self.sources}
        self.generation = 0

    @property
    def done(self) -> bool:
        return self.committed == self.sizes

    def publish(
        self, source: TopicPartition, outputs: Iterable[int], next_offset: int, mark: Mark
    ) -> None:
        """One transaction."""
        self.published[source].extend(outputs)
        self.committed[source] = max(next_offset, self.committed[source])
        self.marks[source] = mark


class ShakyLog:
    """See ``Log``. Rebalances like Kafka's: in a task of its own, everything is given up first.

    In between, another member may get on with a partition. ``shakes`` rebalances at most; the
    last one hands everything back.
    """

    def __init__(self, group: Group, dice: random.Random, shakes: int) -> None:
        self._group = group
        self._dice = dice
        self._shakes = shakes
        self._owner: Owner | None = None
        self._claims: dict[TopicPartition, Claim] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._rebalance: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def _shake(self) -> None:
        for _ in range(self._dice.randrange(3)):
            await asyncio.sleep(0)
        idle = self._rebalance is None or self._rebalance.done()
        if self._shakes and idle and self._dice.random() < 0.15:
            self._shakes -= 1
            self._rebalance = asyncio.create_task(self._reassign())

    async def _reassign(self) -> None:
        assert self._owner is not None
        await self._owner.revoked(list(self._claims))
        self._claims.clear()
        self._positions.clear()
        await asyncio.sleep(0)
        for source in self._group.sources:
            if self._dice.random() < 0.3:
                self._work_elsewhere(source)
        some = [
            each for each in self._group.sources if not self._shakes or self._dice.random() < 0.7
        ]
        await self._assign(some)

    def _work_elsewhere(self, source: TopicPartition) -> None:
        start = self._group.committed[source]
        end = min(self._group.sizes[source], start + self._dice.randrange(4))
        if end > start:
            self._group.publish(source, range(start, end), end, UNMARKED)

    async def _assign(self, sources: Iterable[TopicPartition]) -> None:
        assert self._owner is not None
        self._group.generation += 1
        claims = [
            Claim(
                source=source,
                generation=self._group.generation,
                next_offset=self._group.committed[source],
                attempts=self._group.marks[source].attempts,
                until=self._group.marks[source].until,
                end=self._group.sizes[source],
            )
            for source in sources
        ]
        self._claims.update({claim.source: claim for claim in claims})
        await self._owner.assigned(claims)
        self._positions.update({claim.source: claim.next_offset for claim in claims})
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
        self, claim: Claim, outputs: Sequence[Output], next_offset: int, mark: Mark = UNMARKED
    ) -> None:
        await self._shake()
        if self._claims.get(claim.source) is not claim:
            raise FatalError("fenced")
        await asyncio.sleep(0)
        self._group.publish(
            claim.source, [int(output.value or b"") for output in outputs], next_offset, mark
        )
        await self._shake()

    async def lag(self) -> Mapping[TopicPartition, int]:
        return dict.fromkeys(self._claims, 0)

    async def stop(self) -> None:
        if self._rebalance is not None:
            self._rebalance.cancel()
            await asyncio.gather(self._rebalance, return_exceptions=True)
        self._claims.clear()


def _record(source: TopicPartition, offset: int) -> Record:
    return Record(
        topic=source.topic,
        partition=source.partition,
        offset=offset,
        timestamp=0,
        key=None,
        value=b"%d" % offset,
    )
