"""Brokers that go away: the worker outlives one of three, and ends cleanly without any."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest

from tests.log.conformance import eventually
from tests.support.chaos import assert_exactly_once
from tests.support.kafka import Cluster
from tests.support.log_backends import KafkaBackend, create, read
from tests.support.log_chaos import fill
from worker.log.base import Delivery
from worker.log.factory import open_log
from worker.log.runner import StreamRunner
from worker.records import Output

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def test_the_loss_of_one_broker_of_three_is_survived(kafka_of_three: Cluster) -> None:
    """A broker is killed mid stream and comes back: every record has one verdict, in order.

    A worker whose producer broke on the way ends with a clear error; the next one goes on.
    """
    backend = KafkaBackend(kafka_of_three, stream={"max_events": 64})
    await create(backend, partitions=4, replication=3)
    await fill(backend, 0, 2000)
    verdicts = backend.settings.topics.verdicts

    async def judge(delivery: Delivery) -> Sequence[Output]:
        await asyncio.sleep(0.1)
        record = delivery.record
        source = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
        body = json.dumps({"source": source}).encode()
        return [Output(topic=verdicts, key=record.key, value=body)]

    committed = 0
    runner = StreamRunner(open_log(backend.settings), judge, [backend.topic])
    stopping = False

    async def keep_running() -> None:
        nonlocal runner, committed
        while not stopping:
            try:
                await runner.run()
            except Exception:
                committed += runner.status().events_committed
                runner = StreamRunner(open_log(backend.settings), judge, [backend.topic])

    task = asyncio.create_task(keep_running())

    async def at_least(count: int) -> bool:
        return committed + runner.status().events_committed >= count

    await eventually(lambda: at_least(300))
    broker = kafka_of_three.brokers[1]
    await asyncio.to_thread(broker.kill)
    await eventually(lambda: at_least(900))
    broker.start()
    await asyncio.to_thread(broker.wait)

    async def complete() -> bool:
        return len(await read(backend, verdicts)) >= 2000

    await eventually(complete)
    stopping = True
    await runner.stop()
    await task
    assert_exactly_once(await read(backend, backend.topic), await read(backend, verdicts))
