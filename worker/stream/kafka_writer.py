"""Writing records to Kafka topics outside of any group."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka.errors import KafkaError

from worker.errors import FatalError
from worker.settings import Settings
from worker.stream.base import Output
from worker.stream.kafka_batches import send_outputs
from worker.stream.kafka_committer import close_client, producer_for
from worker.stream.kafka_tool import KafkaTool
from worker.stream.kafka_topics import require_topics, topic_partitions


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
