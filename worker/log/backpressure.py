"""How much may be in flight at once, and how much of it one partition may hold."""

from __future__ import annotations

from collections.abc import Collection

from worker.log.partition import Lane, Load, Slot
from worker.settings import Stream

WAITING = 16
"""Events in flight over events being judged: decided ones that wait for their commit take no room
in the judge, large transactions are cheap ones, and a judge that is faster than a transaction must
not wait for it (with 4, a worker without a model stood still for a third of its time)."""
GREED = 2.0
"""What a partition may hold, in terms of what is free (Choudhury and Hahne's dynamic thresholds,
1998): one that is stuck leaves a third of the room to the others, two leave a fifth."""


class Bounds:
    """Counts events and input bytes from admission to commit (or to the end of a late call).

    Intake closes when a bound is reached and opens again at half of it, so that polls stay large;
    so does the intake of a single lane, where there are others. Bytes are bounded up to one poll:
    a record's size is known once it has been read. Records that wait for a dependency are parked,
    outside of the bounds up to as much again, so that a held partition does not take the room of
    the others.
    """

    def __init__(self, settings: Stream) -> None:
        self._max_judging = settings.max_events
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
        if self.closed:
            return 0
        left = min(self._max_judging - self._load.judging, self._max_events - self._load.events)
        return min(left, self._poll)

    def look(self, lanes: Collection[Lane]) -> None:
        """Open and close the intake, of everybody and of each lane, as the counts demand."""
        used = self._share(self._load)
        self.closed = used >= 1 or (self.closed and used > 0.5)
        limit = GREED * (1 - used) if len(lanes) > 1 else 2.0
        for lane in lanes:
            held = self._share(lane.load)
            lane.full = held >= limit or (lane.full and held > limit / 2)

    def take(self, slot: Slot) -> None:
        """Count a slot in, as one to be judged."""
        for load in (self._load, slot.lane.load):
            load.events += 1
            load.judging += slot.judging
            load.bytes += slot.size

    def decide(self, slot: Slot) -> bool:
        """A slot has its outputs; whether that may have opened an intake: then ``look``."""
        if slot.judging and not slot.parked and not slot.released:
            slot.judging = False
            self._load.judging -= 1
            slot.lane.load.judging -= 1
            # A blocked head keeps its lane from committing, so that nobody else would look.
            return (self.closed or slot.lane.full) and self._load.judging % self._poll == 0
        return False

    def park(self, slot: Slot) -> None:
        """Set a waiting slot aside, where there is room for it."""
        if (
            slot.parked
            or slot.released
            or self._parked_events >= self._max_judging
            or self._parked_bytes + slot.size > self._max_bytes
        ):
            return
        slot.parked = True
        self._parked_events += 1
        self._parked_bytes += slot.size
        self._give_back(slot)

    def unpark(self, slot: Slot) -> None:
        """Count a slot among the others again."""
        if slot.parked and not slot.released:
            slot.parked = False
            self._parked_events -= 1
            self._parked_bytes -= slot.size
            self.take(slot)

    def release(self, slot: Slot) -> None:
        """Count a slot out; a second time does nothing."""
        if slot.released:
            return
        slot.released = True
        if slot.parked:
            self._parked_events -= 1
            self._parked_bytes -= slot.size
        else:
            self._give_back(slot)

    def _give_back(self, slot: Slot) -> None:
        for load in (self._load, slot.lane.load):
            load.events -= 1
            load.judging -= slot.judging
            load.bytes -= slot.size

    def _share(self, load: Load) -> float:
        """The fullest of the three bounds, 1 where it is reached."""
        return max(
            load.judging / self._max_judging,
            load.events / self._max_events,
            load.bytes / self._max_bytes,
        )
