"""How outputs and the offset of one partition reach the brokers together."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import aiokafka
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced
from aiokafka.partitioner import murmur2

from worker.errors import FatalError
from worker.log.base import UNMARKED, Mark
from worker.log.kafka.connection import connection_options, milliseconds
from worker.records import Output, TopicPartition
from worker.settings import Settings

# How a ``Mark`` is written into the metadata of a committed offset.


def encode_mark(mark: Mark) -> str:
    """Text for the offset's metadata; empty for ``UNMARKED``, so that plain commits look plain."""
    return "" if mark == UNMARKED else f"attempts={mark.attempts};until={mark.until}"


def decode_mark(metadata: str | None) -> Mark:
    """Read what ``encode_mark`` wrote. Metadata of other tools counts as ``UNMARKED``."""
    try:
        fields = dict(part.split("=", 1) for part in (metadata or "").split(";") if part)
        return Mark(attempts=int(fields["attempts"]), until=int(fields["until"]))
    except (KeyError, ValueError):
        return UNMARKED


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


STOP_TIMEOUT_S = 5.0
"""Longest wait for a client to close; what it had not committed is redelivered anyway."""


class Committer(Protocol):
    """Publishes and commits for one partition. Any failure is a ``FatalError``."""

    async def start(self) -> None: ...

    async def commit(self, outputs: Sequence[Output], next_offset: int, mark: Mark) -> None: ...

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

    async def commit(self, outputs: Sequence[Output], next_offset: int, mark: Mark) -> None:
        with _fatal_errors(self._name, self._timeout_s):
            async with asyncio.timeout(self._timeout_s):
                await self._producer.begin_transaction()
                futures: list[Awaitable[Any]] = list(
                    await send_outputs(self._producer, outputs, self._topics)
                )
                offsets = {
                    self._source: aiokafka.structs.OffsetAndMetadata(next_offset, encode_mark(mark))
                }
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

    async def commit(self, outputs: Sequence[Output], next_offset: int, mark: Mark) -> None:
        with _fatal_errors(self._name, self._timeout_s):
            async with asyncio.timeout(self._timeout_s):
                await _all_or_first_error(await send_outputs(self._producer, outputs, self._topics))
                await self._consumer.commit(
                    {
                        self._source: aiokafka.structs.OffsetAndMetadata(
                            next_offset, encode_mark(mark)
                        )
                    }
                )

    async def stop(self) -> None:
        """The producer is shared; the log closes it."""


async def close_client(client: Any) -> None:
    """Close an aiokafka client, bounded: a broken one must not hold the process up."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.stop(), STOP_TIMEOUT_S)


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
def _fatal_errors(name: str, timeout_s: float) -> Any:
    """Whatever goes wrong in a commit leaves its outcome unknown: the process must end."""
    try:
        yield
    except ProducerFenced as error:
        raise FatalError(
            f"fenced on {name}: another worker owns it now, or a transaction outlasted "
            "kafka.transaction_timeout_s; nothing is lost, start a new process"
        ) from error
    except TimeoutError as error:
        raise FatalError(
            f"commit on {name} unanswered for {timeout_s:g} s (kafka.transaction_timeout_s); "
            "check the brokers; nothing is lost, start a new process"
        ) from error
    except (KafkaError, IllegalOperation, AssertionError, OSError) as error:
        raise FatalError(
            f"commit on {name} failed: {error!r}; nothing is lost, start a new process"
        ) from error
