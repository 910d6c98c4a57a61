"""The bounds on work in flight add up, whatever order records come and go in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.log.backpressure import Bounds
from worker.log.base import Claim, Delivery
from worker.log.partition import Lane, Slot
from worker.records import Record, TopicPartition
from worker.settings import Stream


def lane(partition: int = 0) -> Lane:
    source = TopicPartition("t", partition)
    return Lane(Claim(source=source, generation=1, next_offset=0), 2, 8, 0.0)


def slot(size: int, of: Lane) -> Slot:
    record = Record(topic="t", partition=0, offset=0, timestamp=0, key=None, value=b"")
    return Slot(Delivery(record=record), of, size, 0.0)


def bounds(events: int = 4, size: int = 100) -> Bounds:
    return Bounds(Stream(max_events=events, max_bytes=size, max_event_bytes=size))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "decide", "park", "unpark", "release"]), st.integers(0, 20)
        ),
        max_size=60,
    )
)
def test_what_goes_in_comes_out(steps: list[tuple[str, int]]) -> None:
    """After everything was released nothing is counted, and every intake is open again."""
    lanes = [lane(0), lane(1)]
    counted, slots = bounds(events=10, size=1000), [slot(n, lanes[n % 2]) for n in range(21)]
    taken: set[int] = set()
    for step, index in steps:
        if step == "take":
            if index not in taken:
                taken.add(index)
                counted.take(slots[index])
        elif index in taken:
            getattr(counted, step)(slots[index])
        counted.look(lanes)
        held = [slots[i] for i in taken if not slots[i].released]
        assert counted.events == len(held)
        assert counted.bytes == sum(one.size for one in held)
        for one in lanes:
            mine = [each for each in held if each.lane is one and not each.parked]
            assert one.load.events == len(mine)
            assert one.load.judging == sum(each.judging for each in mine)
            assert one.load.bytes == sum(each.size for each in mine)
    for index in taken:
        counted.release(slots[index])
    counted.look(lanes)
    assert (counted.events, counted.bytes, counted.closed) == (0, 0, False)
    assert [one.full for one in lanes] == [False, False]
    assert counted.room == 1


def test_intake_closes_at_the_bound_and_opens_at_half_of_it() -> None:
    """Between the two it stays as it was, so that polls stay large."""
    only = lane()
    counted, slots = bounds(), [slot(1, only) for _ in range(4)]
    for one in slots:
        counted.look([only])
        assert not counted.closed
        counted.take(one)
    counted.look([only])
    assert counted.closed
    assert counted.room == 0
    counted.release(slots[0])
    counted.look([only])
    assert counted.closed
    counted.release(slots[1])
    counted.look([only])
    assert counted.room == 1


def test_decided_events_leave_room_for_others_to_be_judged() -> None:
    """What waits for its commit takes no room in the judge, up to sixteen times the bound."""
    only = lane()
    counted = bounds()
    for _ in range(16 * 4):
        counted.look([only])
        assert not counted.closed
        one = slot(1, only)
        counted.take(one)
        counted.decide(one)
    counted.look([only])
    assert counted.closed


def test_a_lane_takes_no_more_than_twice_what_is_free() -> None:
    """A stuck partition leaves a third of the room to the others, at the least."""
    stuck, other = lane(0), lane(1)
    counted = bounds(events=30, size=1000)
    taken = 0
    while not stuck.full:
        counted.take(slot(1, stuck))
        taken += 1
        counted.look([stuck, other])
    assert taken in (20, 21)
    assert not counted.closed
    assert not other.full


def test_a_lane_alone_may_take_everything() -> None:
    """There is nobody to leave room for."""
    only = lane()
    counted = bounds(events=30, size=1000)
    for _ in range(30):
        counted.look([only])
        assert not only.full
        assert not counted.closed
        counted.take(slot(1, only))


def test_parked_records_leave_room_but_are_bounded_themselves() -> None:
    """Waiting records give their room to others once over, not without end."""
    only = lane()
    counted = bounds(events=2)
    first, second = [slot(1, only) for _ in range(2)], [slot(1, only) for _ in range(2)]
    for one in first:
        counted.take(one)
        counted.park(one)
    counted.look([only])
    assert (counted.closed, counted.events) == (False, 2)
    for one in second:
        counted.take(one)
        counted.park(one)
    counted.look([only])
    assert (counted.closed, counted.events) == (True, 4)
