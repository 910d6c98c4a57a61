"""How much may be in flight at once, and how much of it one partition may hold."""

from __future__ import annotations

from collections.abc import Collection

from worker.log.partition import InFlight, Load, PartitionState
from worker.settings import Stream

WAITING = 16
"""Events in flight over events being judged: those that wait for their turn or for their commit
take no room in the judge, and a judge that is faster than a transaction must not wait for it (with
4, a worker without a model stood still for a third of its time)."""
THRESHOLD_FACTOR = 2.0
"""What a partition may hold, in terms of what is free (the alpha of Choudhury and Hahne's dynamic
thresholds, 1998): one that is stuck leaves a third of the room to the others, two leave a fifth."""


class Backpressure:
    """Counts events and input bytes from admission to commit (or to the end of a late call).

    Intake closes when a bound is reached and opens again at half of it, so that polls stay large;
    so does the intake of a single partition, where there are others. Bytes are bounded up to one
    poll: a record's size is known once it has been read. Records that wait for a dependency are
    parked, outside of the bounds up to as much again, so that a held partition does not take the
    room of the others.
    """

    def __init__(self, settings: Stream) -> None:
        self._max_events = settings.max_events * WAITING
        self._max_bytes = settings.max_bytes
        self._poll = max(1, settings.max_events // 8)
        self._load = Load()
        self._parked_events = 0
        self._parked_bytes = 0
        self.closed = False

    @property
    def events(self) -> int:
        """Events in flight, parked ones included."""
        return self._load.events + self._parked_events

    @property
    def bytes(self) -> int:
        """Input bytes in flight, parked ones included."""
        return self._load.bytes + self._parked_bytes

    @property
    def room(self) -> int:
        """Events that the next poll may bring: a part of the bound; 0 while intake is closed."""
        return 0 if self.closed else min(self._max_events - self._load.events, self._poll)

    def look(self, partitions: Collection[PartitionState]) -> None:
        """Open and close the intake, of everybody and of each partition, as the counts demand."""
        used = self._share(self._load)
        self.closed = used >= 1 or (self.closed and used > 0.5)
        limit = THRESHOLD_FACTOR * (1 - used) if len(partitions) > 1 else 2.0
        for partition in partitions:
            held = self._share(partition.load)
            partition.full = held >= limit or (partition.full and held > limit / 2)

    def take(self, record: InFlight) -> None:
        """Count a record in."""
        for load in (self._load, record.partition.load):
            load.events += 1
            load.bytes += record.size

    def park(self, record: InFlight) -> None:
        """Set a waiting record aside, where there is room for it."""
        if (
            record.parked
            or record.released
            or self._parked_events >= self._max_events // WAITING
            or self._parked_bytes + record.size > self._max_bytes
        ):
            return
        record.parked = True
        self._parked_events += 1
        self._parked_bytes += record.size
        self._give_back(record)

    def unpark(self, record: InFlight) -> None:
        """Count a record among the others again."""
        if record.parked and not record.released:
            record.parked = False
            self._parked_events -= 1
            self._parked_bytes -= record.size
            self.take(record)

    def release(self, record: InFlight) -> None:
        """Count a record out; a second time does nothing."""
        if record.released:
            return
        record.released = True
        if record.parked:
            self._parked_events -= 1
            self._parked_bytes -= record.size
        else:
            self._give_back(record)

    def _give_back(self, record: InFlight) -> None:
        for load in (self._load, record.partition.load):
            load.events -= 1
            load.bytes -= record.size

    def _share(self, load: Load) -> float:
        """The fuller of the two bounds, 1 where it is reached."""
        return max(load.events / self._max_events, load.bytes / self._max_bytes)
