"""How much may be in flight at once."""

from __future__ import annotations

from worker.settings import Stream
from worker.stream.lane import Slot


class Bounds:
    """Counts events and input bytes from admission to commit (or to the end of a late call).

    Intake closes when a bound is reached and opens again at half of it, so that polls stay large.
    Bytes are bounded up to one poll: a record's size is known once it has been read. Records that
    wait for a dependency are parked, outside of the bounds up to as much again, so that a held
    partition does not take the room of the others.
    """

    def __init__(self, settings: Stream) -> None:
        self._max_events = settings.max_events
        self._max_bytes = settings.max_bytes
        self._events = 0
        self._bytes = 0
        self._parked_events = 0
        self._parked_bytes = 0
        self.closed = False

    @property
    def events(self) -> int:
        """Events in flight, parked ones included."""
        return self._events + self._parked_events

    @property
    def bytes(self) -> int:
        """Input bytes in flight, parked ones included."""
        return self._bytes + self._parked_bytes

    @property
    def room(self) -> int:
        """Events that may still be taken in; 0 while intake is closed."""
        return 0 if self.closed else self._max_events - self._events

    def take(self, slot: Slot) -> None:
        """Count a slot in."""
        self._events += 1
        self._bytes += slot.size
        if self._events >= self._max_events or self._bytes >= self._max_bytes:
            self.closed = True

    def park(self, slot: Slot) -> None:
        """Set a waiting slot aside, where there is room for it."""
        if (
            slot.parked
            or slot.released
            or self._parked_events >= self._max_events
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
        self._events -= 1
        self._bytes -= slot.size
        if self._events <= self._max_events // 2 and self._bytes <= self._max_bytes // 2:
            self.closed = False
