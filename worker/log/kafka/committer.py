"""How outputs and the offset of one partition reach the brokers together."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import aiokafka
from aiokafka.errors import (
    CommitFailedError,
    IllegalOperation,
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    TopicAuthorizationFailedError,
)
from aiokafka.partitioner import murmur2

from worker.concurrency import bounded
from worker.log.base import PartitionLost
from worker.log.kafka.connection import connection_options, milliseconds
from worker.records import Output, TopicPartition
from worker.settings import Settings

# Outputs packed into record batches, one partition each: one future per batch, not per record.

MAX_BATCH_BYTES = 512 * 1024
"""Below the brokers' default ``max.message.bytes`` (1 MiB), which bounds a whole batch."""

_positive_murmur2 = lru_cache(maxsize=16_384)(lambda key: murmur2(key) & 0x7FFFFFFF)


def partition_of(key: bytes | None, count: int) -> int:
    """Partition of a key, as Kafka's default partitioner has it; any one for records without."""
    if key is None:
        return random.randrange(count)  # noqa: S311 - spreads load, guards nothing
    return int(_positive_murmur2(key)) % count


async def send_outputs(
    producer: Any, outputs: Sequence[Output], counts: dict[str, int]
) -> list[asyncio.Future[Any]]:
    """Hand ``outputs`` to ``producer``, order kept within each partition.

    ``counts`` gives the partitions of every topic. The futures resolve when the brokers have
    acknowledged; each must be looked at, because a transaction commits past a failed batch.
    """
    open_batches: dict[tuple[str, int], list[Any]] = {}
    for output in outputs:
        target = (output.topic, partition_of(output.key, counts[output.topic]))
        batches = open_batches.setdefault(target, [])
        if not batches or not _append(batches[-1], output):
            batches.append(producer.create_batch())
            _append(batches[-1], output)
    futures = []
    for (topic, partition), batches in open_batches.items():
        for batch in batches:
            batch.close()
            futures.append(await producer.send_batch(batch, topic, partition=partition))
    return futures


def _append(batch: Any, output: Output) -> bool:
    added = batch.append(
        timestamp=None, key=output.key, value=output.value, headers=list(output.headers)
    )
    return added is not None


RETRY_COMMIT_S = 0.2
STOP_TIMEOUT_S = 5.0
"""Longest wait for a client to close; what it had not committed is redelivered anyway."""


class Committer(Protocol):
    """Publishes and commits for one partition. After any failure it is of no use any more."""

    async def start(self) -> None: ...

    async def commit(self, outputs: Sequence[Output], next_offset: int, metadata: str) -> None: ...

    async def stop(self) -> None: ...


def producer_for(settings: Settings, role: str, **options: Any) -> Any:
    """An aiokafka producer that is idempotent, waits for all replicas and packs large batches."""
    return aiokafka.AIOKafkaProducer(
        **connection_options(settings.kafka, role),
        acks="all",
        enable_idempotence=True,
        max_batch_size=MAX_BATCH_BYTES,
        max_request_size=settings.kafka.max_message_bytes,
        **options,
    )


class TransactionalCommitter:
    """Exactly once: one producer per input partition; its transactional id fences older owners.

    aiokafka commits offsets without the group's generation, so only a transactional id that
    belongs to the input partition keeps a frozen worker that wakes up from writing twice.
    """

    def __init__(self, settings: Settings, source: TopicPartition, topics: dict[str, int]) -> None:
        self._group = settings.kafka.group_id
        self._source = aiokafka.TopicPartition(*source)
        self._name = f"{source.topic}-{source.partition}"
        self._topics = topics
        self._timeout_s = settings.kafka.transaction_timeout_s
        self._producer = producer_for(
            settings,
            f"producer-{self._name}",
            transactional_id=f"{self._group}-{self._name}",
            transaction_timeout_ms=milliseconds(self._timeout_s),
        )

    async def start(self) -> None:
        """Fence the previous owner and abort what it left open (InitProducerId)."""
        await self._producer.start()
        for topic in self._topics:  # metadata now, so that transactions stay short
            await self._producer.partitions_for(topic)

    async def commit(self, outputs: Sequence[Output], next_offset: int, metadata: str) -> None:
        with _lost_by_errors(self._name, self._timeout_s):
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()
                futures: list[Awaitable[Any]] = list(
                    await send_outputs(self._producer, outputs, self._topics)
                )
                offsets = {self._source: aiokafka.structs.OffsetAndMetadata(next_offset, metadata)}
                futures.append(self._producer.send_offsets_to_transaction(offsets, self._group))
                await _all_or_first_error(futures)
                await self._producer.commit_transaction()

    async def stop(self) -> None:
        await close_client(self._producer)


