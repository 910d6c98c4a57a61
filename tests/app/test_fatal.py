"""What a worker cannot go on with ends it with code 1 and a message that says what to do."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

from tests.support.canary import CANARY, assert_no_canary
from tests.support.cli import moderation_worker
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess
from worker.log.local.journal import Epoch, Journal, encode_transaction


def message(worker: WorkerProcess) -> str:
    """The one line a person reads: the last one, as ``kubectl logs --previous | tail -1`` shows."""
    *_, last = worker.said().splitlines()
    assert last.startswith("error: "), worker.said()
    assert worker.said().count("\nerror: ") == 1
    return last


async def ended(place: WorkerPlace, log: Path) -> WorkerProcess:
    with WorkerProcess(place.config, log) as worker:
        assert await asyncio.to_thread(worker.ended) == 1, worker.said()
    return worker


async def test_a_missing_topic_is_named_and_never_made(tmp_path: Path) -> None:
    """The message names the topic and the command that makes it."""
    place = WorkerPlace(tmp_path / "place")
    place.policy(topics=["not.there"])
    said_last = message(await ended(place, tmp_path / "log"))
    assert "not.there" in said_last
    assert "topics create" in said_last


async def test_a_fenced_worker_drops_its_partition_without_a_word_of_content(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """What it judged under the old claim is never published; with a new claim it goes on."""
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        take_over(place)
        await place.write([said(f"a grenade {CANARY}")])
        assert len(await place.until(1)) == 1
        assert await asyncio.to_thread(worker.terminate) == 0
    assert "fenced" in worker.said()
    assert_no_canary(worker.said())
    assert len(await place.verdicts()) == 1


def take_over(place: WorkerPlace) -> None:
    """Own every partition of ``chat`` as a new worker would, behind the old one's back."""
    journal = Journal(place.settings.log.directory)
    group = place.settings.kafka.group_id
    partitions = range(place.settings.topics.partitions)
    epochs = [Epoch(group, "chat", partition, 10_000) for partition in partitions]
    journal.append(lambda: encode_transaction(epochs=epochs))
    journal.close()


async def test_wrong_settings_end_before_anything_starts(tmp_path: Path) -> None:
    """Impossible combinations name the settings to change; exit code 2."""
    place = WorkerPlace(tmp_path / "place", stream={"drain_s": 500.0})
    place.policy()
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        assert await asyncio.to_thread(worker.ended) == 2
    assert "stream.drain_s must be below kafka.rebalance_timeout_s" in worker.said()
    assert "Traceback" not in worker.said()


async def test_a_model_that_is_not_there_is_a_setting_to_correct(tmp_path: Path) -> None:
    """Found while the worker starts; exit code 2 all the same, and the last line names it."""
    place = WorkerPlace(tmp_path / "place", judge={"backend": "local", "model": "./nowhere"})
    place.policy()
    await place.create_topics()
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        assert await asyncio.to_thread(worker.ended, 90) == 2
    assert message(worker).startswith("error: judge.model: nowhere is no directory")


async def test_a_broken_policy_ends_before_anything_starts(tmp_path: Path) -> None:
    """File, line, field and fix on standard error; exit code 2."""
    place = WorkerPlace(tmp_path / "place")
    place.policy(actions={"default": "shrug"})
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        assert await asyncio.to_thread(worker.ended) == 2
    assert "chatter.yaml" in worker.said()
    assert "actions.default" in worker.said()
    assert "Traceback" not in worker.said()


async def test_a_web_port_that_is_taken_is_said_in_one_line(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Exit code 2, before anything is loaded: the port, and the setting to change."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        env = {"MODERATION_WEB__PORT": str(port)}
        with WorkerProcess(place.config, tmp_path / "log", env=env) as worker:
            assert await asyncio.to_thread(worker.ended) == 2, worker.said()
        last = message(worker)
        assert f"web.host 127.0.0.1, web.port {port} " in last
        found = moderation_worker(
            "doctor", "--skip-model", "--json", "--config", place.config, env=env
        )
    (web,) = [each for each in json.loads(found.out)["checks"] if each["check"] == "web"]
    assert not web["ok"]
    assert str(port) in web["detail"]
