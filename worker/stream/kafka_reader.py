"""Reading a Kafka topic from its start to where it ends now."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import aiokafka

from worker.stream.base import Record
from worker.stream.kafka import record_of
from worker.stream.kafka_committer import close_client
from worker.stream.kafka_connection import connection_options
from worker.stream.kafka_tool import KafkaTool
from worker.stream.kafka_topics import topic_partitions
from worker.stream.reader import chosen_partitions

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
