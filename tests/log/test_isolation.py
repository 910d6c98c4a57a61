"""Suspected records: alone in flight, counted before each try, and never the neighbours' fault."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.log.conformance import Keeper, assigned, eventually
from tests.support.log_backends import LocalBackend, create, read, write
from worker.errors import DependencyUnavailable, FatalError
from worker.log.base import PLAIN, Assignment, Delivery, OffsetMetadata, Processor
from worker.log.factory import open_log
from worker.log.local.journal import Journal
from worker.log.metadata import decode_metadata
from worker.log.partition import PartitionState
from worker.log.runner import StreamRunner
from worker.records import Output, TopicPartition


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path, stream={"max_events": 8})


def crashed(attempts: int, until: int = 8, **more: object) -> OffsetMetadata:
    """What a worker leaves that is the next to end without a word."""
    return OffsetMetadata(
        attempts=attempts,
        until=until if attempts else 0,
        worker="dead",
        started=until,
        **more,  # type: ignore[arg-type]
    )


def verdict(backend: LocalBackend, delivery: Delivery) -> list[Output]:
    return [Output(topic=backend.settings.topics.verdicts, key=b"k", value=delivery.record.value)]


async def suspect(backend: LocalBackend, partitions: int, marks: dict[int, OffsetMetadata]) -> None:
    """Leave marks behind, as workers do that end without a word."""
    await create(backend, partitions=partitions)
    log, keeper = open_log(backend.settings), Keeper()
    await log.start([backend.topic], keeper)
    await assigned(log, keeper, partitions)
    for partition, mark in marks.items():
        await log.commit(keeper.assignments[TopicPartition(backend.topic, partition)], (), 0, mark)
    await log.stop()


def mark_of(backend: LocalBackend, partition: int) -> OffsetMetadata:
    journal = Journal(backend.settings.log.directory)
    commit = journal.commits[backend.settings.kafka.group_id, backend.topic, partition]
    journal.close()
    return decode_metadata(commit.metadata, commit.next_offset).metadata


async def run_until(backend: LocalBackend, judge: Processor, count: int) -> None:
    log = open_log(backend.settings)
    runner = StreamRunner(log, judge, [backend.topic], backend.settings.stream)
    task = asyncio.create_task(runner.run())

    async def done() -> bool:
        assert not task.done(), task.exception()
        return runner.status().events_committed >= count

    await eventually(done)
    await runner.stop()
    await task


async def test_what_came_after_the_crashes_is_not_suspected(backend: LocalBackend) -> None:
    """However often workers ended on an empty partition: no record can have ended them."""
    await suspect(backend, 1, {0: crashed(2, until=16)})
    alone: list[bool] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        alone.append(delivery.isolated)
        return verdict(backend, delivery)

    log = open_log(backend.settings)
    runner = StreamRunner(log, judge, [backend.topic], backend.settings.stream)
    task = asyncio.create_task(runner.run())

    async def claimed_it() -> bool:
        return bool(runner.status().partitions)

    async def done() -> bool:
        return runner.status().events_committed == 20

    await eventually(claimed_it)
    await write(backend, [Output(topic=backend.topic, key=b"k", value=b"v")] * 20)
    await eventually(done)
    await runner.stop()
    await task
    assert alone == [False] * 20


async def test_a_first_end_without_a_word_isolates_nothing(backend: LocalBackend) -> None:
    """Most workers that end so were ended from outside: their records are judged in batches."""
    await suspect(backend, 1, {0: crashed(0)})
    await write(backend, [Output(topic=backend.topic, key=b"k", value=b"v")] * 12)
    seen: list[Delivery] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        seen.append(delivery)
        return verdict(backend, delivery)

    await run_until(backend, judge, 12)
    assert [(each.isolated, each.attempts) for each in seen] == [(False, 2)] * 8 + [(False, 1)] * 4


async def test_a_suspected_record_is_the_only_one_in_flight(backend: LocalBackend) -> None:
    """While one is delivered alone, no record of any partition is beside it."""
    await suspect(backend, 3, {1: crashed(1)})
    many = [Output(topic=backend.topic, key=b"%d" % n, value=b"%d" % n) for n in range(60)]
    await write(backend, many)
    running = 0
    seen: list[tuple[Delivery, int]] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        nonlocal running
        running += 1
        await asyncio.sleep(0.002)
        seen.append((delivery, running))
        running -= 1
        return verdict(backend, delivery)

    await run_until(backend, judge, 60)
    alone = [(delivery, beside) for delivery, beside in seen if delivery.isolated]
    assert {beside for _, beside in alone} == {1}
    assert {delivery.record.partition for delivery, _ in alone} == {1}
    assert [delivery.record.offset for delivery, _ in alone] == list(range(8))
    assert {delivery.attempts for delivery, _ in alone} == {3}
    assert max(beside for delivery, beside in seen if not delivery.isolated) > 1
    assert len(await read(backend, backend.settings.topics.verdicts)) == 60


async def test_neighbours_run_between_the_tries(backend: LocalBackend) -> None:
    """A partition without suspects gets half of the time at least, and does not wait for the end
    of the search."""
    await suspect(backend, 2, {0: crashed(1)})
    many = [Output(topic=backend.topic, key=b"%d" % n, value=b"%d" % n) for n in range(400)]
    await write(backend, many)
    order: list[int] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        await asyncio.sleep(0.02)
        order.append(-1 if delivery.isolated else delivery.record.partition)
        return verdict(backend, delivery)

    await run_until(backend, judge, 400)
    tries = [at for at, what in enumerate(order) if what == -1]
    assert len(tries) == 8
    assert tries[-1] - tries[0] > 3 * len(tries), "others are judged while the search goes on"


async def test_a_try_is_counted_before_the_record_is_seen(backend: LocalBackend) -> None:
    """When the processor gets a suspect, the log already names it as the one that is alone."""
    await suspect(backend, 2, {0: crashed(1), 1: crashed(2, tried=0, alone=0)})
    many = [Output(topic=backend.topic, key=b"%d" % n, value=b"%d" % n) for n in range(20)]
    await write(backend, many)
    seen: list[tuple[int, int, int]] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        if delivery.isolated:
            record = delivery.record
            stored = mark_of(backend, record.partition)
            assert stored.tried == record.offset
            assert stored.worker not in ("", "dead")
            seen.append((record.partition, record.offset, delivery.attempts))
        return verdict(backend, delivery)

    await run_until(backend, judge, 20)
    attempts = {(partition, offset): count for partition, offset, count in seen}
    assert attempts.pop((1, 0)) == 4
    assert set(attempts.values()) == {3}
    assert mark_of(backend, 0) == mark_of(backend, 1) == PLAIN


async def test_waiting_for_a_turn_is_not_counted(backend: LocalBackend) -> None:
    """A partition whose suspect was not alone does not answer for a crash: another one does."""
    await suspect(backend, 2, {0: crashed(1), 1: crashed(1)})
    many = [Output(topic=backend.topic, key=b"%d" % n, value=b"%d" % n) for n in range(20)]
    await write(backend, many)
    reached: list[int] = []
    hold = asyncio.Event()

    async def judge(delivery: Delivery) -> Sequence[Output]:
        reached.append(delivery.record.partition)
        await hold.wait()
        return verdict(backend, delivery)

    log = open_log(backend.settings)
    runner = StreamRunner(log, judge, [backend.topic], backend.settings.stream)
    task = asyncio.create_task(runner.run())

    async def stuck() -> bool:
        return bool(reached)

    await eventually(stuck)
    tried, other = reached[0], 1 - reached[0]
    kept = {partition: mark_of(backend, partition) for partition in (tried, other)}
    assert kept[tried].tried is not None
    assert kept[other].tried is None
    hold.set()
    await runner.stop()
    await task
    heir = PartitionState(
        Assignment(
            source=TopicPartition(backend.topic, other),
            generation=1,
            next_offset=0,
            metadata=kept[other],
            explained=frozenset({kept[tried].worker}),
        ),
        incarnation="heir",
    )
    assert heir.attempts == kept[other].attempts == 2


async def test_a_given_up_record_is_poison_and_its_neighbours_are_judged(
    backend: LocalBackend,
) -> None:
    """After two ends alone it is passed on; the other suspects are tried, and none is blamed."""
    await suspect(backend, 1, {0: crashed(2, tried=0, alone=1)})
    many = [Output(topic=backend.topic, key=b"k", value=b"%d" % n) for n in range(12)]
    await write(backend, many)
    seen: list[Delivery] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        seen.append(delivery)
        return verdict(backend, delivery)

    await run_until(backend, judge, 12)
    assert [delivery.record.offset for delivery in seen if delivery.poison] == [0]
    assert seen[0].attempts == 5
    alone = [delivery.record.offset for delivery in seen if delivery.isolated]
    assert alone == list(range(8))


async def test_a_record_that_kills_unjudged_too_becomes_untouchable(backend: LocalBackend) -> None:
    """Passing it on as poison is a try as well: it is counted, and it is not repeated for ever."""
    await write_one(backend)
    seen: list[tuple[bool, bool, int]] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        seen.append((delivery.poison, delivery.untouchable, delivery.attempts))
        return verdict(backend, delivery)

    await leave(backend, crashed(2, until=1, tried=0, alone=3))
    await run_until(backend, judge, 1)
    assert seen == [(True, True, 7)]
    assert mark_of(backend, 0) == PLAIN


async def write_one(backend: LocalBackend) -> None:
    await create(backend, partitions=1)
    await write(backend, [Output(topic=backend.topic, key=b"k", value=b"v")])


async def leave(backend: LocalBackend, mark: OffsetMetadata) -> None:
    log, keeper = open_log(backend.settings), Keeper()
    await log.start([backend.topic], keeper)
    await log.poll(0, 0.0)
    await log.commit(keeper.assignments[TopicPartition(backend.topic, 0)], (), 0, mark)
    await log.stop()


async def test_ends_that_have_a_word_are_counted_against_nobody(backend: LocalBackend) -> None:
    """A bug ends the process again and again: it says so, and no record is suspected for it."""
    await write_one(backend)

    async def broken(delivery: Delivery) -> Sequence[Output]:
        assert (delivery.attempts, delivery.isolated) == (1, False)
        raise KeyError("the process ends")

    for _ in range(8):
        log = open_log(backend.settings)
        with pytest.raises(FatalError, match="KeyError"):
            await StreamRunner(log, broken, [backend.topic], backend.settings.stream).run()
        assert mark_of(backend, 0) == PLAIN


async def test_an_outage_during_isolation_counts_no_further_try(backend: LocalBackend) -> None:
    """The store going away while a suspect is alone blames it for nothing."""
    await write_one(backend)
    await leave(backend, crashed(1))
    tries: list[int] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        tries.append(delivery.attempts)
        if len(tries) < 4:
            raise DependencyUnavailable("store")
        return verdict(backend, delivery)

    await run_until(backend, judge, 1)
    assert tries == [3, 3, 3, 3]
