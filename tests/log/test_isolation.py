"""Suspected records: alone in flight, counted before each try, and never the neighbours' fault."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.log.conformance import Keeper, claimed, eventually
from tests.support.log_backends import LocalBackend, create, read, write
from worker.errors import DependencyUnavailable, FatalError
from worker.log.base import UNMARKED, Delivery, Mark, Processor
from worker.log.factory import open_log
from worker.log.local.journal import Journal
from worker.log.runner import StreamRunner
from worker.records import Output, TopicPartition


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path, stream={"max_events": 8})


def verdict(backend: LocalBackend, delivery: Delivery) -> list[Output]:
    return [Output(topic=backend.settings.topics.verdicts, key=b"k", value=delivery.record.value)]


async def suspect(backend: LocalBackend, partitions: int, marks: dict[int, Mark]) -> None:
    """Leave marks behind, as crashes do."""
    await create(backend, partitions=partitions)
    log, keeper = open_log(backend.settings), Keeper()
    await log.start([backend.topic], keeper)
    await claimed(log, keeper, partitions)
    for partition, mark in marks.items():
        await log.commit(keeper.claims[TopicPartition(backend.topic, partition)], (), 0, mark)
    await log.stop()


def mark_of(backend: LocalBackend, partition: int) -> Mark:
    journal = Journal(backend.settings.log.directory)
    commit = journal.commits[backend.settings.kafka.group_id, backend.topic, partition]
    journal.close()
    return Mark(attempts=commit.attempts, until=commit.until)


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
    await suspect(backend, 1, {0: Mark(attempts=2)})
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
    assert mark_of(backend, 0) == Mark(attempts=2)
    await write(backend, [Output(topic=backend.topic, key=b"k", value=b"v")] * 20)
    await eventually(done)
    await runner.stop()
    await task
    assert alone == [False] * 20


async def test_a_suspected_record_is_the_only_one_in_flight(backend: LocalBackend) -> None:
    """While one is delivered alone, no record of any partition is beside it."""
    await suspect(backend, 3, {1: Mark(attempts=2)})
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
    assert alone
    assert {beside for _, beside in alone} == {1}
    assert {delivery.record.partition for delivery, _ in alone} == {1}
    assert [delivery.record.offset for delivery, _ in alone] == list(range(8))
    assert {delivery.attempts for delivery, _ in alone} == {3}
    assert max(beside for delivery, beside in seen if not delivery.isolated) > 1
    assert len(await read(backend, backend.settings.topics.verdicts)) == 60


async def test_a_try_is_counted_before_the_record_is_seen(backend: LocalBackend) -> None:
    """When the processor gets a suspect, the log already holds this attempt."""
    await suspect(backend, 2, {0: Mark(attempts=2), 1: Mark(attempts=3, until=8)})
    many = [Output(topic=backend.topic, key=b"%d" % n, value=b"%d" % n) for n in range(20)]
    await write(backend, many)
    counts: list[tuple[int, int]] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        if delivery.isolated:
            stored = mark_of(backend, delivery.record.partition)
            counts.append((delivery.attempts, stored.attempts))
        return verdict(backend, delivery)

    await run_until(backend, judge, 20)
    assert {delivered - stored for delivered, stored in counts} == {0}
    assert {delivered for delivered, _ in counts} == {3, 4}
    assert mark_of(backend, 0) == mark_of(backend, 1) == UNMARKED


async def test_waiting_for_a_turn_is_not_counted(backend: LocalBackend) -> None:
    """A partition whose suspect was never delivered keeps its count through a crash."""
    await suspect(backend, 2, {0: Mark(attempts=2), 1: Mark(attempts=2)})
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
    assert mark_of(backend, tried).attempts == 3
    assert mark_of(backend, other).attempts == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert mark_of(backend, tried).attempts == 3


async def test_a_given_up_record_is_poison_and_ends_the_search(backend: LocalBackend) -> None:
    """At the fourth recorded try it is passed on; what follows is judged in batches again."""
    await suspect(backend, 1, {0: Mark(attempts=4, until=8)})
    many = [Output(topic=backend.topic, key=b"k", value=b"%d" % n) for n in range(12)]
    await write(backend, many)
    seen: list[Delivery] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        seen.append(delivery)
        return verdict(backend, delivery)

    await run_until(backend, judge, 12)
    assert [delivery.poison for delivery in seen] == [True] + [False] * 11
    assert seen[0].attempts == 5
    assert [delivery.isolated for delivery in seen] == [True] + [False] * 11


async def test_a_record_that_kills_unjudged_too_becomes_untouchable(backend: LocalBackend) -> None:
    """Passing it on as poison is a try as well: it is counted, and it is not repeated for ever."""
    await suspect(backend, 1, {0: Mark(attempts=4)})
    await write(backend, [Output(topic=backend.topic, key=b"k", value=b"v")])
    seen: list[tuple[bool, bool, int, int]] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        counted = mark_of(backend, 0).attempts
        seen.append((delivery.poison, delivery.untouchable, delivery.attempts, counted))
        if not delivery.untouchable:
            raise KeyError("the process ends")
        return verdict(backend, delivery)

    for _ in range(2):
        log = open_log(backend.settings)
        with pytest.raises(FatalError):
            await StreamRunner(log, judge, [backend.topic], backend.settings.stream).run()
    await run_until(backend, judge, 1)
    assert seen == [(True, False, 5, 5), (True, False, 6, 6), (True, True, 7, 7)]
    assert mark_of(backend, 0) == UNMARKED


async def test_an_outage_during_isolation_counts_no_further_try(backend: LocalBackend) -> None:
    """The store going away while a suspect is alone blames it for nothing."""
    await suspect(backend, 1, {0: Mark(attempts=2)})
    await write(backend, [Output(topic=backend.topic, key=b"k", value=b"v")])
    tries: list[int] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        tries.append(delivery.attempts)
        if len(tries) < 4:
            raise DependencyUnavailable("store")
        return verdict(backend, delivery)

    await run_until(backend, judge, 1)
    assert tries == [3, 3, 3, 3]
