"""A dependency that is away holds its partitions, and is never blamed on an event."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.log.conformance import eventually
from tests.log.running import committed, records, runner_of, values, verdict
from tests.support.log_backends import LocalBackend, create, read, write
from worker.errors import DependencyUnavailable
from worker.log.base import Delivery
from worker.records import Output


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path, stream={"max_events": 8, "max_bytes": 20 * 1024 * 1024})


async def test_an_outage_holds_its_partition_and_blames_no_event(backend: LocalBackend) -> None:
    """While the store is away one record is tried at a time; then all pass, in order."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 20))
    away, calls = True, 0

    async def judge(delivery: Delivery) -> Sequence[Output]:
        nonlocal calls
        calls += 1
        if away:
            raise DependencyUnavailable("store")
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())

    async def probed() -> bool:
        return calls >= 12

    await eventually(probed)
    status = runner.status()
    assert status.paused_dependencies == ("store",)
    assert status.partitions[0].held_by == "store"
    assert status.events_committed == 0
    assert status.fatal is None
    away = False
    await committed(runner, 20)
    assert runner.status().paused_dependencies == ()
    await runner.stop()
    await task
    assert await values(backend) == [b"%05d" % number for number in range(20)]


async def test_an_outage_of_one_partition_leaves_the_others_running(backend: LocalBackend) -> None:
    """Only the partition whose records need the dependency waits."""
    await create(backend, partitions=2)
    many = [Output(topic=backend.topic, key=b"%d" % n, value=b"%05d" % n) for n in range(30)]
    await write(backend, many)
    free = [r for r in await read(backend, backend.topic) if r.partition == 1]

    async def judge(delivery: Delivery) -> Sequence[Output]:
        if delivery.record.partition == 0:
            raise DependencyUnavailable("store")
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())
    await committed(runner, len(free))
    await runner.stop()
    await task
    assert sorted(await values(backend)) == sorted(r.value or b"" for r in free)


async def test_a_held_partition_names_the_dependency_it_waits_for_now(
    backend: LocalBackend,
) -> None:
    """The store comes back and the judge is away: whoever looks must not search the store."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 3))
    away: str | None = "store"

    async def judge(delivery: Delivery) -> Sequence[Output]:
        if away is not None:
            raise DependencyUnavailable(away)
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())

    async def waits_for_it() -> bool:
        return away is not None and runner.status().paused_dependencies == (away,)

    await eventually(waits_for_it)
    away = "judge"
    await eventually(waits_for_it)
    away = None
    await committed(runner, 3)
    await runner.stop()
    await task
