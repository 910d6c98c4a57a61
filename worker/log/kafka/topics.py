"""What topics there are, asked in a way that can never create one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError

from worker.errors import DependencyUnavailable, FatalError
from worker.records import TopicPartition

RETRY_S = 0.1
NEW_TOPIC_S = 3.0


async def topic_partitions(admin: Any) -> dict[str, int]:
    """Partitions of every topic. A metadata request without names creates nothing."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


def require_topics(known: Mapping[str, int], wanted: Iterable[str]) -> dict[str, int]:
    """The wanted topics' partition counts.

    Raises:
        FatalError: some are missing; the worker never creates topics on its own.
    """
    wanted = list(dict.fromkeys(wanted))
    missing = [topic for topic in wanted if topic not in known]
    if missing:
        raise FatalError(
            f"missing topics: {', '.join(missing)}. Create them with "
            "`moderation-worker topics create`, or correct the names in topics.* and the policies"
        )
    return {topic: known[topic] for topic in wanted}


async def wait_for_topics(admin: Any, wanted: Iterable[str]) -> dict[str, int]:
    """Partitions of every topic, once the wanted ones are among them.

    A topic that was made a moment ago is not known to every broker yet.

    Raises:
        FatalError: some are still missing after ``NEW_TOPIC_S``.
    """
    wanted = tuple(wanted)
    deadline = time.monotonic() + NEW_TOPIC_S
    while True:
        known = await topic_partitions(admin)
        if all(topic in known for topic in wanted) or time.monotonic() >= deadline:
            require_topics(known, wanted)
            return known
        await asyncio.sleep(RETRY_S)


async def committed_offsets(
    admin: Any, group: str, sources: Iterable[TopicPartition], timeout_s: float
) -> dict[TopicPartition, tuple[int, str]]:
    """The group's offsets with their metadata; partitions without a commit are left out.

    A live call, to be made after the previous owner is fenced: only then is the answer final.

    Raises:
        DependencyUnavailable: no answer within ``timeout_s``.
    """
    asked = [aiokafka.TopicPartition(*source) for source in sources]
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    answer = await admin.list_consumer_group_offsets(group, partitions=asked)
                    # A coordinator that is still loading names none of them: that is no answer.
                    if all(source in answer for source in asked):
                        break
                except KafkaError as error:
                    # The admin client answers a moved coordinator with its parent class.
                    if not error.retriable and type(error) is not KafkaError:
                        raise
                await asyncio.sleep(RETRY_S)
    except TimeoutError as error:
        raise DependencyUnavailable(
            "log",
            f"the offsets of group {group} could not be read within {timeout_s:g} s "
            "(kafka.request_timeout_s)",
        ) from error
    return {
        TopicPartition(*source): (found.offset, found.metadata or "")
        for source, found in answer.items()
        if found.offset >= 0
    }
