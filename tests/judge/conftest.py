"""Checkpoints are made once a run, and loaded once for the tests that only ask questions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
import torch

from tests.support.checkpoints import make_checkpoint
from tests.support.faulty_device import FaultyDevice
from worker.judge.local.device import Device
from worker.judge.local.judge import LocalJudge
from worker.judge.local.loading import encoder
from worker.judge.watchdog import Watchdog
from worker.settings import JudgeSettings


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small matrices gain nothing from threads, and other tests want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random sharp weights, an adapter of its own, and two more for policies."""
    directory = tmp_path_factory.mktemp("checkpoint")
    return make_checkpoint(directory, adapters={"adapter": 1, "first": 2, "second": 3})


class Rig(NamedTuple):
    """A started judge, its faulty device, and what would have ended the process."""

    judge: LocalJudge
    device: FaultyDevice
    exits: list[int]


@pytest_asyncio.fixture
async def open_rig(
    checkpoint: Path,
) -> AsyncIterator[Callable[..., Awaitable[Rig]]]:
    """Opens judges with a device that can be told to fail; they are stopped afterwards."""
    judges: list[LocalJudge] = []
    watchdogs: list[Watchdog] = []

    async def open_rig(**settings: object) -> Rig:
        devices: list[FaultyDevice] = []

        def wrap(device: Device) -> FaultyDevice:
            devices.append(FaultyDevice(device))
            return devices[0]

        exits: list[int] = []
        chosen = JudgeSettings(**({"model": str(checkpoint)} | settings))
        judge = LocalJudge(
            chosen,
            wrap=wrap,
            min_constant=0.0,
        )
        watchdog = Watchdog(judge.stalled_s, chosen.batch_deadline_s, exit=exits.append)
        watchdog.start()
        watchdogs.append(watchdog)
        await judge.start()
        judges.append(judge)
        devices[0].encode = encoder(judge.checkpoint.tokenizer)
        devices[0].batches.clear()
        return Rig(judge, devices[0], exits)

    yield open_rig
    for watchdog in watchdogs:
        watchdog.stop()
    for judge in judges:
        await judge.stop()
