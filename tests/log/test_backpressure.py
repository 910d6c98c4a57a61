"""The bounds on work in flight add up, whatever order records come and go in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.log.backpressure import WAITING, Backpressure
from worker.log.base import Assignment
from worker.log.partition import InFlight, PartitionState
from worker.records import Record, TopicPartition
from worker.settings import Stream


def partition(number: int = 0) -> PartitionState:
    source = TopicPartition("t", number)
    return PartitionState(Assignment(source=source, generation=1, next_offset=0), incarnation="me")


def in_flight(size: int, of: PartitionState) -> InFlight:
    record = Record(topic="t", partition=0, offset=0, timestamp=0, key=None, value=b"")
    return InFlight(record, of, size)


def backpressure(events: int = 64, size: int = 100) -> Backpressure:
    """Room for ``events``, waiting ones included."""
    return Backpressure(Stream(max_events=events // WAITING, max_bytes=size, max_event_bytes=size))


@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "park", "unpark", "release"]), st.integers(0, 20)),
        max_size=60,
    )
)
def test_what_goes_in_comes_out(steps: list[tuple[str, int]]) -> None:
    """After everything was released nothing is counted, and every intake is open again."""
    both = [partition(0), partition(1)]
    counted = backpressure(events=160, size=1000)
    records = [in_flight(n, both[n % 2]) for n in range(21)]
    taken: set[int] = set()
    for step, index in steps:
        if step == "take":
            if index not in taken:
                taken.add(index)
                counted.take(records[index])
        elif index in taken:
            getattr(counted, step)(records[index])
        counted.look(both)
        held = [records[i] for i in taken if not records[i].released]
        assert counted.events == len(held)
        assert counted.bytes == sum(one.size for one in held)
        for one in both:
            mine = [each for each in held if each.partition is one and not each.parked]
            assert one.load.events == len(mine)
            assert one.load.bytes == sum(each.size for each in mine)
    for index in taken:
        counted.release(records[index])
    counted.look(both)
    assert (counted.events, counted.bytes, counted.closed) == (0, 0, False)
    assert [one.full for one in both] == [False, False]
    assert counted.room == 1


def test_intake_closes_at_the_bound_and_opens_at_half_of_it() -> None:
    """Between the two it stays as it was, so that polls stay large."""
    only = partition()
    counted, records = backpressure(events=64), [in_flight(1, only) for _ in range(64)]
    for one in records:
        counted.look([only])
        assert not counted.closed
        counted.take(one)
    counted.look([only])
    assert counted.closed
    assert counted.room == 0
    for one in records[:31]:
        counted.release(one)
    counted.look([only])
    assert counted.closed
    counted.release(records[31])
    counted.look([only])
    assert counted.room == 1


def test_a_partition_takes_no_more_than_twice_what_is_free() -> None:
    """A stuck partition leaves a third of the room to the others, at the least."""
    stuck, other = partition(0), partition(1)
    counted = backpressure(events=480, size=1000)
    taken = 0
    while not stuck.full:
        counted.take(in_flight(1, stuck))
        taken += 1
        counted.look([stuck, other])
    assert taken in (320, 321)
    assert not counted.closed
    assert not other.full


def test_a_partition_alone_may_take_everything() -> None:
    """There is nobody to leave room for."""
    only = partition()
    counted = backpressure(events=480, size=1000)
    for _ in range(480):
        counted.look([only])
        assert not only.full
        assert not counted.closed
        counted.take(in_flight(1, only))


def test_parked_records_leave_room_but_are_bounded_themselves() -> None:
    """Waiting records give their room to others, not without end."""
    only = partition()
    counted = backpressure(events=32)
    for _ in range(2):
        one = in_flight(1, only)
        counted.take(one)
        counted.park(one)
    counted.look([only])
    assert (counted.closed, counted.events, only.load.events) == (False, 2, 0)
    for _ in range(32):
        one = in_flight(1, only)
        counted.take(one)
        counted.park(one)
    counted.look([only])
    assert (counted.closed, counted.events, only.load.events) == (True, 34, 32)
