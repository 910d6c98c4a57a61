"""What the stream is doing, for health, console and metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol
from weakref import WeakSet

import msgspec

from worker.log.base import LogActivity
from worker.log.partition import PartitionState
from worker.records import TopicPartition
from worker.telemetry import instruments
from worker.telemetry.instruments import Observation
from worker.telemetry.names import Attribute


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One assigned partition. ``committed`` is the first offset not finished; ages are seconds.

    ``position`` is the offset after the newest record taken in; ``lag`` as of the last look;
    ``oldest_age_s`` the age, by the record's own timestamp, of the oldest record not published;
    ``idle_s`` the time since its last commit, 0 where nothing is in flight; ``held_by`` the
    dependency it waits for.
    """

    source: TopicPartition
    committed: int
    position: int
    lag: int
    inflight: int
    oldest_age_s: float
    held_by: str | None
    isolating: bool
    idle_s: float = 0.0


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot. Times ending in ``_at`` are of the clock's ``monotonic``.

    ``assigned``: an assignment was completed and is not being given up, even an empty one.
    ``last_progress_at``: the last commit, or the last moment with nothing to do.
    ``log``: what the log did; ``log_away_since`` since when it is away, if it is, and
    ``log_trouble`` why; ``recoveries``: how often it was closed and opened again.
    ``lag_at``: when the lags were last seen.
    """

    assigned: bool
    stopping: bool
    fatal: str | None
    partitions: tuple[PartitionStatus, ...]
    inflight_events: int
    inflight_bytes: int
    running: int
    events_committed: int
    last_progress_at: float
    paused_dependencies: tuple[str, ...]
    log: LogActivity = LogActivity()
    log_away_since: float | None = None
    log_trouble: str = ""
    recoveries: int = 0
    lag_at: float | None = None


def partition_status(
    partition: PartitionState, lag: int, wall: float, now: float
) -> PartitionStatus:
    """One partition as it stands; ``wall`` is seconds since the epoch, ``now`` monotonic."""
    head = partition.unfinished.head
    return PartitionStatus(
        source=partition.source,
        committed=partition.committed,
        position=partition.unfinished.position,
        lag=lag,
        inflight=len(partition.unfinished),
        oldest_age_s=max(0.0, wall - head.delivery.record.timestamp / 1000) if head else 0.0,
        held_by=partition.dependency,
        isolating=partition.isolating,
        idle_s=max(0.0, now - partition.progressed_at) if head else 0.0,
    )


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
