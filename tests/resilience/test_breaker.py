"""The circuit breaker: who is to blame when a request fails."""

from __future__ import annotations

import asyncio

import pytest

from worker.clock import ManualClock
from worker.errors import DependencyUnavailable
from worker.resilience.breaker import (
    COOLDOWN_S,
    MAX_COOLDOWN_S,
    MIN_FAILING,
    STRIKE,
    TRIALS,
    WINDOW_S,
    Blame,
    CircuitBreaker,
)

STRIKES = round(1 / STRIKE)


def key(name: object) -> str:
    return str(name)


BAD = key("bad")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker("store", clock)


def fail(breaker: CircuitBreaker, clock: ManualClock, wanted: str = BAD) -> Blame:
    return breaker.failed(clock.monotonic(), wanted)


def test_an_object_is_blamed_after_it_failed_several_times_while_others_were_read(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    blames = []
    for _ in range(STRIKES):
        began = clock.monotonic()
        clock.advance(0.1)
        for other in range(5):
            breaker.served(clock.monotonic(), key(other))
        blames.append(breaker.failed(began, BAD))
    assert blames == ["retry"] * (STRIKES - 1) + ["subject"]
    assert not breaker.is_open


def test_reads_that_succeeded_before_the_failure_began_prove_nothing(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """The store may have gone away in between."""
    for other in range(500):
        breaker.served(clock.monotonic(), key(other))
    clock.advance(0.001)
    assert fail(breaker, clock) == "probe"


def test_a_probe_that_fails_opens_the_breaker_at_the_first_failure(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    assert fail(breaker, clock) == "probe"
    assert breaker.settle(BAD, passed=False) == "dependency"
    assert breaker.is_open
    with pytest.raises(DependencyUnavailable):
        breaker.admit()


def test_one_passed_probe_is_not_enough_to_blame_an_object(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """The store may be there and still not able to read any data."""
    blames = []
    for _ in range(STRIKES):
        assert fail(breaker, clock) == "probe"
        blames.append(breaker.settle(BAD, passed=True))
    assert blames == ["retry"] * (STRIKES - 1) + ["subject"]


def test_an_object_that_could_be_read_starts_anew(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    for _ in range(STRIKES - 1):
        fail(breaker, clock)
        assert breaker.settle(BAD, passed=True) == "retry"
    breaker.served(clock.monotonic(), BAD)
    clock.advance(1)
    fail(breaker, clock)
    assert breaker.settle(BAD, passed=True) == "retry"


def test_failures_of_several_events_open_the_breaker_by_their_share(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    blames = [fail(breaker, clock, key(event)) for event in range(MIN_FAILING)]
    assert blames == ["probe"] * (MIN_FAILING - 1) + ["dependency"]
    assert breaker.is_open


def test_one_event_with_many_bad_objects_does_not_open_it(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    for image in range(16):
        assert breaker.failed(clock.monotonic(), key(image), event=key("event")) == "probe"
    assert not breaker.is_open


def test_a_few_failures_among_many_successes_do_not_open_it(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    for other in range(100):
        breaker.served(clock.monotonic() + 1, key(other))
    for event in range(MIN_FAILING + 5):
        assert fail(breaker, clock, key(f"bad{event}")) == "retry"
    assert not breaker.is_open


def test_old_reads_do_not_count(breaker: CircuitBreaker, clock: ManualClock) -> None:
    for other in range(100):
        breaker.served(clock.monotonic(), key(other))
    clock.advance(WINDOW_S + 1)
    for event in range(MIN_FAILING - 1):
        fail(breaker, clock, key(event))
    clock.advance(WINDOW_S + 1)
    assert fail(breaker, clock) == "probe"
    assert not breaker.is_open


def test_it_stays_open_for_longer_each_time_a_probe_fails(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """A dependency that is away for long is asked rarely; one that is back is used at once."""
    fail(breaker, clock)
    breaker.settle(BAD, passed=False)
    waited = []
    for _ in range(6):
        began = clock.monotonic()
        while not breaker.needs_probe:
            with pytest.raises(DependencyUnavailable):
                breaker.admit()
            clock.advance(0.5)
        waited.append(clock.monotonic() - began)
        breaker.admit()
        breaker.probed(False)
    assert waited == [COOLDOWN_S * 2**step for step in range(4)] + [MAX_COOLDOWN_S] * 2


def half_open(breaker: CircuitBreaker, clock: ManualClock) -> None:
    """Open, cooled down, and its probe passed."""
    fail(breaker, clock)
    breaker.settle(BAD, passed=False)
    clock.advance(MAX_COOLDOWN_S)
    breaker.probed(True)


def test_behind_a_probe_that_passes_a_few_requests_try_and_one_that_is_served_closes_it(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """A probe shows that somebody answers, not that the work can be done."""
    half_open(breaker, clock)
    for _ in range(TRIALS):
        breaker.admit()
    with pytest.raises(DependencyUnavailable):
        breaker.admit()
    assert breaker.is_open
    breaker.served(clock.monotonic(), key("good"))
    assert not breaker.is_open
    breaker.admit()


def test_where_all_that_try_fail_it_opens_again(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """One of them may be a bad request; all of them are the dependency."""
    half_open(breaker, clock)
    for trial in range(TRIALS):
        assert not breaker.needs_probe
        breaker.admit()
        fail(breaker, clock, key(trial))
    assert breaker.is_open
    with pytest.raises(DependencyUnavailable):
        breaker.admit()
    clock.advance(MAX_COOLDOWN_S)
    assert breaker.needs_probe


def test_an_answer_that_proves_nothing_does_not_close_it(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """No such object: the store is there, and may still cut every body short."""
    half_open(breaker, clock)
    breaker.admit()
    breaker.served(clock.monotonic(), key("missing"), proof=False)
    assert breaker.is_open


def test_tries_that_nobody_heard_of_again_are_made_anew(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """They were cancelled: a breaker must not stay half-open for ever."""
    half_open(breaker, clock)
    for _ in range(TRIALS):
        breaker.admit()
    clock.advance(COOLDOWN_S)
    breaker.admit()


async def test_who_comes_while_others_try_waits_for_what_becomes_of_it(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """A dependency that is back costs nobody another round of waiting."""
    half_open(breaker, clock)
    for _ in range(TRIALS):
        breaker.admit()
    waiting = asyncio.ensure_future(breaker.enter())
    await asyncio.sleep(0)
    assert not waiting.done()
    breaker.served(clock.monotonic(), key("good"))
    await waiting


def test_several_events_that_fail_of_late_are_a_crowd(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """With half of the replicas broken each event that fails is served by the next try."""
    for event in range(MIN_FAILING):
        assert not breaker.crowded
        fail(breaker, clock, key(event))
        breaker.served(clock.monotonic(), key(event))
    assert breaker.crowded
    clock.advance(WINDOW_S + 1)
    fail(breaker, clock, key("later"))
    assert not breaker.crowded


def test_many_reads_that_fail_at_once_open_it_for_the_shortest_time(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    for image in range(100):
        breaker.failed(clock.monotonic(), key(image), event=BAD)
    for image in range(100):
        assert breaker.settle(key(image), passed=False) == "dependency"
    clock.advance(COOLDOWN_S)
    assert breaker.needs_probe


def test_bad_requests_at_the_head_of_every_partition_do_not_stop_the_worker_for_ever(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    """And while probes pass but nothing is served, blame trickles and does not flood."""
    heads, blamed = [key(head) for head in range(4)], 0
    until = clock.monotonic() + 600
    while heads and clock.monotonic() < until:
        clock.advance(0.5)
        if breaker.needs_probe:
            breaker.probed(True)
        blames: list[Blame | None] = []
        for head in heads:
            try:
                breaker.admit()
            except DependencyUnavailable:
                blames.append(None)
                continue
            blame = fail(breaker, clock, head)
            blames.append(breaker.settle(head, passed=True) if blame is Blame.PROBE else blame)
        heads = [head for head, each in zip(heads, blames, strict=True) if each != "subject"]
        blamed += blames.count(Blame.SUBJECT)
        assert blames.count(Blame.SUBJECT) <= TRIALS
    assert blamed == 4


def test_while_it_is_open_no_object_is_blamed(breaker: CircuitBreaker, clock: ManualClock) -> None:
    fail(breaker, clock)
    breaker.settle(BAD, passed=False)
    for _ in range(10):
        assert fail(breaker, clock) == "dependency"
        assert breaker.settle(BAD, passed=True) == "dependency"


def test_what_is_remembered_is_bounded(breaker: CircuitBreaker, clock: ManualClock) -> None:
    for event in range(20_000):
        breaker.served(clock.monotonic() + 1, key("good"))
        fail(breaker, clock, key(event))
        clock.advance(0.01)
    assert len(breaker._strikes) <= 4_096
    assert len(breaker._failing) <= WINDOW_S / 0.01 + 1
    assert len(breaker._served) <= WINDOW_S / 0.01 + 1
