"""SIGTERM: the worker finishes what it has and ends with 0, whatever it is doing."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from tests.support.worker_place import WorkerPlace, eventually, said
from tests.support.worker_process import WorkerProcess, misjudge_command

EVENTS = 300
PROMPT_S = 8.0


def judged(worker: WorkerProcess) -> set[str]:
    """Verdict ids of the events that the worker's log says it judged."""
    lines = [json.loads(line) for line in worker.said().splitlines() if line.startswith("{")]
    return {line["event"]["verdict_id"] for line in lines if line["message"] == "event judged"}


async def test_a_drain_under_load_loses_and_repeats_nothing(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """What was being judged at SIGTERM is published before exit 0; nobody judges it again."""
    place.change(stream={"max_events": 64})
    await place.write([said("hello", number) for number in range(EVENTS)])
    slow = {"MISJUDGE_DELAY_S": "1.0"}
    with WorkerProcess(
        place.config, tmp_path / "1.log", command=misjudge_command, env=slow
    ) as first:
        await place.until(1)
        # The next 64 are on their way now.
        assert await asyncio.to_thread(first.terminate) == 0
        drained = {verdict.verdict_id for verdict in await place.verdicts()}
        assert judged(first) == drained
    assert 1 <= len(drained) < EVENTS
    with WorkerProcess(place.config, tmp_path / "2.log") as second:
        verdicts = await place.until(EVENTS)
        assert len({verdict.verdict_id for verdict in verdicts}) == len(verdicts) == EVENTS
        assert {verdict.attempts for verdict in verdicts} == {1}
        assert not judged(second) & drained


async def test_sigterm_while_the_model_loads_ends_promptly(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """A rollout that is called off does not wait for weights; exit code 0."""
    loading = {"MISJUDGE_START_S": "60"}
    with WorkerProcess(
        place.config, tmp_path / "log", command=misjudge_command, env=loading
    ) as worker:
        await asyncio.to_thread(worker.wait_web)
        assert worker.problems("/readyz") == ["model", "assignment"]
        began = time.monotonic()
        assert await asyncio.to_thread(worker.terminate) == 0, worker.said()
        assert time.monotonic() - began < PROMPT_S


async def test_sigterm_before_anything_is_served_ends_with_0(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Python has started, the worker's modules are still being imported."""
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        loaded = Path(f"/proc/{worker.process.pid}/maps")
        await eventually(lambda: "aiohttp" in loaded.read_text(), "importing Faust", every_s=0.005)
        assert worker.get("/healthz") == (0, b"")
        began = time.monotonic()
        assert await asyncio.to_thread(worker.terminate) == 0, worker.said()
        assert time.monotonic() - began < PROMPT_S
