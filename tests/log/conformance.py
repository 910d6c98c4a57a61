"""What every log promises. A backend's test module subclasses ``LogConformance``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import pytest

from tests.support.log_backends import Backend, create, read, write
from worker.errors import FatalError
from worker.log.base import Assignment, Delivery, Log, OffsetMetadata, PartitionLost
from worker.log.factory import open_admin, open_log, open_reader
from worker.log.runner import StreamRunner
from worker.records import Output, Record, TopicPartition

DEADLINE_S = 30.0


class Keeper:
    """An owner that only remembers."""

    def __init__(self) -> None:
        self.assignments: dict[TopicPartition, Assignment] = {}
        self.rounds = 0

    async def assigned(self, assignments: Sequence[Assignment]) -> None:
        self.rounds += 1
        self.assignments.update({assignment.source: assignment for assignment in assignments})

    async def revoked(self, sources: Iterable[TopicPartition]) -> None:
        for source in sources:
            self.assignments.pop(source, None)


async def poll_until(log: Log, enough: Callable[[list[Record]], bool]) -> list[Record]:
    """Poll until ``enough`` of what came, or fail."""
    records: list[Record] = []
    deadline = time.monotonic() + DEADLINE_S
    while not enough(records):
        assert time.monotonic() < deadline, f"only {len(records)} records came"
        records.extend(await log.poll(100, 0.1))
    return records


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for ``condition``, or fail."""
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.05)


def outputs(count: int, topic: str, prefix: str = "e") -> list[Output]:
    return [
        Output(
            topic=topic,
            key=f"conversation-{number % 7}".encode(),
            value=f"{prefix}{number}".encode(),
            headers=(("n", str(number).encode()), ("n", None)),
        )
        for number in range(count)
    ]


async def started(backend: Backend) -> tuple[Log, Keeper]:
    log, keeper = open_log(backend.settings), Keeper()
    await log.start([backend.topic], keeper)
    return log, keeper


async def assigned(log: Log, keeper: Keeper, partitions: int) -> None:
    async def all_assigned() -> bool:
        assert not await log.poll(1, 0.05), "nothing is written yet"
        return len(keeper.assignments) == partitions

    await eventually(all_assigned)


