"""What an operator does before and after a run, command by command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.cli import Answer, moderation_worker
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess
from worker.records import Output

WORDS = "a grenade behind the sofa"


async def command(place: WorkerPlace, *arguments: object) -> Answer:
    answer = await asyncio.to_thread(moderation_worker, *arguments, "--config", place.config)
    assert answer.code == 0, answer.out + answer.err
    return answer


@pytest.mark.slow
async def test_topics_are_made_events_judged_and_what_is_left_over_looked_at(
    tmp_path: Path,
) -> None:
    """``topics``, ``run``, ``deadletter`` and ``quarantine`` fit together; no content unasked."""
    place = WorkerPlace(tmp_path / "place")
    place.policy()
    before = await asyncio.to_thread(moderation_worker, "topics", "check", "--config", place.config)
    assert before.code == 1
    assert "topics create" in before.out
    await command(place, "topics", "create")

    await place.write(
        [said(WORDS, 1), said("hello", 2), Output(topic="chat", key=b"k", value=WORDS.encode())]
    )
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await place.until(2, 1)
        assert await asyncio.to_thread(worker.terminate) == 0

    (letter,) = (await command(place, "deadletter", "list", "--json")).lines()
    assert (letter["code"], letter["source"]["topic"]) == ("not_json", "chat")
    where = "{partition}:{offset}".format(**letter["position"])
    assert WORDS not in json.dumps(letter)
    shown = await command(place, "deadletter", "show", where)
    assert "code          not_json" in shown.out
    assert f"source        chat-{letter['source']['partition']}:" in shown.out
    assert WORDS not in shown.out
    assert WORDS in (await command(place, "deadletter", "show", where, "--content")).out

    (held,) = (await command(place, "quarantine", "list", "--json")).lines()
    assert held["verdict"]["event_id"] == "e-1"
    assert WORDS not in json.dumps(held)
    where = "{partition}:{offset}".format(**held["position"])
    shown = await command(place, "quarantine", "show", where, "--content", "--json")
    assert shown.lines()[0]["event"]["messages"][0]["text"] == WORDS
