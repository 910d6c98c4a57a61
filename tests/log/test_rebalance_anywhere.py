"""Rebalances, outages and ends of workers at any moment: nothing is lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.shaky_log import TOPIC, Group, ShakyLog, key_of
from worker.errors import DependencyUnavailable, FatalError
from worker.log import commit
from worker.log.base import Delivery
from worker.log.runner import StreamRunner
from worker.records import Output
from worker.settings import Stream

SETTINGS = Stream(max_events=6, drain_s=0.02, retry_initial_s=0.001, retry_max_s=0.002)
WORKERS = 40
"""Workers that may follow one another until everything is committed."""


async def live(group: Group, dice: random.Random, order: str) -> None:
    """One worker's life: until all is committed, it fails, or it is told to stop."""

    async def judge(delivery: Delivery) -> Sequence[Output]:
        if dice.random() < 0.9:
            delivery.identify(delivery.record.key)
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        fate = dice.random()
        if fate < 0.05:
            raise DependencyUnavailable("store")
        if fate < 0.06:
            raise KeyError("the worker ends")
        if fate < 0.08:
            await asyncio.sleep(0.03)  # longer than a drain may take
        return [Output(topic="out", key=None, value=delivery.record.value)]

    log = ShakyLog(group, dice, shakes=dice.randrange(8))
    stream = SETTINGS.model_copy(update={"order": order})
    runner = StreamRunner(log, judge, [TOPIC], stream)
    running = asyncio.create_task(runner.run())
    patience = dice.choice([10_000, 10_000, dice.randrange(200)])
    while not (group.done or running.done() or patience == 0):
        patience -= 1
        await asyncio.sleep(0.0005)
    await runner.stop()
    try:
        await running
    except FatalError:
        return


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.sampled_from(["key", "partition"]),
)
def test_every_record_is_answered_once_and_in_order(
    seed: int, sizes: list[int], order: str
) -> None:
    """Rebalances and unknown commits fall into polls, isolation, outages and drains alike."""
    group, dice = Group(sizes), random.Random(seed)

    async def work() -> None:
        for _ in range(WORKERS):
            await live(group, dice, order)
            if group.done:
                return
        raise AssertionError(f"only {group.committed} of {group.sizes}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit, "MAX_EVENTS", 4)
        asyncio.run(work())
    for source, size in group.sizes.items():
        published = group.published[source]
        assert sorted(published) == list(range(size))
        if order == "partition":
            assert published == list(range(size))
        for key in {key_of(offset) for offset in published}:
            mine = [offset for offset in published if key_of(offset) == key]
            assert mine == sorted(mine)
