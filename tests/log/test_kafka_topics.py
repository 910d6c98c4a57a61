"""Topics and partitions that come, go and come again: read soon, and never made by a worker."""

from __future__ import annotations

import time

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.protocol.metadata import MetadataRequest, MetadataRequest_v5

from tests.log.conformance import assigned, outputs, poll_until, started
from tests.support.kafka import Cluster
from tests.support.log_backends import KafkaBackend, create, write
from worker.log.factory import open_admin
from worker.log.kafka import connection
from worker.records import Output, Record


def test_no_metadata_request_allows_a_broker_to_create_a_topic() -> None:
    """The seam: aiokafka allows it in every request unless its default is turned."""
    assert connection.METADATA_MAX_AGE_MS <= 30_000
    built = MetadataRequest(["a"]).build(MetadataRequest_v5)
    assert built.to_object()["allow_auto_topic_creation"] is False


@pytest.mark.kafka
async def test_a_topic_deleted_under_a_worker_stays_deleted(kafka: Cluster) -> None:
    """The brokers here create topics that are asked for: the worker must not ask so."""
    backend = KafkaBackend(kafka)
    await create(backend, partitions=2)
    log, keeper = await started(backend)
    try:
        await assigned(log, keeper, 2)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        await admin.delete_topics([backend.topic])
        await admin.close()
        gone = time.monotonic()
        while time.monotonic() - gone < 5:
            await log.poll(10, 0.2)
        async with open_admin(backend.settings) as topics:
            assert backend.topic not in await topics.topics()
    finally:
        await log.stop()


@pytest.mark.kafka
@pytest.mark.slow
async def test_partitions_that_are_added_are_read_within_a_minute(kafka: Cluster) -> None:
    """From their beginning, although the group never committed there."""
    backend = KafkaBackend(kafka)
    await create(backend, partitions=1)
    await write(backend, outputs(5, backend.topic))
    log, keeper = await started(backend)
    try:
        await poll_until(log, lambda got: len(got) >= 5)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        await admin.create_partitions({backend.topic: NewPartitions(3)})
        await admin.close()
        added = time.monotonic()
        more = [Output(topic=backend.topic, key=b"%d" % n, value=b"v") for n in range(30)]
        await write(backend, more)
        found: list[Record] = []
        while len({record.partition for record in found}) < 3:
            assert time.monotonic() - added < 60
            found += await log.poll(100, 0.5)
        assert len(keeper.assignments) == 3
    finally:
        await log.stop()
