"""The log on a real Apache Kafka keeps what every log promises, and what only Kafka can break."""

from __future__ import annotations

import msgspec
import pytest
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import RequestTimedOutError

from tests.log.conformance import (
    Keeper,
    LogConformance,
    assigned,
    eventually,
    outputs,
    poll_until,
    started,
)
from tests.support.kafka import Cluster
from tests.support.log_backends import Backend, KafkaBackend, create, read, write
from worker.errors import DependencyUnavailable, FatalError
from worker.log.base import PartitionLost
from worker.log.factory import open_log
from worker.log.kafka.committer import TransactionalCommitter
from worker.log.kafka.log import KafkaLog
from worker.records import TopicPartition
from worker.settings import load_settings

pytestmark = pytest.mark.kafka


class TestKafkaExactlyOnce(LogConformance):
    @pytest.fixture
    def backend(self, kafka: Cluster) -> KafkaBackend:
        return KafkaBackend(kafka)


class TestKafkaAtLeastOnce(LogConformance):
    """The same promises, but for fencing: a frozen owner may repeat itself."""

    @pytest.fixture
    def backend(self, kafka: Cluster) -> KafkaBackend:
        return KafkaBackend(kafka, delivery="at_least_once")

    async def test_a_fenced_owner_cannot_commit(self, backend: Backend) -> None:
        """A assignment that is no longer held commits nothing."""
        await create(backend, partitions=1)
        await write(backend, outputs(2, backend.topic))
        log, keeper = await started(backend)
        await poll_until(log, lambda got: len(got) >= 2)
        assignment = keeper.assignments[TopicPartition(backend.topic, 0)]
        stale = msgspec.structs.replace(assignment, generation=assignment.generation - 1)
        with pytest.raises(PartitionLost, match="fenced"):
            await log.commit(stale, outputs(1, backend.settings.topics.verdicts), 2)
        await log.stop()
        assert await read(backend, backend.settings.topics.verdicts) == []


async def test_records_of_a_poll_that_a_rebalance_fell_into_are_read_again(kafka: Cluster) -> None:
    """Fetched while the partition was given up: dropped here, and no position passes them."""
    backend = KafkaBackend(kafka, delivery="at_least_once")
    await create(backend, partitions=1)
    await write(backend, outputs(5, backend.topic))
    log, _ = await started(backend)
    assert isinstance(log, KafkaLog)
    fetch = log._fetcher.getmany
    fetched = []

    async def fetch_and_lose(*sources: object, **options: object) -> object:
        batches = await fetch(*sources, **options)
        if batches:
            fetched.append(batches)
            log.follow(set())
            await log._reconcile()
        return batches

    log._fetcher.getmany = fetch_and_lose

    async def dropped() -> bool:
        assert not await log.poll(10, 0.5)
        return bool(fetched)

    try:
        await eventually(dropped)
    finally:
        await log.stop()
    heir, _ = await started(backend)
    try:
        again = await poll_until(heir, lambda got: len(got) >= 5)
    finally:
        await heir.stop()
    assert [record.offset for record in again] == [0, 1, 2, 3, 4]


async def test_an_exception_out_of_a_fetch_loses_no_record_of_another_partition(
    kafka: Cluster,
) -> None:
    """The client drains one partition, raises for another, and has forgotten the first."""
    backend = KafkaBackend(kafka)
    await create(backend, partitions=2)
    await write(backend, outputs(40, backend.topic))
    log, _ = await started(backend)
    assert isinstance(log, KafkaLog)
    fetch = log._fetcher.getmany
    failures = 0

    async def fetch_and_fail(*sources: object, **options: object) -> object:
        nonlocal failures
        batches = await fetch(*sources, **options)
        if batches and failures < 3:
            failures += 1
            raise RequestTimedOutError("of another partition")
        return batches

    log._fetcher.getmany = fetch_and_fail
    try:
        records = await poll_until(log, lambda got: len(got) >= 40)
    finally:
        await log.stop()
    assert failures == 3
    for partition in range(2):
        mine = [record.offset for record in records if record.partition == partition]
        assert mine == list(range(len(mine)))


async def test_markers_of_a_transactional_input_are_no_lag(kafka: Cluster) -> None:
    """An input written in transactions is drained to lag zero, so that a scaler can go to zero."""
    backend = KafkaBackend(kafka)
    await create(backend, partitions=1)
    source = TopicPartition(backend.topic, 0)
    upstream = TransactionalCommitter(
        backend.settings,
        source,
        {backend.topic: 1},
    )
    await upstream.start()
    for _ in range(3):
        await upstream.commit(outputs(2, backend.topic), 0, "")
    await upstream.stop()
    log, keeper = await started(backend)
    try:
        records = await poll_until(log, lambda got: len(got) >= 6)
        assert [record.offset for record in records] == [0, 1, 3, 4, 6, 7]
        await log.commit(keeper.assignments[source], (), 8)

        async def drained() -> bool:
            await log.poll(10, 0.1)
            return (await log.lag())[source] == 0

        await eventually(drained)
    finally:
        await log.stop()


async def test_an_offset_that_expired_is_fatal_and_says_what_to_do(kafka: Cluster) -> None:
    """Neither skipping nor replaying is chosen for the user."""
    backend = KafkaBackend(kafka)
    await create(backend, partitions=1)
    await write(backend, outputs(5, backend.topic))
    log, keeper = await started(backend)
    await poll_until(log, lambda got: len(got) >= 5)
    await log.commit(keeper.assignments[TopicPartition(backend.topic, 0)], (), 2)
    await log.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    await admin.delete_records(
        {KafkaTopicPartition(backend.topic, 0): RecordsToDelete(before_offset=4)}
    )
    await admin.close()
    log, keeper = await started(backend)
    try:
        with pytest.raises(FatalError, match="reset-offsets"):
            await poll_until(log, lambda got: len(got) >= 1)
    finally:
        await log.stop()


async def test_no_broker_is_waited_for_and_names_the_setting() -> None:
    """A worker is often up before its brokers are; it says where it looked."""
    settings = load_settings(
        None, kafka={"bootstrap_servers": "127.0.0.1:1", "request_timeout_s": 0.5}
    )
    log = open_log(settings)
    with pytest.raises(DependencyUnavailable, match=r"kafka\.bootstrap_servers"):
        await log.start(["events"], Keeper())
    await log.stop()


async def test_order_by_partition_leaves_what_versions_before_can_read(kafka: Cluster) -> None:
    """Offsets committed without a map and without suspicion carry no metadata at all."""
    backend = KafkaBackend(kafka, stream={"order": "partition"})
    await create(backend, partitions=1)
    log, keeper = await started(backend)
    await assigned(log, keeper, 1)
    assignment = keeper.assignments[TopicPartition(backend.topic, 0)]
    await log.commit(assignment, (), 0)
    await log.stop()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    stored = await admin.list_consumer_group_offsets(backend.settings.kafka.group_id)
    await admin.close()
    assert [entry.metadata for entry in stored.values()] == [""]
