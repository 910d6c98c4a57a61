"""Reading, writing and administering Kafka topics outside of any group, for commands and tests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from worker.errors import FatalError
from worker.log.admin import TopicInfo
from worker.log.kafka.committer import close_client, producer_for, send_outputs
from worker.log.kafka.connection import connection_options, unreachable
from worker.log.kafka.log import record_of
from worker.log.kafka.topics import require_topics, topic_partitions, wait_for_topics
from worker.log.reader import chosen_partitions
from worker.records import Output, Record
from worker.settings import Settings

# What reader, writer and admin of Kafka share: an admin client, open inside a context.


class KafkaTool:
    """An async context around an admin client; ``role`` ends its client id."""

    role = "tool"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: Any = None

    async def __aenter__(self) -> Self:
        self._admin = AIOKafkaAdminClient(**connection_options(self._settings.kafka, self.role))
        try:
            await self._start()
        except (KafkaError, OSError) as error:
            await self.__aexit__()
            raise await unreachable(self._settings.kafka, error) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

    async def _start(self) -> None:
        await self._admin.start()


# Looking at and making topics on Kafka.

_SIZE = "max.message.bytes"


class KafkaAdmin(KafkaTool):
    """See ``TopicAdmin``."""

    role = "topics"

    async def topics(self) -> Mapping[str, TopicInfo]:
        known = await topic_partitions(self._admin)
        limits = await self._size_limits([name for name in known if not name.startswith("__")])
        return {
            name: TopicInfo(name=name, partitions=count, max_message_bytes=limits.get(name))
            for name, count in known.items()
        }

    async def _size_limits(self, names: list[str]) -> dict[str, int]:
        if not names:
            return {}
        answers = await self._admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, {_SIZE: None}) for name in names]
        )
        return {
            resource[3]: int(entry[1])
            for answer in answers
            for resource in answer.resources
            for entry in resource[4]
            if entry[0] == _SIZE and entry[1] is not None
        }

    async def _visible(self, name: str) -> None:
        """Wait until the brokers tell of a new topic: they answer before all of them know it."""
        with contextlib.suppress(FatalError):  # made it was: a slow broker is no failure
            await wait_for_topics(self._admin, [name])

    async def create(
        self, name: str, partitions: int, replication: int, max_message_bytes: int
    ) -> bool:
        topic = NewTopic(
            name, partitions, replication, topic_configs={_SIZE: str(max_message_bytes)}
        )
        try:
            answer = await self._admin.create_topics([topic])
        except KafkaError as error:
            raise FatalError(f"creating {name} failed: {error!r}") from error
        _, code, *message = answer.topic_errors[0]
        if not code:
            await self._visible(name)
            return True
        if for_code(code) is TopicAlreadyExistsError:
            return False
        raise FatalError(f"creating {name} failed: {message[0] if message else for_code(code)}")


# Reading a Kafka topic from its start to where it ends now.

POLL_MS = 100
OPEN_TRANSACTION_S = 3.0
"""Longest wait for records that are written but not committed."""


class KafkaReader(KafkaTool):
    """See ``TopicReader``; read_committed, without a group."""

    role = "reader"

    async def read(
        self, topic: str, *, partition: int | None = None, start: int = 0
    ) -> AsyncIterator[Record]:
        known = await topic_partitions(self._admin)
        sources = [
            aiokafka.TopicPartition(topic, number)
            for number in chosen_partitions(topic, known.get(topic), partition)
        ]
        consumer = aiokafka.AIOKafkaConsumer(
            **connection_options(self._settings.kafka, "reader"),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
            fetch_max_wait_ms=POLL_MS,
        )
        await consumer.start()
        try:
            consumer.assign(sources)
            begins = await consumer.beginning_offsets(sources)
            for source in sources:
                consumer.seek(source, max(start, begins[source]))
            async for message in _until_the_end(consumer, sources):
                yield record_of(message)
        finally:
            await close_client(consumer)


async def _until_the_end(consumer: Any, sources: list[Any]) -> AsyncIterator[Any]:
    """Messages up to the high watermarks that the first fetches report.

    A transaction that was just committed may not be readable yet, because its markers are written
    after the commit was answered: wait for it, but not for one that stays open.
    """
    ends: dict[Any, int] = {}
    left = set(sources)
    moved = time.monotonic()
    while left and time.monotonic() - moved < OPEN_TRANSACTION_S:
        fetched = await consumer.getmany(*left, timeout_ms=POLL_MS)
        for source in left:
            watermark = consumer.highwater(source)
            if watermark is not None:
                ends.setdefault(source, watermark)
        for source, messages in fetched.items():
            moved = time.monotonic()
            for message in messages:
                if message.offset < ends[source]:
                    yield message
        for source in list(left):
            if source in ends and await consumer.position(source) >= ends[source]:
                left.discard(source)


class KafkaWriter(KafkaTool):
    """See ``TopicWriter``; idempotent, acknowledged by all replicas."""

    role = "writer"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._topics: dict[str, int] = {}
        self._producer: Any = None

    async def _start(self) -> None:
        await super()._start()
        self._producer = producer_for(self._settings, self.role)
        await self._producer.start()

    async def __aexit__(self, *_: object) -> None:
        if self._producer is not None:
            await close_client(self._producer)
        await super().__aexit__()

    async def write(self, outputs: Sequence[Output]) -> None:
        unknown = {output.topic for output in outputs} - self._topics.keys()
        if unknown:
            self._topics |= require_topics(await topic_partitions(self._admin), unknown)
        try:
            futures = await send_outputs(self._producer, outputs, self._topics)
            results = await asyncio.gather(*futures, return_exceptions=True)
        except KafkaError as error:
            raise FatalError(f"writing failed: {error!r}") from error
        for result in results:
            if isinstance(result, BaseException):
                raise FatalError(f"writing failed: {result!r}") from result
