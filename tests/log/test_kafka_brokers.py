"""Brokers that go away: the worker outlives all of them, in one process, and goes on by itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.log.conformance import eventually
from tests.support.chaos import assert_exactly_once
from tests.support.kafka import LEFT_OUT, Cluster, available, cluster
from tests.support.log_backends import KafkaBackend, create, read
from tests.support.log_chaos import fill
from worker.log.base import Delivery
from worker.log.factory import open_log
from worker.log.runner import StreamRunner
from worker.records import Output, Record

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

RETURN_S = 5.0
"""Longest from a broker that listens again to the next verdict; the machine may be loaded."""


def judging(backend: KafkaBackend, pause_s: float) -> StreamRunner:
    async def judge(delivery: Delivery) -> Sequence[Output]:
        await asyncio.sleep(pause_s)
        record = delivery.record
        source = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        body = json.dumps({"source": source}).encode()
        return [Output(topic=backend.settings.topics.verdicts, key=record.key, value=body)]

    def key(record: Record) -> bytes | None:
        return record.key

    log = open_log(backend.settings)
    return StreamRunner(log, judge, [backend.topic], backend.settings.stream, conversation=key)


async def test_the_loss_of_one_broker_of_three_is_survived(kafka_of_three: Cluster) -> None:
    """A broker is killed mid stream and comes back: one process, one verdict a record, in order."""
    backend = KafkaBackend(kafka_of_three, stream={"max_events": 64})
    await create(backend, partitions=4, replication=3)
    await fill(backend, 0, 2000)
    runner = judging(backend, 0.1)
    task = asyncio.create_task(runner.run())

    async def at_least(count: int) -> bool:
        assert not task.done(), task.exception()
        return runner.status().events_committed >= count

    await eventually(lambda: at_least(300))
    broker = kafka_of_three.brokers[1]
    await asyncio.to_thread(broker.kill)
    await eventually(lambda: at_least(900))
    broker.start()
    await asyncio.to_thread(broker.wait)

    async def complete() -> bool:
        assert not task.done(), task.exception()
        return len(await read(backend, backend.settings.topics.verdicts)) >= 2000

    await eventually(complete)
    await runner.stop()
    await task
    inputs = await read(backend, backend.topic)
    assert_exactly_once(inputs, await read(backend, backend.settings.topics.verdicts))


async def test_all_brokers_away_for_longer_than_a_transaction_may_last(tmp_path: Path) -> None:
    """No process ends; the log shows as a dependency that is away; then all goes on."""
    if not available():
        pytest.skip(LEFT_OUT)
    with cluster(tmp_path, 1) as one:
        backend = KafkaBackend(
            one,
            kafka={"transaction_timeout_s": 3.0, "request_timeout_s": 5.0},
            stream={"max_events": 64},
        )
        await create(backend, partitions=4)
        await fill(backend, 0, 3000)
        runner = judging(backend, 0.2)
        task = asyncio.create_task(runner.run())

        async def at_least(count: int) -> bool:
            assert not task.done(), task.exception()
            return runner.status().events_committed >= count

        await eventually(lambda: at_least(200))
        broker = one.brokers[0]
        await asyncio.to_thread(broker.kill)
        gone = time.monotonic()

        async def said() -> bool:
            assert not task.done(), task.exception()
            status = runner.status()
            return "log" in status.paused_dependencies and time.monotonic() - gone > 12

        await eventually(said)
        before = runner.status().events_committed
        broker.start()
        await asyncio.to_thread(broker.wait)
        back = time.monotonic()
        await eventually(lambda: at_least(before + 1))
        print(f"first verdict {time.monotonic() - back:.1f} s after the broker listened again")
        await eventually(lambda: at_least(3000))
        assert "log" not in runner.status().paused_dependencies
        await runner.stop()
        await task
        inputs = await read(backend, backend.topic)
        assert_exactly_once(inputs, await read(backend, backend.settings.topics.verdicts))


async def test_a_worker_that_is_up_before_its_brokers_waits_for_them(tmp_path: Path) -> None:
    """It says what it waits for, and works once they are there."""
    if not available():
        pytest.skip(LEFT_OUT)
    with cluster(tmp_path, 1) as one:
        backend = KafkaBackend(one, kafka={"request_timeout_s": 5.0})
        await create(backend, partitions=1)
        await fill(backend, 0, 5)
        broker = one.brokers[0]
        await asyncio.to_thread(broker.stop)
        runner = judging(backend, 0.0)
        task = asyncio.create_task(runner.run())

        async def waiting() -> bool:
            return "bootstrap_servers" in runner.status().log_trouble

        await eventually(waiting)
        broker.start()
        await asyncio.to_thread(broker.wait)

        async def done() -> bool:
            assert not task.done(), task.exception()
            return runner.status().events_committed >= 5

        await eventually(done)
        await runner.stop()
        await task
