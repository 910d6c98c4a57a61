"""What the runner promises, on the local log: bounds, order, clean and unclean ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.log.conformance import eventually
from tests.log.running import committed, records, runner_of, values, verdict
from tests.support.log_backends import LocalBackend, create, read, write
from worker.errors import FatalError
from worker.log.backpressure import WAITING
from worker.log.base import Assignment, Delivery
from worker.log.local.journal import Journal
from worker.log.local.log import LocalLog
from worker.log.runner import StreamRunner
from worker.records import Output, TopicPartition


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path, stream={"max_events": 8, "max_bytes": 20 * 1024 * 1024})


async def test_events_in_flight_never_exceed_the_bound(backend: LocalBackend) -> None:
    """With 8 events allowed, 8 processor calls are reached and never 9."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 60))
    running, most = 0, 0

    async def judge(delivery: Delivery) -> Sequence[Output]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())
    await committed(runner, 60)
    await runner.stop()
    await task
    assert most == 8
    assert await values(backend) == [b"%05d" % number for number in range(60)]


async def test_a_stuck_record_leaves_the_other_partitions_their_room(
    backend: LocalBackend,
) -> None:
    """What piles up behind one slow head is bounded; the other partitions go on."""
    await create(backend, partitions=2)
    many = [Output(topic=backend.topic, key=b"%d" % n, value=b"%05d" % n) for n in range(800)]
    await write(backend, many)
    free = [r for r in await read(backend, backend.topic) if r.partition == 1]
    release = asyncio.Event()

    async def judge(delivery: Delivery) -> Sequence[Output]:
        if (delivery.record.partition, delivery.record.offset) == (0, 0):
            await release.wait()
        await asyncio.sleep(0)
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())
    await committed(runner, len(free))
    held = {one.source.partition: one.inflight for one in runner.status().partitions}
    assert held[1] == 0
    assert 0 < held[0] < WAITING * 8
    release.set()
    await committed(runner, len(many))
    await runner.stop()
    await task


async def test_bytes_in_flight_stop_the_intake(tmp_path: Path) -> None:
    """Past the byte bound nothing more is read than the poll that crossed it."""
    backend = LocalBackend(
        tmp_path, stream={"max_events": 1000, "max_bytes": 100_000, "max_event_bytes": 50_000}
    )
    await create(backend, partitions=1)
    await write(backend, records(backend, 400, size=20_000))
    release = asyncio.Event()

    async def judge(delivery: Delivery) -> Sequence[Output]:
        await release.wait()
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())

    async def closed() -> bool:
        return runner.status().inflight_bytes >= 100_000

    await eventually(closed)
    held = runner.status()
    assert held.inflight_bytes <= 100_000 + 8 * 1024 * 1024
    for _ in range(20):
        await asyncio.sleep(0)
    assert runner.status().inflight_events == held.inflight_events
    release.set()
    await committed(runner, 400)
    await runner.stop()
    await task
    assert runner.status().inflight_bytes == 0


async def test_results_in_any_order_come_out_in_input_order(backend: LocalBackend) -> None:
    """Later records finish first, verdicts keep the order of their inputs."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 24))

    async def judge(delivery: Delivery) -> Sequence[Output]:
        await asyncio.sleep(0.02 if delivery.record.offset % 3 == 0 else 0)
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())
    await committed(runner, 24)
    await runner.stop()
    await task
    assert await values(backend) == [b"%05d" % number for number in range(24)]


async def test_a_bug_in_the_processor_ends_the_process_and_loses_nothing(
    backend: LocalBackend,
) -> None:
    """``run`` raises; the record and what follows it are judged by the next process."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 12))

    async def broken(delivery: Delivery) -> Sequence[Output]:
        if delivery.record.offset == 5:
            raise KeyError("a bug")
        return verdict(backend, delivery)

    with pytest.raises(FatalError, match="KeyError"):
        await runner_of(backend, broken).run()

    async def mended(delivery: Delivery) -> Sequence[Output]:
        return verdict(backend, delivery)

    before = await values(backend)
    runner = runner_of(backend, mended)
    task = asyncio.create_task(runner.run())
    await committed(runner, 12 - len(before))
    await runner.stop()
    await task
    assert await values(backend) == [b"%05d" % number for number in range(12)]


