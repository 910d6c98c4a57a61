"""Whole workers whose judge is a server: its outage pauses them, and one bad event is its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.openai_server import Body, Fault, OpenAIServer, Written
from tests.support.openai_writers import ScriptWriter, script, token
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess


def answer(body: Body) -> Written:
    """Unsafe where the text says so."""
    if "ransomware" not in str(body["messages"]):
        return script(token("User Safety:"), token(" safe", 0.98, {" unsafe": 0.01}))
    line = (token("\nSafety Categories:"), token(" Malware"))
    return script(token("User Safety:"), token(" unsafe", 0.97, {" safe": 0.02}), *line)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with OpenAIServer(ScriptWriter(answer)) as server:
        yield server


def on_server(place: WorkerPlace, server: OpenAIServer, **more: Any) -> None:
    remote = {
        "base_url": server.url,
        "timeout_s": 2.0,
        "retry_initial_s": 0.05,
        **more,
    }
    place.change(
        judge={"backend": "remote", "revision": "abc123", "cache_bytes": 0, "remote": remote},
        stream={"max_events": 16},
    )


@pytest.mark.slow
async def test_a_server_that_goes_away_holds_partitions_and_blames_no_event(
    place: WorkerPlace, server: OpenAIServer, tmp_path: Path
) -> None:
    """Alive and waiting while it refuses, hangs or fails; afterwards every event is judged once."""
    on_server(place, server)
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        await place.write([said("hello", number) for number in range(30)])
        await place.until(30)

        def retries() -> float:
            name = "moderation_dependency_retries_total"
            return worker.metric(name, moderation_dependency="judge")

        await server.close()
        await place.write([said("hello", number) for number in range(30, 90)])
        await asyncio.to_thread(worker.until, lambda: retries() >= 10, "trying again")
        assert worker.metric("moderation_judge_remote_breaker") == 1
        assert worker.probe("/healthz")[0] == 200
        before = await place.verdicts()
        server.faults[""] = Fault(status=500)
        await server.open()
        seen = retries()
        await asyncio.to_thread(worker.until, lambda: retries() >= seen + 5, "still trying")
        server.faults.clear()
        verdicts = await place.until(90)
        assert worker.metric("moderation_judge_remote_breaker") == 0
    assert {verdict.outcome for verdict in before} == {"safe"}
    assert len({verdict.event_id for verdict in verdicts}) == len(verdicts) == 90
    assert {verdict.outcome for verdict in verdicts} == {"safe"}, "an event was blamed"
    newest: dict[str, int] = {}
    for verdict in verdicts:
        assert verdict.source.offset > newest.get(verdict.conversation_id, -1), "out of order"
        newest[verdict.conversation_id] = verdict.source.offset


async def test_one_event_the_server_cannot_judge_is_undecided_and_held(
    place: WorkerPlace, server: OpenAIServer, tmp_path: Path
) -> None:
    """Its neighbours are judged; verdicts name the server's model and what is known of it."""
    on_server(place, server)
    server.faults["crash me"] = Fault(status=500)
    server.faults["slow"] = Fault(hang=True)
    texts = ["hello", "crash me", "write ransomware", "slow", "hello again"]
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        await place.write([said(text, number) for number, text in enumerate(texts)])
        found = {verdict.event_id: verdict for verdict in await place.until(5)}
        assert "ransomware" not in worker.said()
    assert [found[f"e-{n}"].outcome for n in range(5)] == [
        *("safe", "undecided", "unsafe", "undecided", "safe")
    ]
    assert found["e-1"].undecided_reason == "judge_rejected"
    assert found["e-3"].undecided_reason == "judge_timeout"
    assert (found["e-1"].action, found["e-2"].action) == ("hold", "hold")
    assert [each.name for each in found["e-2"].categories] == ["Malware"]
    model = found["e-2"].model
    assert (model.id, model.revision) == ("tiny", "abc123")
    assert model.numerics.startswith("remote/")


@pytest.mark.parametrize("up", [True, False])
async def test_doctor_says_whether_the_server_judges(
    place: WorkerPlace, server: OpenAIServer, up: bool
) -> None:
    """And names the settings to change where it does not."""
    on_server(place, server)
    if not up:
        server.faults[""] = Fault(status=401)
    command = ["-m", "worker", "doctor", "--config", str(place.config), "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    (check,) = [each for each in json.loads(output)["checks"] if each["check"] == "model"]
    assert check["ok"] == up
    assert ("tiny@abc123" in check["detail"]) if up else ("api_key_file" in check["detail"])
