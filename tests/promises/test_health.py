"""Promise 7: health means progress, and a hung batch ends the process without loss."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess, misjudge_command
from worker.judge.watchdog import HUNG_DEVICE_EXIT

DEADLINE_S = 2.0


async def test_not_ready_before_model_and_assignment_and_says_so(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Alive from the first answer; ready only with a warm model and an assignment."""
    loading = {"MISJUDGE_START_S": "4"}
    with WorkerProcess(
        place.config, tmp_path / "log", command=misjudge_command, env=loading
    ) as worker:
        await asyncio.to_thread(worker.wait_web)
        status, body = worker.probe("/readyz")
        assert status == 503
        assert [problem["code"] for problem in body["problems"]] == ["model", "assignment"]
        assert worker.probe("/healthz")[0] == 200

        def measured() -> bool:
            return "moderation_ready" in worker.metrics()

        await asyncio.to_thread(worker.until, measured, "measured while the model loads")
        assert "model" in worker.problems("/readyz")
        assert worker.metric("moderation_ready") == 0
        await asyncio.to_thread(worker.wait_ready)
        assert worker.metric("moderation_ready") == 1


async def test_a_hung_batch_is_unhealthy_then_ended_and_taken_over(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Past its deadline not live, past twice that ended; the next worker judges everything."""
    place.change(judge={"batch_deadline_s": DEADLINE_S})
    hang = {"MISJUDGE_HANG": "1"}
    with WorkerProcess(
        place.config, tmp_path / "hung.log", command=misjudge_command, env=hang
    ) as hung:
        await asyncio.to_thread(hung.wait_ready)
        await place.write([said("it hangs" if n == 20 else "hello", n) for n in range(60)])
        await asyncio.to_thread(
            hung.until, lambda: hung.get("/healthz")[0] == 503, "unhealthy", 2 * DEADLINE_S + 5
        )
        assert hung.problems("/healthz") == ["batch"]
        assert "batch" in hung.problems("/readyz")
        assert await asyncio.to_thread(hung.ended) == HUNG_DEVICE_EXIT
        assert "judge.batch_deadline_s" in hung.said()
    assert len(await place.verdicts()) < 60
    with WorkerProcess(place.config, tmp_path / "heir.log"):
        verdicts = await place.until(60)
    assert len({verdict.verdict_id for verdict in verdicts}) == len(verdicts) == 60
    assert {verdict.outcome for verdict in verdicts} == {"safe"}


async def test_a_draining_worker_is_not_ready(place: WorkerPlace, tmp_path: Path) -> None:
    """It takes no new work, so nobody is to count on it; it is alive all the same."""
    place.change(stream={"max_events": 8})
    await place.write([said("hello", number) for number in range(50)])
    slow = {"MISJUDGE_DELAY_S": "2.0"}
    with WorkerProcess(
        place.config, tmp_path / "log", command=misjudge_command, env=slow
    ) as worker:
        await asyncio.to_thread(worker.wait_ready)
        worker.process.terminate()
        await asyncio.to_thread(
            worker.until, lambda: worker.problems("/readyz") == ["draining"], "draining", 5
        )
        assert worker.probe("/healthz")[0] == 200
        assert await asyncio.to_thread(worker.ended) == 0
