"""The bounds on work in flight add up, whatever order records come and go in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.settings import Stream
from worker.stream.base import Claim, Delivery, Record, TopicPartition
from worker.stream.bounds import Bounds
from worker.stream.lane import Lane, Slot

LANE = Lane(Claim(source=TopicPartition("t", 0), generation=1, next_offset=0), 2, 8, 0.0)


def slot(size: int) -> Slot:
    record = Record(topic="t", partition=0, offset=0, timestamp=0, key=None, value=b"")
    return Slot(Delivery(record=record), LANE, size, 0.0)


def bounds(events: int = 4, size: int = 100) -> Bounds:
    return Bounds(Stream(max_events=events, max_bytes=size, max_event_bytes=size))


@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "park", "unpark", "release"]), st.integers(0, 20)),
        max_size=60,
    )
)
def test_what_goes_in_comes_out(steps: list[tuple[str, int]]) -> None:
    """After everything was released nothing is counted, and intake is open again."""
    counted, slots = bounds(events=10, size=1000), [slot(size) for size in range(21)]
    taken: set[int] = set()
    for step, index in steps:
        if step == "take":
            if index not in taken:
                taken.add(index)
                counted.take(slots[index])
        elif index in taken:
            getattr(counted, step)(slots[index])
        held = [slots[i] for i in taken if not slots[i].released]
        assert counted.events == len(held)
        assert counted.bytes == sum(one.size for one in held)
    for index in taken:
        counted.release(slots[index])
    assert (counted.events, counted.bytes, counted.closed) == (0, 0, False)
    assert counted.room == 10


def test_intake_closes_at_the_bound_and_opens_at_half_of_it() -> None:
    """Between the two it stays as it was, so that polls stay large."""
    counted, slots = bounds(), [slot(1) for _ in range(4)]
    for one in slots:
        assert not counted.closed
        counted.take(one)
    assert counted.closed
    assert counted.room == 0
    counted.release(slots[0])
    assert counted.closed
    counted.release(slots[1])
    assert counted.room == 2


def test_parked_records_leave_room_but_are_bounded_themselves() -> None:
    """Waiting records give their room to others once over, not without end."""
    counted = bounds(events=2)
    first, second = [slot(1) for _ in range(2)], [slot(1) for _ in range(2)]
    for one in first:
        counted.take(one)
        counted.park(one)
    assert (counted.room, counted.events) == (2, 2)
    for one in second:
        counted.take(one)
        counted.park(one)
    assert (counted.room, counted.events) == (0, 4)
