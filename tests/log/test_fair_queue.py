"""One conversation that sends a thousand heavy events does not hold up the others."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.log.test_partition import state
from worker.log.fair_queue import FairQueue
from worker.log.partition import InFlight
from worker.records import Record

LIMIT = 64


def record(number: int, key: bytes) -> InFlight:
    one = Record(topic="t", partition=0, offset=number, timestamp=0, key=key, value=b"")
    return InFlight(one, state(), 1)


async def drained(queue: FairQueue, done: list[bytes], count: int) -> None:
    async with asyncio.timeout(20):
        while len(done) < count:  # noqa: ASYNC110 - it lets the queue's tasks run
            await asyncio.sleep(0)
    await queue.stop()


async def waits(flood: int) -> list[int]:
    """How many turns of a device light events wait, beside a key that sends ``flood`` heavy ones.

    The judge has one device: whatever was started earlier is done earlier, a heavy event in twenty
    turns and a light one in one.
    """
    device = asyncio.Lock()
    turns = 0
    found: list[int] = []
    done: list[bytes] = []

    async def judge(one: InFlight) -> None:
        nonlocal turns
        key = one.delivery.record.key or b""
        async with device:
            await asyncio.sleep(0)
            turns += 20 if key == b"heavy" else 1
        if key != b"heavy":
            found.append(turns)
        done.append(key)

    queue = FairQueue(judge, LIMIT)
    for number in range(flood):
        queue.add(record(number, b"heavy"))
    for number in range(1000):
        queue.add(record(number, b"light-%d" % number))
    await drained(queue, done, flood + 1000)
    return sorted(found)


async def test_light_keys_do_not_wait_behind_a_heavy_one() -> None:
    """At p99 a light event waits for less than three times what it waits alone."""
    alone, beside = await waits(0), await waits(1000)
    assert beside[990] <= 3 * alone[990]


async def test_a_share_alone_may_use_everything() -> None:
    """Fairness costs nothing where there is nobody else."""
    running, most = 0, 0
    done: list[bytes] = []

    async def judge(one: InFlight) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(2 * LIMIT):
            await asyncio.sleep(0)
        running -= 1
        done.append(b"")

    queue = FairQueue(judge, LIMIT)
    for number in range(300):
        queue.add(record(number, b"only"))
    await drained(queue, done, 300)
    assert most == LIMIT


async def test_no_more_run_at_once_than_the_limit() -> None:
    """However many shares there are."""
    running, most = 0, 0
    done: list[bytes] = []
    seen: Counter[bytes] = Counter()

    async def judge(one: InFlight) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        seen[one.delivery.record.key or b""] += 1
        done.append(b"")

    queue = FairQueue(judge, LIMIT)
    for number in range(1000):
        queue.add(record(number, b"%d" % (number % 200)))
    await drained(queue, done, 1000)
    assert most <= LIMIT
    assert set(seen.values()) == {5}
