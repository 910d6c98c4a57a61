"""``faust -A worker.app worker`` is the same worker as ``moderation-worker run``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess


def faust(config: Path) -> list[str]:
    return [sys.executable, "-m", "faust", "-A", "worker.app", "worker"]


async def test_faust_starts_the_worker_that_moderation_config_names(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Pages, verdicts and a clean end, with nothing of Faust's own on Kafka."""
    named = {"MODERATION_CONFIG": str(place.config)}
    with WorkerProcess(place.config, tmp_path / "log", command=faust, env=named) as worker:
        await asyncio.to_thread(worker.wait_ready)
        assert worker.probe("/healthz")[0] == 200
        await place.write([said("hello")])
        assert [verdict.outcome for verdict in await place.until(1)] == ["safe"]
        assert "moderation_events_total" in worker.metrics()
        assert await asyncio.to_thread(worker.terminate) == 0
