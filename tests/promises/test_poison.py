"""An event that kills the process is undecided after the settings' attempts; others are judged."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.support.chaos import Fleet
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import ROOT, misjudge_command

pytestmark = pytest.mark.slow

ATTEMPTS = 3


async def test_an_event_that_kills_the_worker_passes_on_as_poison(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Three workers die of it, the fourth calls it undecided; nobody beside it is blamed."""
    place.change(
        stream={"poison_isolate_after": 1, "poison_give_up_after": ATTEMPTS}, web={"port": 0}
    )
    texts = ["hello"] * 40
    texts[17] = "a deadly word"
    await place.write([said(text, number) for number, text in enumerate(texts)])
    env = {"PYTHONPATH": str(ROOT), "MISJUDGE_DELAY_S": "0.02"}
    fleet = Fleet(misjudge_command(place.config), 1, tmp_path / "log", env=env, cwd=ROOT)
    deadline = time.monotonic() + 90
    try:
        while len(verdicts := await place.verdicts()) < len(texts):
            assert time.monotonic() < deadline, f"{len(verdicts)} of {len(texts)} verdicts"
            fleet.tend()
            await asyncio.sleep(0.1)
    finally:
        fleet.stop()
    assert fleet.restarts == ATTEMPTS
    found = {verdict.event_id: verdict for verdict in verdicts}
    assert len(found) == len(verdicts)
    poison = found.pop("e-17")
    assert poison.outcome == "undecided"
    assert poison.undecided_reason == "poison"
    assert poison.action == "hold"
    assert poison.attempts == ATTEMPTS + 1
    assert {verdict.outcome for verdict in found.values()} == {"safe"}
    assert [each.verdict.event_id for each in await place.quarantined()] == ["e-17"]
