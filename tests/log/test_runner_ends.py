"""No path leaves a process that does nothing: every end that nobody asked for is an error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.log.conformance import eventually
from tests.log.running import committed, records, values, verdict
from tests.support.log_backends import LocalBackend, create, write
from worker.concurrency import bounded
from worker.errors import DependencyUnavailable, FatalError
from worker.log.base import Assignment, Delivery, OffsetMetadata, Owner
from worker.log.local.log import LocalLog
from worker.log.runner import StreamRunner
from worker.records import Output, Record


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path, stream={"max_events": 8})


class Treacherous(LocalLog):
    """A log whose library cancels, hangs or breaks in ``where``, ``times`` times."""

    def __init__(self, backend: LocalBackend, where: str, fault: str, times: int = 1) -> None:
        settings = backend.settings
        super().__init__(settings.log.directory, settings.kafka.group_id)
        self._where, self._fault, self.left = where, fault, times

    async def _maybe(self, where: str) -> None:
        if where == self._where and self.left > 0:
            self.left -= 1
            if self._fault == "cancels":
                raise asyncio.CancelledError
            if self._fault == "is away":
                raise DependencyUnavailable("log", "gone for a while")
            raise KeyError("a bug")

    async def connect(self, topics: Sequence[str]) -> None:
        await self._maybe("connect")
        await super().connect(topics)

    async def start(self, topics: Sequence[str], owner: Owner) -> None:
        await self._maybe("start")
        await super().start(topics, owner)

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        found = await super().poll(max_records, timeout_s)
        await self._maybe("poll")
        return found

    async def commit(
        self,
        assignment: Assignment,
        outputs: Sequence[Output],
        next_offset: int,
        metadata: OffsetMetadata | None = None,
    ) -> None:
        await self._maybe("commit")
        await super().commit(assignment, outputs, next_offset, metadata or OffsetMetadata())

    async def stop(self) -> None:
        await super().stop()
        await self._maybe("stop")


def judging(backend: LocalBackend, log: LocalLog) -> StreamRunner:
    async def judge(delivery: Delivery) -> Sequence[Output]:
        return verdict(backend, delivery)

    return StreamRunner(log, judge, [backend.topic], backend.settings.stream)


@pytest.mark.parametrize("where", ["connect", "start", "poll", "commit"])
async def test_a_bug_in_the_log_ends_the_stream_with_an_error(
    backend: LocalBackend, where: str
) -> None:
    """Never silently: somebody has to start a new process."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 3))
    runner = judging(backend, Treacherous(backend, where, "breaks"))
    async with asyncio.timeout(20):
        with pytest.raises(FatalError):
            await runner.run()


@pytest.mark.parametrize("where", ["connect", "start", "poll", "commit"])
@pytest.mark.parametrize("fault", ["is away", "cancels"])
async def test_a_log_that_is_away_or_cancels_itself_is_opened_again_in_the_same_process(
    backend: LocalBackend, where: str, fault: str
) -> None:
    """However often: nothing is lost, nothing is repeated, and nobody restarts anything."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 30))
    log = Treacherous(backend, where, fault, times=3)
    runner = judging(backend, log)
    task = asyncio.create_task(runner.run())
    await committed(runner, 30)
    await runner.stop()
    await task
    assert log.left == 0
    assert await values(backend) == [b"%05d" % number for number in range(30)]


async def test_a_log_that_is_away_shows_as_a_dependency(backend: LocalBackend) -> None:
    """With the reason, and no longer once it is back."""
    await create(backend, partitions=1)
    log = Treacherous(backend, "start", "is away", times=10**6)
    runner = judging(backend, log)
    task = asyncio.create_task(runner.run())

    async def said() -> bool:
        return runner.status().paused_dependencies == ("log",)

    await eventually(said)
    assert runner.status().log_trouble == "gone for a while"
    assert not runner.status().assigned
    log.left = 0

    async def back() -> bool:
        return runner.status().assigned

    await eventually(back)
    assert runner.status().paused_dependencies == ()
    await runner.stop()
    await task


async def test_a_cancellation_out_of_a_closing_log_hides_nothing(backend: LocalBackend) -> None:
    """aiokafka lets one out of a consumer that is stopped while it waits out an error."""
    await create(backend, partitions=1)
    await write(backend, records(backend, 1))
    runner = judging(backend, Treacherous(backend, "stop", "cancels"))
    task = asyncio.create_task(runner.run())
    await committed(runner, 1)
    async with asyncio.timeout(10):
        await runner.stop()
        await task


async def test_stopping_does_not_wait_for_a_log_that_is_away(backend: LocalBackend) -> None:
    """SIGTERM is obeyed while brokers are away."""
    await create(backend, partitions=1)
    runner = judging(backend, Treacherous(backend, "connect", "is away", times=10**6))
    task = asyncio.create_task(runner.run())

    async def waiting() -> bool:
        return "log" in runner.status().paused_dependencies

    await eventually(waiting)
    async with asyncio.timeout(5):
        await runner.stop()
        await task


async def test_bounded_work_keeps_its_faults_to_itself() -> None:
    """Whatever it raises or cancels, and however long it takes."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    async def broken() -> None:
        raise KeyError

    async def endless() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def fine() -> None:
        return

    assert [await bounded(each(), 0.05) for each in (cancelled, broken, endless, fine)] == [
        False, False, False, True
    ]  # fmt: skip
