"""A judge that goes away holds the partitions; it makes no event undecided."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess, misjudge_command


async def test_a_judge_that_goes_away_blames_no_event(place: WorkerPlace, tmp_path: Path) -> None:
    """Alive and waiting while it is away; afterwards every event is judged, once."""
    away = tmp_path / "away"
    env = {"MISJUDGE_AWAY": str(away)}
    with WorkerProcess(place.config, tmp_path / "log", command=misjudge_command, env=env) as worker:
        await asyncio.to_thread(worker.wait_ready)
        away.touch()
        await place.write([said("a grenade", number) for number in range(50)])

        def tried() -> bool:
            retries = "moderation_dependency_retries_total"
            return worker.metric(retries, moderation_dependency="judge") >= 20

        await asyncio.to_thread(worker.until, tried, "trying again and again")
        assert worker.probe("/healthz")[0] == 200
        assert [note["code"] for note in worker.probe("/readyz")[1]["notes"]] == ["dependency"]
        assert await place.verdicts() == []
        away.unlink()
        verdicts = await place.until(50)
    assert len({verdict.event_id for verdict in verdicts}) == len(verdicts) == 50
    assert {verdict.outcome for verdict in verdicts} == {"unsafe"}
    assert {verdict.attempts for verdict in verdicts} == {1}
