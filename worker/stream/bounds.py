"""How much may be in flight at once."""

from __future__ import annotations

from worker.settings import Stream
from worker.stream.lane import Slot


class Bounds:
    """Counts events and input bytes from admission to commit (or to the end of a late call).

    Intake closes when a bound is reached and opens again at half of it, so that polls stay large.
    Bytes are bounded up to one poll: a record's size is known once it has been read.
    """

    def __init__(self, settings: Stream) -> None:
        self._max_events = settings.max_events
        self._max_bytes = settings.max_bytes
        self.events = 0
        self.bytes = 0
        self.closed = False

    @property
    def room(self) -> int:
        """Events that may still be taken in; 0 while intake is closed."""
        return 0 if self.closed else self._max_events - self.events

    def take(self, slot: Slot) -> None:
        """Count a slot in."""
        self.events += 1
        self.bytes += slot.size
        if self.events >= self._max_events or self.bytes >= self._max_bytes:
            self.closed = True

    def release(self, slot: Slot) -> None:
        """Count a slot out; a second time does nothing."""
        if slot.released:
            return
        slot.released = True
        self.events -= 1
        self.bytes -= slot.size
        if self.events <= self._max_events // 2 and self.bytes <= self._max_bytes // 2:
            self.closed = False
