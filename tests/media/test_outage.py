"""The breaker: who is to blame when a read fails."""

from __future__ import annotations

import pytest

from worker.clock import ManualClock
from worker.errors import DependencyUnavailable
from worker.media.base import ObjectKey
from worker.media.outage import COOLDOWN_S, MAX_COOLDOWN_S, MIN_EVENTS, STRIKES, WINDOW_S, Outage


def key(name: object) -> ObjectKey:
    return ObjectKey(bucket="b", key=str(name))


BAD = key("bad")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def outage(clock: ManualClock) -> Outage:
    return Outage(clock)


def fail(outage: Outage, clock: ManualClock, wanted: ObjectKey = BAD) -> str:
    return outage.failed(wanted, clock.monotonic(), event=wanted)


def test_an_object_is_blamed_after_it_failed_several_times_while_others_were_read(
    outage: Outage, clock: ManualClock
) -> None:
    blames = []
    for _ in range(STRIKES):
        began = clock.monotonic()
        clock.advance(0.1)
        for other in range(5):
            outage.answered(key(other), clock.monotonic())
        blames.append(outage.failed(BAD, began, event=BAD))
    assert blames == ["retry"] * (STRIKES - 1) + ["object"]
    assert not outage.is_open


def test_reads_that_succeeded_before_the_failure_began_prove_nothing(
    outage: Outage, clock: ManualClock
) -> None:
    """The store may have gone away in between."""
    for other in range(500):
        outage.answered(key(other), clock.monotonic())
    clock.advance(0.001)
    assert fail(outage, clock) == "probe"


def test_a_probe_that_fails_opens_the_breaker_at_the_first_failure(
    outage: Outage, clock: ManualClock
) -> None:
    assert fail(outage, clock) == "probe"
    assert outage.settle(BAD, passed=False) == "store"
    assert outage.is_open
    with pytest.raises(DependencyUnavailable):
        outage.admit()


def test_one_passed_probe_is_not_enough_to_blame_an_object(
    outage: Outage, clock: ManualClock
) -> None:
    """The store may be there and still not able to read any data."""
    blames = []
    for _ in range(STRIKES):
        assert fail(outage, clock) == "probe"
        blames.append(outage.settle(BAD, passed=True))
    assert blames == ["retry"] * (STRIKES - 1) + ["object"]


def test_an_object_that_could_be_read_starts_anew(outage: Outage, clock: ManualClock) -> None:
    for _ in range(STRIKES - 1):
        fail(outage, clock)
        assert outage.settle(BAD, passed=True) == "retry"
    outage.answered(BAD, clock.monotonic())
    clock.advance(1)
    fail(outage, clock)
    assert outage.settle(BAD, passed=True) == "retry"


def test_failures_of_several_events_open_the_breaker_by_their_share(
    outage: Outage, clock: ManualClock
) -> None:
    blames = [fail(outage, clock, key(event)) for event in range(MIN_EVENTS)]
    assert blames == ["probe"] * (MIN_EVENTS - 1) + ["store"]
    assert outage.is_open


def test_one_event_with_many_bad_objects_does_not_open_it(
    outage: Outage, clock: ManualClock
) -> None:
    for image in range(16):
        assert outage.failed(key(image), clock.monotonic(), event=key("event")) == "probe"
    assert not outage.is_open


def test_a_few_failures_among_many_successes_do_not_open_it(
    outage: Outage, clock: ManualClock
) -> None:
    for other in range(100):
        outage.answered(key(other), clock.monotonic() + 1)
    for event in range(MIN_EVENTS + 5):
        assert fail(outage, clock, key(f"bad{event}")) == "retry"
    assert not outage.is_open


def test_old_reads_do_not_count(outage: Outage, clock: ManualClock) -> None:
    for other in range(100):
        outage.answered(key(other), clock.monotonic())
    clock.advance(WINDOW_S + 1)
    for event in range(MIN_EVENTS - 1):
        fail(outage, clock, key(event))
    clock.advance(WINDOW_S + 1)
    assert fail(outage, clock) == "probe"
    assert not outage.is_open


def test_it_stays_open_for_longer_each_time_a_probe_fails_and_closes_when_one_passes(
    outage: Outage, clock: ManualClock
) -> None:
    fail(outage, clock)
    outage.settle(BAD, passed=False)
    waited = []
    for _ in range(6):
        began = clock.monotonic()
        while not outage.needs_probe:
            with pytest.raises(DependencyUnavailable):
                outage.admit()
            clock.advance(0.5)
        waited.append(clock.monotonic() - began)
        outage.admit()
        outage.probed(False)
    assert waited == [COOLDOWN_S * 2**step for step in range(4)] + [MAX_COOLDOWN_S] * 2
    clock.advance(MAX_COOLDOWN_S)
    outage.probed(True)
    assert not outage.is_open
    outage.admit()


def test_many_reads_that_fail_at_once_open_it_for_the_shortest_time(
    outage: Outage, clock: ManualClock
) -> None:
    for image in range(100):
        outage.failed(key(image), clock.monotonic(), event=BAD)
    for image in range(100):
        assert outage.settle(key(image), passed=False) == "store"
    clock.advance(COOLDOWN_S)
    assert outage.needs_probe


def test_bad_objects_at_the_head_of_every_partition_do_not_stop_the_worker_for_ever(
    outage: Outage, clock: ManualClock
) -> None:
    """And while probes pass but nothing can be read, blame trickles and does not flood."""
    heads, openings, blamed = [key(head) for head in range(4)], 0, 0
    while heads and openings < 40:
        while outage.is_open and not outage.needs_probe:
            clock.advance(0.5)
        if outage.is_open:
            outage.probed(True)
        blames = [fail(outage, clock, head) for head in heads]
        if "probe" in blames and outage.is_open:
            openings += 1
        else:  # too few to open it: each is settled by a probe of its own
            blames = [outage.settle(head, passed=True) for head in heads]
        assert blames.count("object") <= 1 or not outage.is_open
        blamed += blames.count("object")
        heads = [head for head, blame in zip(heads, blames, strict=True) if blame != "object"]
    assert blamed == 4
    assert openings >= 2 * STRIKES


def test_while_it_is_open_no_object_is_blamed(outage: Outage, clock: ManualClock) -> None:
    fail(outage, clock)
    outage.settle(BAD, passed=False)
    for _ in range(10):
        assert fail(outage, clock) == "store"
        assert outage.settle(BAD, passed=True) == "store"


def test_what_is_remembered_is_bounded(outage: Outage, clock: ManualClock) -> None:
    for event in range(20_000):
        outage.answered(key("good"), clock.monotonic() + 1)
        fail(outage, clock, key(event))
        clock.advance(0.01)
    assert len(outage._strikes) <= 4_096
    assert len(outage._failures) <= WINDOW_S / 0.01 + 1
    assert len(outage._successes) <= WINDOW_S / 0.01 + 1
