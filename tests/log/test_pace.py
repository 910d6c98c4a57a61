"""How fast and in what portions the runner goes: what no result shows, and operators feel."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.log.conformance import eventually
from tests.log.running import committed, records, runner_of, values, verdict
from tests.support.log_backends import LocalBackend, create, write
from worker.errors import DependencyUnavailable
from worker.log import runner as stream
from worker.log.base import Delivery
from worker.log.factory import open_log
from worker.log.fair_queue import FairQueue
from worker.log.runner import StreamRunner
from worker.records import Output

MIB = 1024 * 1024


async def test_a_transaction_takes_no_more_than_its_share_of_input(tmp_path: Path) -> None:
    """Large records are committed a few at a time: a long transaction holds all readers back."""
    backend = LocalBackend(tmp_path)
    await create(backend, partitions=1)
    await write(backend, records(backend, 5, size=7 * MIB))
    release, sizes = asyncio.Event(), list[int]()
    log = open_log(backend.settings)
    commit = log.commit

    async def noted(claim: Any, outputs: Sequence[Output], *rest: Any) -> None:
        sizes.append(len(outputs))
        await commit(claim, outputs, *rest)

    async def judge(delivery: Delivery) -> Sequence[Output]:
        await release.wait()
        topic = backend.settings.topics.verdicts
        return [Output(topic=topic, key=b"k", value=(delivery.record.value or b"")[:5])]

    log.commit = noted  # type: ignore[method-assign, assignment]
    runner = StreamRunner(log, judge, [backend.topic], backend.settings.stream)
    task = asyncio.create_task(runner.run())

    async def all_in_flight() -> bool:
        return runner.status().inflight_events == 5

    await eventually(all_in_flight)
    release.set()
    await committed(runner, 5)
    await runner.stop()
    await task
    assert max(sizes) == 2
    assert await values(backend) == [b"%05d" % number for number in range(5)]


async def test_waits_for_a_dependency_double(tmp_path: Path) -> None:
    """Hundreds of workers that ask every half second are what keeps a store from coming back."""
    first = 0.02
    backend = LocalBackend(tmp_path, stream={"retry_initial_s": first, "retry_max_s": 60.0})
    await create(backend, partitions=1)
    await write(backend, records(backend, 1))
    calls: list[float] = []

    async def judge(delivery: Delivery) -> Sequence[Output]:
        calls.append(asyncio.get_running_loop().time())
        if len(calls) < 6:
            raise DependencyUnavailable("store")
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())
    await committed(runner, 1)
    await runner.stop()
    await task
    gaps = [after - before for before, after in pairwise(calls)]
    assert all(gap >= 0.9 * first * 2**number for number, gap in enumerate(gaps))


async def test_a_processor_that_never_waits_lets_the_loop_turn() -> None:
    """Probes and the group's heartbeats run beside a flood of events that a cache answers."""
    done, turns, count = 0, 0, 2000

    async def process(_: object) -> None:
        nonlocal done
        done += 1

    queue = FairQueue(process, limit=8)
    for number in range(count):
        queue.add(SimpleNamespace(share=number))  # type: ignore[arg-type]
    while done < count:
        turns += 1
        await asyncio.sleep(0)
    await queue.stop()
    assert turns >= 5


async def test_lag_is_looked_at_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is stuck shows a lag that grows, not the one it began with."""
    monkeypatch.setattr(stream, "LAG_EVERY_S", 0.02)
    backend = LocalBackend(tmp_path)
    await create(backend, partitions=1)
    await write(backend, records(backend, 3))
    release = asyncio.Event()

    async def judge(delivery: Delivery) -> Sequence[Output]:
        await release.wait()
        return verdict(backend, delivery)

    runner = runner_of(backend, judge)
    task = asyncio.create_task(runner.run())

    async def lags(by: int) -> None:
        async def seen() -> bool:
            return [each.lag for each in runner.status().partitions] == [by]

        await eventually(seen)

    await lags(3)
    await write(backend, records(backend, 4))
    await lags(7)
    release.set()
    await committed(runner, 7)
    await lags(0)
    await runner.stop()
    await task
