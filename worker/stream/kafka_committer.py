"""How outputs and the offset of one partition reach the brokers together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import aiokafka
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced

from worker.errors import FatalError
from worker.settings import Settings
from worker.stream.base import Mark, Output, TopicPartition
from worker.stream.kafka_batches import MAX_BATCH_BYTES, send_outputs
from worker.stream.kafka_connection import connection_options, milliseconds
from worker.stream.mark import encode_mark

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