class LogConformance:
    """Subclasses provide the fixture ``backend``."""

    async def test_records_arrive_untouched_from_the_beginning(self, backend: Backend) -> None:
        """A group that never committed reads every byte from the first record, in order."""
        await create(backend, partitions=2)
        sent = outputs(20, backend.topic)
        await write(backend, sent)
        log, keeper = await started(backend)
        try:
            records = await poll_until(log, lambda got: len(got) >= 20)
        finally:
            await log.stop()
        assert sorted((r.key, r.value, r.headers) for r in records) == sorted(
            (o.key, o.value, o.headers) for o in sent
        )
        for source in keeper.assignments:
            offsets = [r.offset for r in records if r.source == source]
            assert offsets == sorted(offsets)
            assert keeper.assignments[source].next_offset == 0

    async def test_outputs_and_offset_are_committed_together(self, backend: Backend) -> None:
        """What was committed is visible and not read again; the rest is read again."""
        await create(backend, partitions=1)
        await write(backend, outputs(10, backend.topic))
        verdicts = backend.settings.topics.verdicts
        log, keeper = await started(backend)
        records = await poll_until(log, lambda got: len(got) >= 10)
        assignment = keeper.assignments[TopicPartition(backend.topic, 0)]
        await log.commit(assignment, outputs(4, verdicts, "v"), records[3].offset + 1)
        await log.stop()
        assert sorted(r.value or b"" for r in await read(backend, verdicts)) == [
            b"v0", b"v1", b"v2", b"v3"
        ]  # fmt: skip
        log, keeper = await started(backend)
        try:
            again = await poll_until(log, lambda got: len(got) >= 6)
        finally:
            await log.stop()
        assert [r.value for r in again] == [r.value for r in records[4:]]

    async def test_a_missing_topic_is_refused_and_not_made(self, backend: Backend) -> None:
        """Starting on a topic that is not there names the command that makes it."""
        await create(backend)
        log = open_log(backend.settings)
        try:
            with pytest.raises(FatalError, match="topics create"):
                await log.start([backend.topic, f"{backend.topic}.absent"], Keeper())
        finally:
            await log.stop()
        async with open_admin(backend.settings) as admin:
            assert f"{backend.topic}.absent" not in await admin.topics()

    async def test_an_output_to_a_missing_topic_commits_nothing(self, backend: Backend) -> None:
        """The outputs beside it stay unseen, and the offset stays."""
        await create(backend, partitions=1)
        await write(backend, outputs(1, backend.topic))
        verdicts = backend.settings.topics.verdicts
        log, keeper = await started(backend)
        await poll_until(log, lambda got: len(got) >= 1)
        assignment = keeper.assignments[TopicPartition(backend.topic, 0)]
        bad = [*outputs(1, verdicts), Output(topic="absent", key=b"k", value=b"v")]
        with pytest.raises(FatalError, match="absent"):
            await log.commit(assignment, bad, 1)
        await log.stop()
        assert await read(backend, verdicts) == []
        log, keeper = await started(backend)
        try:
            assert len(await poll_until(log, lambda got: len(got) >= 1)) == 1
        finally:
            await log.stop()

    async def test_a_mark_stays_until_the_next_commit(self, backend: Backend) -> None:
        """The attempt count of a head survives a restart; progress without a mark clears it."""
        await create(backend, partitions=1)
        source = TopicPartition(backend.topic, 0)
        seen = []
        for mark in (OffsetMetadata(attempts=3, until=40), OffsetMetadata()):
            log, keeper = await started(backend)
            await assigned(log, keeper, 1)
            seen.append(keeper.assignments[source])
            await log.commit(keeper.assignments[source], (), 0, mark)
            await log.stop()
        log, keeper = await started(backend)
        await assigned(log, keeper, 1)
        seen.append(keeper.assignments[source])
        await log.stop()
        assert [(each.metadata.attempts, each.metadata.until) for each in seen] == [
            (0, 0),
            (3, 40),
            (0, 0),
        ]

    async def test_a_paused_partition_gives_nothing_and_then_everything(
        self, backend: Backend
    ) -> None:
        """Pausing neither loses nor repeats a record."""
        await create(backend, partitions=2)
        log, keeper = await started(backend)
        try:
            await assigned(log, keeper, 2)
            held = TopicPartition(backend.topic, 0)
            log.pause([held])
            await write(backend, outputs(40, backend.topic))
            total = len(await read(backend, backend.topic))
            mine = [r for r in await read(backend, backend.topic) if r.source == held]
            assert 0 < len(mine) < total
            first = await poll_until(log, lambda got: len(got) >= total - len(mine))
            assert held not in {r.source for r in first}
            log.resume([held])
            rest = await poll_until(log, lambda got: len(got) >= len(mine))
            assert [r.offset for r in rest] == [r.offset for r in mine]
        finally:
            await log.stop()

    async def test_a_fenced_owner_cannot_commit(self, backend: Backend) -> None:
        """Once somebody else took the partition over, the old owner's outputs never show."""
        await create(backend, partitions=1)
        await write(backend, outputs(2, backend.topic))
        verdicts = backend.settings.topics.verdicts
        log, keeper = await started(backend)
        await poll_until(log, lambda got: len(got) >= 2)
        assignment = keeper.assignments[TopicPartition(backend.topic, 0)]
        await log.commit(assignment, outputs(1, verdicts, "mine"), 1)
        await backend.fence(assignment)
        with pytest.raises(PartitionLost, match="fenced"):
            await log.commit(assignment, outputs(1, verdicts, "late"), 2)
        await log.stop()
        assert [r.value for r in await read(backend, verdicts)] == [b"mine0"]

    async def test_lag_counts_what_is_not_committed(self, backend: Backend) -> None:
        """Lag falls with commits and is zero when everything is done."""
        await create(backend, partitions=1)
        await write(backend, outputs(5, backend.topic))
        source = TopicPartition(backend.topic, 0)
        log, keeper = await started(backend)
        try:
            await poll_until(log, lambda got: len(got) >= 5)
            assert (await log.lag())[source] == 5
            await log.commit(keeper.assignments[source], (), 3)
            assert (await log.lag())[source] == 2
            await log.commit(keeper.assignments[source], (), 5)
            assert (await log.lag())[source] == 0
        finally:
            await log.stop()

    async def test_a_reader_stops_where_the_topic_ended(self, backend: Backend) -> None:
        """Reading is bounded by the end at the time of the call, and starts where it is told."""
        await create(backend, partitions=2)
        await write(backend, outputs(10, backend.topic))
        assert len(await read(backend, backend.topic)) == 10
        async with open_reader(backend.settings) as reader:
            found = [r.offset async for r in reader.read(backend.topic, partition=0, start=2)]
            assert found == list(range(2, 2 + len(found)))
            with pytest.raises(FatalError, match="absent"):
                [r async for r in reader.read("absent")]
            with pytest.raises(FatalError, match="partitions 0 to 1"):
                [r async for r in reader.read(backend.topic, partition=7)]

    async def test_two_workers_share_the_partitions_and_one_takes_over(
        self, backend: Backend
    ) -> None:
        """Every record gives one verdict, whoever judged it, in input order per partition."""
        await create(backend, partitions=4)
        await write(backend, outputs(50, backend.topic, "a"))
        verdicts = backend.settings.topics.verdicts

        async def judge(delivery: Delivery) -> Sequence[Output]:
            record = delivery.record
            where = f"{record.partition}:{record.offset}".encode()
            return [Output(topic=verdicts, key=b"%d" % record.partition, value=where)]

        def worker() -> StreamRunner:
            log = open_log(backend.settings)
            return StreamRunner(log, judge, [backend.topic], backend.settings.stream)

        first, second = worker(), worker()
        running = [asyncio.create_task(first.run()), asyncio.create_task(second.run())]

        async def shared() -> bool:
            return all(len(one.status().partitions) == 2 for one in (first, second))

        await eventually(shared)
        await write(backend, outputs(50, backend.topic, "b"))
        await first.stop()

        async def alone() -> bool:
            return len(second.status().partitions) == 4

        await eventually(alone)
        await write(backend, outputs(50, backend.topic, "c"))

        async def done() -> bool:
            return first.status().events_committed + second.status().events_committed == 150

        await eventually(done)
        await second.stop()
        await asyncio.gather(*running)
        found = await read(backend, verdicts)
        assert len(found) == 150
        assert len({r.value for r in found}) == 150
        for partition in range(4):
            mine = [
                int((r.value or b"").split(b":")[1]) for r in found if r.key == b"%d" % partition
            ]
            assert mine == sorted(mine)