class AcknowledgedCommitter:
    """At least once: outputs acknowledged by all replicas first, the group's offset second."""

    def __init__(
        self,
        settings: Settings,
        source: TopicPartition,
        topics: dict[str, int],
        producer: Any,
        consumer: Any,
    ) -> None:
        self._source = aiokafka.TopicPartition(*source)
        self._name = f"{source.topic}-{source.partition}"
        self._topics = topics
        self._timeout_s = settings.kafka.transaction_timeout_s
        self._producer = producer
        self._consumer = consumer

    async def start(self) -> None:
        for topic in self._topics:
            await self._producer.partitions_for(topic)

    async def commit(self, outputs: Sequence[Output], next_offset: int, metadata: str) -> None:
        with _lost_by_errors(self._name, self._timeout_s):
            async with asyncio.timeout(self._timeout_s):
                await _all_or_first_error(await send_outputs(self._producer, outputs, self._topics))
                offset = aiokafka.structs.OffsetAndMetadata(next_offset, metadata)
                while True:
                    try:
                        await self._consumer.commit({self._source: offset})
                        return
                    except CommitFailedError:  # the group is between two generations
                        await asyncio.sleep(RETRY_COMMIT_S)

    async def stop(self) -> None:
        """The producer is shared; the log closes it."""


async def close_client(client: Any) -> None:
    """Close an aiokafka client, bounded: a broken one must not hold the process up.

    A fetch that is cancelled while it waits out an error lets its cancellation out of
    ``AIOKafkaConsumer.stop`` (aiokafka 0.14, ``Fetcher.close``), before the sockets are closed.
    """
    if not await bounded(client.stop(), STOP_TIMEOUT_S):
        inner = getattr(client, "_client", None) or getattr(client, "client", None)
        if inner is not None:
            await bounded(inner.close(), STOP_TIMEOUT_S)


async def _all_or_first_error(awaitables: Sequence[Awaitable[Any]]) -> None:
    """Wait for all, but not past the first failure: a fenced producer's batches may retry on."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.add_done_callback(_look_at)
            task.cancel()


def _look_at(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


@contextlib.contextmanager
def _lost_by_errors(name: str, timeout_s: float) -> Any:
    """Whatever goes wrong leaves the outcome unknown: whoever claims next reads it back."""
    try:
        yield
    except ProducerFenced as error:
        raise PartitionLost(
            f"fenced on {name}: another worker owns it now, or a transaction outlasted "
            "kafka.transaction_timeout_s"
        ) from error
    except TimeoutError as error:
        raise PartitionLost(
            f"commit on {name} unanswered for {timeout_s:g} s (kafka.transaction_timeout_s)"
        ) from error
    except TopicAuthorizationFailedError as error:
        raise PartitionLost(
            f"commit on {name} refused: no right to write to {error.args}; "
            "grant Write to the output topics"
        ) from error
    except MessageSizeTooLargeError as error:
        raise PartitionLost(
            f"commit on {name} refused: an output topic takes no record of that size; "
            "`moderation-worker topics check` names it"
        ) from error
    except (KafkaError, IllegalOperation, IllegalStateError, AssertionError, OSError) as error:
        raise PartitionLost(f"commit on {name} failed: {error!r}") from error
