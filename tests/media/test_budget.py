"""Bounds on bytes in flight: kept, fair, and free of deadlock."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from worker.media.budget import ByteBudget, DecoderGate


async def settled() -> None:
    """Let everything that can run, run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_does_not_fit_waits_in_order_of_arrival() -> None:
    budget = ByteBudget(100)
    (first,) = await budget.lease([60])
    order: list[str] = []

    async def wait(name: str, amount: int) -> None:
        await budget.lease([amount])
        order.append(name)

    tasks = [asyncio.ensure_future(wait("large", 90)), asyncio.ensure_future(wait("small", 10))]
    await settled()
    assert order == []  # the small one would fit, and waits all the same: no one is overtaken
    first.shrink(10)
    await settled()
    assert order == ["large"]
    first.release()
    await settled()
    assert order == ["large", "small"]
    assert budget.used == 100
    await asyncio.gather(*tasks)


async def test_an_event_larger_than_the_budget_passes_alone() -> None:
    budget = ByteBudget(100)
    (small,) = await budget.lease([1])
    large = asyncio.ensure_future(budget.lease([200, 300]))
    await settled()
    assert not large.done()
    small.release()
    leases = await large
    assert budget.used == 500
    after = asyncio.ensure_future(budget.lease([1]))
    await settled()
    assert not after.done()
    for lease in leases:
        lease.release()
    await after


async def test_releasing_twice_gives_back_once() -> None:
    budget = ByteBudget(100)
    first, second = await budget.lease([30, 40])
    first.release()
    first.release()
    assert budget.used == 40
    second.release()
    assert budget.used == 0


async def test_a_lease_that_a_thread_still_holds_is_given_back_when_it_ends() -> None:
    budget = ByteBudget(100)
    (lease,) = await budget.lease([30])
    lease.hold()
    lease.release()
    assert budget.used == 30
    lease.unhold()
    assert budget.used == 0


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_wait_takes_nothing_and_lets_the_next_one_pass(granted: bool) -> None:
    budget = ByteBudget(100)
    (held,) = await budget.lease([100])
    waiting = asyncio.ensure_future(budget.lease([80]))
    after = asyncio.ensure_future(budget.lease([50]))
    await settled()
    if granted:
        held.release()  # granted, and cancelled before it woke
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.release()
    await after
    assert budget.used == 50


async def test_under_random_load_the_bound_holds_and_all_are_served() -> None:
    budget = ByteBudget(1_000)
    generator = random.Random(7)
    peak = 0

    async def event() -> None:
        nonlocal peak
        leases = await budget.lease(generator.choices(range(1, 300), k=3))
        peak = max(peak, budget.used)
        await asyncio.sleep(0)
        for lease in leases:
            lease.shrink(generator.randint(0, 50))
        await asyncio.sleep(0)
        for lease in leases:
            lease.release()

    await asyncio.wait_for(asyncio.gather(*(event() for _ in range(300))), 30)
    assert budget.used == 0
    assert 500 < peak <= 1_000


def test_decoders_at_work_stay_within_the_gate_and_all_get_through() -> None:
    gate = DecoderGate(100)
    lock = threading.Lock()
    working = peak = done = 0

    def work(amount: int) -> None:
        nonlocal working, peak, done
        with gate.enter(amount):
            with lock:
                working += amount
                peak = max(peak, working if working > amount else 0)
            with lock:
                working -= amount
                done += 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, random.Random(1).choices([5, 30, 70, 100, 400], k=400)))
    assert (done, working) == (400, 0)
    assert peak <= 100


def test_a_decoder_that_fails_gives_its_share_back() -> None:
    gate = DecoderGate(10)
    for _ in range(3):
        with pytest.raises(ValueError, match="x"), gate.enter(10):
            raise ValueError("x")