async def test_nothing_to_publish_is_a_bug_not_a_drop(backend: LocalBackend) -> None:
    """A processor that answers with nothing ends the process before the offset moves."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 1))

    async def empty(delivery: Delivery) -> Sequence[Output]:
        return []

    with pytest.raises(FatalError, match="nothing is dropped"):
        await runner_of(backend, empty).run()


async def test_stop_drains_what_is_in_flight(backend: LocalBackend) -> None:
    """Records that were started are committed before ``stop`` returns; no more are started."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 30))
    release = asyncio.Event()
    started: list[int] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        started.append(delivery.record.offset)
        await release.wait()
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())

    async def full() -> bool:
        return len(started) == 8

    await eventually(full)
    stopping = asyncio.create_task(runner.stop())
    await asyncio.sleep(0)
    release.set()
    await stopping
    await task
    assert started == list(range(8))
    assert await values(backend) == [b"%05d" % number for number in range(8)]


class StuckDoor(LocalLog):
    """A log that cannot be left."""

    async def stop(self) -> None:
        await super().stop()
        raise OSError("the door is stuck")


async def test_a_log_that_cannot_be_left_does_not_keep_the_worker(backend: LocalBackend) -> None:
    """Everything was committed before: stopping goes on as if it had been left."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 1))

    async def judge(delivery: Delivery) -> Sequence[Output]:
        return verdict(backend, delivery)

    settings = backend.settings
    log = StuckDoor(settings.log.directory, settings.kafka.group_id)
    runner = StreamRunner(log, judge, [backend.topic], settings.stream)
    task = asyncio.create_task(runner.run())
    await committed(runner, 1)
    async with asyncio.timeout(10):
        await runner.stop()
        await task


async def test_a_partition_that_comes_while_stopping_is_not_tried(backend: LocalBackend) -> None:
    """An attempt counted for nothing would bring its head nearer to being given up."""
    await create(backend, partitions=1)
    settings = backend.settings

    async def judge(delivery: Delivery) -> Sequence[Output]:
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    await runner.stop()
    await runner.assigned(
        [Assignment(source=TopicPartition(backend.topic, 0), generation=1, next_offset=0)]
    )
    assert runner.status().partitions == ()
    journal = Journal(settings.log.directory)
    assert journal.commits == {}
    journal.close()


async def test_a_drain_is_bounded_and_late_results_are_dropped(tmp_path: Path) -> None:
    """A call that outlasts ``drain_s`` holds nobody up, and its record is delivered again."""
    backend = LocalBackend(tmp_path, stream={"drain_s": 0.1})
    await create(backend, partitions=1)
    await write(backend, records(backend, 3))
    release = asyncio.Event()

    async def stuck(delivery: Delivery) -> Sequence[Output]:
        if delivery.record.offset == 1:
            await release.wait()
        return verdict(backend, delivery)

    runner = runner_of(backend, stuck)
    task = asyncio.create_task(runner.run())
    await committed(runner, 1)
    await runner.stop()
    await task
    assert runner.status().inflight_events == 0
    release.set()
    assert await values(backend) == [b"00000"]
    runner = runner_of(backend, stuck)
    task = asyncio.create_task(runner.run())
    await committed(runner, 2)
    await runner.stop()
    await task
    assert await values(backend) == [b"00000", b"00001", b"00002"]


async def test_the_first_try_of_a_head_counts_from_one(backend: LocalBackend) -> None:
    """Attempts stay at one through clean stops, however many there are."""
    await create(backend, partitions=1)
    seen: list[int] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        seen.append(delivery.attempts)
        return verdict(backend, delivery)

    for number in range(4):
        if number == 3:
            await write(backend, records(backend, 2))
        runner = runner_of(backend, judge)
        task = asyncio.create_task(runner.run())
        if number == 3:
            await committed(runner, 2)
        else:

            async def assigned(of: StreamRunner = runner) -> bool:
                return of.status().assigned

            await eventually(assigned)
        await runner.stop()
        await task
    assert seen == [1, 1]
