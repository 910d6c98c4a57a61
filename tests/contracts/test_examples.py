"""The example consumers, run as a new user would, against a real broker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.kafka import Cluster
from tests.support.kafka import kafka as kafka  # the fixture
from worker.contracts.encode import verdict_output
from worker.contracts.samples import VERDICT

pytestmark = pytest.mark.kafka

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMITTED = 6
DEADLINE_S = 90.0


async def publish(bootstrap: str, topic: str) -> None:
    """``good-0`` to ``good-5`` in two committed transactions, ``bad-*`` in two aborted ones."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic)
    await producer.start()
    for batch, (name, commit) in enumerate(
        [("good", True), ("bad", False), ("good", True), ("bad", False)]
    ):
        await producer.begin_transaction()
        for number in range(3):
            event_id = f"{name}-{number + (3 if batch > 1 else 0)}"
            output = verdict_output(
                msgspec.structs.replace(VERDICT, event_id=event_id), topic=topic
            )
            await producer.send_and_wait(
                topic, output.value, key=output.key, headers=list(output.headers)
            )
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    await producer.stop()


def lines_of(
    command: list[str], environment: dict[str, str], log: Path, *, ends: bool = False
) -> list[str]:
    """Verdict lines a consumer printed by the time it had them all; unless it ``ends`` by itself,
    it is then asked to."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=EXAMPLES.parent, env={**os.environ, **environment}, stdout=out, stderr=out
        )
    deadline = time.monotonic() + DEADLINE_S
    try:
        while log.read_text().count("event=") < COMMITTED and process.poll() is None:
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        if not ends:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
    assert process.returncode == 0, log.read_text()[-3000:]
    return [line for line in log.read_text().splitlines() if "event=" in line]


def expected(lines: list[str]) -> bool:
    found = [line.split("event=")[1].split()[0] for line in lines]
    return found == [f"good-{number}" for number in range(COMMITTED)]


async def test_the_aiokafka_example_prints_committed_verdicts_and_no_others(
    kafka: Cluster, tmp_path: Path
) -> None:
    """In order, each once, and it ends by itself after ``--count``."""
    topic = f"verdicts-{uuid.uuid4().hex[:8]}"
    await publish(kafka.bootstrap_servers, topic)
    script = str(EXAMPLES / "consume_verdicts_aiokafka.py")
    options = ["--bootstrap", kafka.bootstrap_servers, "--topic", topic, "--group", topic]
    command = [sys.executable, script, *options, "--count", str(COMMITTED)]
    lines = lines_of(command, {}, tmp_path / "log", ends=True)
    assert expected(lines), lines
    assert lines[0] == "hold  unsafe    event=good-0 conversation=conv-42 why=Account takeover"


async def test_the_faust_example_prints_committed_verdicts_and_no_others(
    kafka: Cluster, tmp_path: Path
) -> None:
    """Faust alone would read the aborted ones too."""
    topic = f"verdicts-{uuid.uuid4().hex[:8]}"
    await publish(kafka.bootstrap_servers, topic)
    environment = {
        "KAFKA_BOOTSTRAP": kafka.bootstrap_servers,
        "VERDICT_TOPIC": topic,
        "VERDICT_GROUP": topic,
    }
    script = str(EXAMPLES / "consume_verdicts_faust.py")
    lines = lines_of(
        [sys.executable, script, "--datadir", str(tmp_path), "worker", "--without-web"],
        environment,
        tmp_path / "log",
    )
    assert expected(lines), lines
    assert lines[0] == "hold  unsafe    event=good-0 conversation=conv-42 why=Account takeover"
