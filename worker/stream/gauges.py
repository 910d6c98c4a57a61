"""Lag, age and work in flight, read from every runner of this process when metrics are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol
from weakref import WeakSet

from worker.stream.base import TopicPartition
from worker.stream.status import PartitionStatus, StreamStatus
from worker.telemetry import instruments
from worker.telemetry.aggregate import Observation
from worker.telemetry.names import Attribute


class _Source(Protocol):
    def status(self) -> StreamStatus: ...


_sources: WeakSet[_Source] = WeakSet()


def observe(source: _Source) -> None:
    """Report ``source.status()`` for as long as it lives."""
    _sources.add(source)
    instruments.lag.watch(_partitions(lambda one: one.lag))
    instruments.partition_stalled.watch(_partitions(_Stalled()))
    instruments.oldest_age.watch(_partitions(lambda one: one.oldest_age_s))
    instruments.inflight_events.watch(_partitions(lambda one: one.inflight))
    instruments.inflight_bytes.watch(
        lambda: [(sum(source.status().inflight_bytes for source in list(_sources)), {})]
    )


class _Stalled:
    """Since when each partition's committed offset has not moved, as far as collections have seen.

    Nothing waits, or a commit since the last collection: 0.
    """

    def __init__(self) -> None:
        self._seen: dict[TopicPartition, tuple[int, float]] = {}

    def __call__(self, partition: PartitionStatus) -> float:
        now, waiting = time.monotonic(), partition.lag > 0 or partition.inflight > 0
        offset, since = self._seen.get(partition.source, (-1, now))
        if not waiting or offset != partition.committed:
            since = now
        self._seen[partition.source] = (partition.committed, since)
        return now - since


def _partitions(
    value: Callable[[PartitionStatus], float],
) -> Callable[[], Iterator[Observation]]:
    def observations() -> Iterator[Observation]:
        for source in list(_sources):
            for partition in source.status().partitions:
                labels: dict[str, str | int | bool] = {
                    Attribute.TOPIC: partition.source.topic,
                    Attribute.PARTITION: partition.source.partition,
                }
                yield value(partition), labels

    return observations
