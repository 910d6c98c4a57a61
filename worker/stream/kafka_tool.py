"""What reader, writer and admin of Kafka share: an admin client, open inside a context."""

from __future__ import annotations

from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from worker.settings import Settings
from worker.stream.kafka_connection import connection_options
from worker.stream.kafka_unreachable import unreachable


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
