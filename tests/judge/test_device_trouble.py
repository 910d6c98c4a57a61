"""Trouble of the whole device: nobody is blamed for it, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import torch

from tests.judge.conformance import RUBRICS, request
from worker.errors import DependencyUnavailable, FatalError
from worker.judge.local.requests import ScoreRequest
from worker.judgement import Judgement

Open = Callable[..., Awaitable[Any]]
WAIT_S = 20.0


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


async def held_batch(rig: Any) -> tuple[asyncio.Task[Any], threading.Event]:
    """A request on the device that stays there until the event is set."""
    entered, release = threading.Event(), threading.Event()

    def before(_: Sequence[ScoreRequest]) -> None:
        entered.set()
        release.wait(30.0)

    rig.device.before = before
    first = asyncio.create_task(rig.judge.judge(request()))
    assert await asyncio.to_thread(entered.wait, WAIT_S)
    rig.device.before = lambda _: None
    return first, release


async def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, "they never queued"
        await asyncio.sleep(0.01)


async def test_memory_that_another_process_took_is_no_events_fault(open_rig: Open) -> None:
    """Where not even the case of the start fits any more, events wait instead of being held."""
    rig = await open_rig()
    rig.device.before = out_of_memory
    asked = [request(f"n {n}") for n in range(3)]
    found = await asyncio.gather(*map(rig.judge.judge, asked), return_exceptions=True)
    assert [type(each) for each in found] == [DependencyUnavailable] * 3
    rig.device.before = lambda _: None
    assert isinstance(await rig.judge.judge(request()), Judgement)


async def test_a_long_context_is_told_of_a_device_without_memory_too(open_rig: Open) -> None:
    """Also between its pieces: it is given back, and does not wait for a piece that never comes."""
    rig = await open_rig(prefill_tokens=64)

    class Starved:
        def step(self) -> None:
            out_of_memory()

    rig.device.prefill = lambda *_: Starved()
    rig.device.before = out_of_memory
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(DependencyUnavailable):
            await rig.judge.judge(request("a long text " * 50))


async def test_a_device_lost_while_a_policy_is_computed_leaves_nobody_waiting(
    open_rig: Open,
) -> None:
    """Events taken off their queue together with the policy are answered as well."""
    rig = await open_rig()
    first, release = await held_batch(rig)

    def warm(*_: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    rig.judge._device.warm = warm
    others = [
        asyncio.create_task(rig.judge.prepare(RUBRICS[0])),
        asyncio.create_task(rig.judge.prepare(RUBRICS[1])),
        asyncio.create_task(rig.judge.judge(request("behind it"))),
    ]
    async with asyncio.timeout(WAIT_S):
        await until(lambda: rig.judge.waiting() == 1 and len(rig.judge._scheduler._operations) == 2)
        release.set()
        await first
        found = await asyncio.gather(*others, return_exceptions=True)
    assert {type(each) for each in found} <= {DependencyUnavailable, FatalError}
    with pytest.raises(FatalError):
        await rig.judge.judge(request())


@pytest.mark.parametrize(
    ("place", "bug"),
    [("cost", lambda *_: "no number"), ("prefill", out_of_memory), ("read", lambda *_: [])],
)
async def test_a_bug_anywhere_on_the_device_thread_ends_the_wait_of_all(
    open_rig: Open, place: str, bug: Callable[..., Any]
) -> None:
    """The thread never dies in silence: who waits is told, and so is who comes next."""
    rig = await open_rig()
    first, release = await held_batch(rig)
    setattr(rig.device, place, bug)
    waiting = [asyncio.create_task(rig.judge.judge(request(f"n {n}"))) for n in range(3)]
    async with asyncio.timeout(WAIT_S):
        await until(lambda: rig.judge.waiting() == 3)
        release.set()
        await first
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in found} == {FatalError}
    with pytest.raises(FatalError):
        await rig.judge.judge(request())
