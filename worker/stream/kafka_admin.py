"""Looking at and making topics on Kafka."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from worker.errors import FatalError
from worker.stream.admin import TopicInfo
from worker.stream.kafka_tool import KafkaTool
from worker.stream.kafka_topics import topic_partitions, wait_for_topics

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
