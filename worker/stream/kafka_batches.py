"""Outputs packed into record batches, one partition each: one future per batch, not per record."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from aiokafka.partitioner import murmur2

from worker.stream.base import Output

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
