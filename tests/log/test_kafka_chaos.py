"""Promise 1 on a real Kafka: whatever is killed, frozen or cut off, one verdict per record."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from pathlib import Path

import pytest

from tests.log.conformance import eventually
from tests.support.chaos import Fleet, assert_exactly_once, assert_none_lost, source_of
from tests.support.kafka import Cluster
from tests.support.log_backends import KafkaBackend, create, read
from tests.support.log_chaos import ROOT, fill, survive, worker_argv

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


async def test_kills_under_at_least_once_lose_nothing(kafka: Cluster, tmp_path: Path) -> None:
    """Without transactions a kill may repeat verdicts; every record still has one."""
    backend = KafkaBackend(
        kafka, session_timeout_s=2.0, delivery="at_least_once", stream={"max_events": 64}
    )
    await create(backend, partitions=4)
    fleet = await survive(
        backend,
        tmp_path / "workers.log",
        4000,
        workers=2,
        seed=3,
        strikes=4,
        gap_s=(1.5, 2.5),
        freeze_s=None,
        pause_s=0.2,
        check=assert_none_lost,
    )
    assert fleet.kills == 4


async def test_a_frozen_owner_that_wakes_up_writes_nothing(kafka: Cluster, tmp_path: Path) -> None:
    """A worker sleeps with records in hand, another one judges them, the sleeper wakes: fenced."""
    backend = KafkaBackend(kafka, session_timeout_s=2.0, stream={"max_events": 64})
    await create(backend, partitions=2)
    await fill(backend, 0, 300)
    verdicts = backend.settings.topics.verdicts
    env = {"STREAM_WORKER_PAUSE_S": "1.0", "PYTHONPATH": str(ROOT)}
    sleeper = Fleet(worker_argv(backend), 1, tmp_path / "sleeper.log", env=env, cwd=ROOT)
    heir = None
    try:

        async def judged(count: int) -> bool:
            return len({source_of(one) for one in await read(backend, verdicts)}) >= count

        await eventually(lambda: judged(1))
        sleeper.freeze(0, 3600)
        heir = Fleet(worker_argv(backend), 1, tmp_path / "heir.log", env=env, cwd=ROOT)
        await eventually(lambda: judged(300))
        sleeper.wake()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(sleeper.processes[0].wait, 10)
    finally:
        codes = sleeper.stop()
        if heir is not None:
            heir.stop()
    assert_exactly_once(await read(backend, backend.topic), await read(backend, verdicts))
    assert codes == [0], "it has lost its partitions, and nothing else"
    assert "fenced" in (tmp_path / "sleeper.log").read_text()
