"""The queue in front of the device: no delay, no neighbour's harm, nothing unmeasured."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.judge.conformance import RUBRICS, request
from tests.support.worker_place import eventually
from worker.judge.local.requests import ScoreRequest

Open = Callable[..., Awaitable[Any]]


async def test_what_waits_while_the_device_works_goes_together_whatever_its_policy(
    open_rig: Open,
) -> None:
    """Twelve requests under four rubrics wait behind one batch, and make one batch themselves."""
    rig = await open_rig()
    entered, release = threading.Event(), threading.Event()

    def before(_: Sequence[ScoreRequest]) -> None:
        entered.set()
        release.wait(30.0)

    rig.device.before = before
    first = asyncio.ensure_future(rig.judge.judge(request()))
    assert await asyncio.to_thread(entered.wait, 20.0)
    rest = [
        asyncio.ensure_future(rig.judge.judge(request(f"n {n}", rubric=RUBRICS[n % 4])))
        for n in range(12)
    ]
    deadline = time.monotonic() + 20.0
    while rig.judge.waiting() < 12:
        assert time.monotonic() < deadline, "they never queued"
        await asyncio.sleep(0.01)
    release.set()
    await asyncio.gather(first, *rest)
    assert rig.device.batches == [1, 12]


async def test_adapters_do_not_share_a_batch(open_rig: Open, checkpoint: Any) -> None:
    rig = await open_rig()
    own = str(checkpoint / "first")
    await rig.judge.load_adapter(own)
    adapters = []
    read = rig.device.read

    def recorded(adapter: str | None, asks: Sequence[ScoreRequest]) -> Any:
        adapters.append((adapter, len(asks)))
        return read(adapter, asks)

    rig.device.read = recorded
    await asyncio.gather(
        *(rig.judge.judge(request(f"n {n}", adapter=(None, own)[n % 2])) for n in range(8))
    )
    assert sum(count for adapter, count in adapters if adapter is None) == 4
    assert sum(count for adapter, count in adapters if adapter == own) == 4


async def test_waiting_and_working_are_measured_apart(open_rig: Open) -> None:
    """``queue_ms`` is the time before the device, ``judge_ms`` the time on it."""
    rig = await open_rig(max_batch=1)
    entered, release = threading.Event(), threading.Event()

    def before(_: Sequence[ScoreRequest]) -> None:
        entered.set()
        release.wait(30.0)

    rig.device.before = before
    working = asyncio.ensure_future(rig.judge.judge(request("one")))
    assert await asyncio.to_thread(entered.wait, 20.0)
    waiting = asyncio.ensure_future(rig.judge.judge(request("two")))
    await eventually(lambda: rig.judge.waiting() == 1, "queued", every_s=0.01)
    since = time.monotonic()
    await eventually(lambda: time.monotonic() > since + 0.1, "held", every_s=0.01)
    held_ms = (time.monotonic() - since) * 1e3
    release.set()
    first, second = await asyncio.gather(working, waiting)
    assert first.judge_ms >= held_ms
    assert second.queue_ms >= held_ms
    assert first.queue_ms < second.queue_ms


async def test_the_event_loop_turns_while_the_model_runs(open_rig: Open) -> None:
    """The loop is never held for the length of a batch."""
    rig = await open_rig()
    ticks = 0
    entered = threading.Event()

    def before(_: Sequence[ScoreRequest]) -> None:
        entered.set()
        threading.Event().wait(0.3)

    rig.device.before = before
    asked = asyncio.ensure_future(rig.judge.judge(request()))
    while not asked.done():
        await asyncio.sleep(0.005)
        ticks += entered.is_set()
    assert ticks >= 10
