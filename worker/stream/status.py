"""What the stream is doing, for health, console and metrics."""

from __future__ import annotations

import msgspec

from worker.stream.base import TopicPartition
from worker.stream.lane import Lane


class PartitionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One claimed partition. ``committed`` is the next record's offset; ages are seconds.

    ``position`` is the offset after the newest record taken in; ``lag`` as of the last look;
    ``oldest_age_s`` the age, by the record's own timestamp, of the oldest record not committed;
    ``held_by`` the dependency it waits for.
    """

    source: TopicPartition
    committed: int
    position: int
    lag: int
    inflight: int
    oldest_age_s: float
    held_by: str | None
    isolating: bool


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot. Times ending in ``_at`` are of the clock's ``monotonic``.

    ``assigned``: an assignment was completed and is not being given up, even an empty one.
    ``last_progress_at``: the last commit, or the last moment with nothing to do.
    ``oldest_inflight_s``: how long the oldest record in flight has been here.
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
    oldest_inflight_s: float
    paused_dependencies: tuple[str, ...]


def partition_status(lane: Lane, lag: int, now: float) -> PartitionStatus:
    """One lane as it stands; ``now`` is seconds since the epoch."""
    head = lane.window.head
    return PartitionStatus(
        source=lane.source,
        committed=lane.committed,
        position=lane.position or lane.committed,
        lag=lag,
        inflight=len(lane.window),
        oldest_age_s=max(0.0, now - head.delivery.record.timestamp / 1000) if head else 0.0,
        held_by=lane.dependency,
        isolating=lane.suspect,
    )
