"""Reading a topic from its start to where it ends now, for commands, examples and tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from worker.errors import FatalError
from worker.log.local.tools import LocalTool
from worker.records import Record, TopicPartition


class TopicReader(Protocol):
    """Reads committed records without a group: looking changes nothing. An async context."""

    async def __aenter__(self) -> TopicReader: ...

    async def __aexit__(self, *_: object) -> None: ...

    def read(
        self, topic: str, *, partition: int | None = None, start: int = 0
    ) -> AsyncIterator[Record]:
        """Records from offset ``start`` to the end as of this call, in order per partition.

        Raises:
            FatalError: there is no such topic or partition.
        """
        ...


class LocalReader(LocalTool):
    """See ``TopicReader``; on the local log."""

    async def read(
        self, topic: str, *, partition: int | None = None, start: int = 0
    ) -> AsyncIterator[Record]:
        journal = self._journal
        await asyncio.to_thread(journal.refresh)
        for number in chosen_partitions(topic, journal.topics.get(topic), partition):
            source = TopicPartition(topic, number)
            for offset in range(start, journal.end(source)):
                stored = journal.read(source, offset)
                yield Record(
                    topic=topic,
                    partition=number,
                    offset=offset,
                    timestamp=stored.timestamp,
                    key=stored.key,
                    value=stored.value,
                    headers=stored.headers,
                )


def chosen_partitions(topic: str, count: int | None, partition: int | None) -> list[int]:
    """One partition, or all of a topic.

    Raises:
        FatalError: there is no such topic or partition.
    """
    if count is None:
        raise FatalError(
            f"there is no topic {topic}; see `moderation-worker topics check`, or correct topics.*"
        )
    if partition is None:
        return list(range(count))
    if not 0 <= partition < count:
        raise FatalError(f"topic {topic} has partitions 0 to {count - 1}, not {partition}")
    return [partition]
