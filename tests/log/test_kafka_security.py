"""TLS and passwords: let in with the right ones, told which setting is wrong with the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.log.conformance import eventually
from tests.support.kafka import LEFT_OUT, available
from tests.support.kafka_secure import PASSWORD, SecureCluster, secure_cluster
from worker.doctor.checks import diagnose
from worker.errors import FatalError
from worker.log.admin import create_topics
from worker.log.base import Delivery
from worker.log.factory import open_admin, open_log, open_reader, open_writer
from worker.log.runner import StreamRunner
from worker.records import Output
from worker.settings import Settings, load_settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
TOPIC = "secure.events"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureCluster]:
    if not available():
        pytest.skip(LEFT_OUT)
    with secure_cluster(tmp_path_factory.mktemp("secure")) as running:
        yield running


def settings_of(broker: SecureCluster, **changes: Any) -> Settings:
    return load_settings(
        None,
        kafka={
            "bootstrap_servers": broker.bootstrap_servers,
            "group_id": "secure",
            "session_timeout_s": 6.0,
            "security": broker.security(**changes),
        },
        topics={"partitions": 1},
    )


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_records_pass_through_a_broker_that_asks_for_tls_and_a_password(
    broker: SecureCluster, tmp_path: Path, mechanism: str
) -> None:
    """Admin, writer, group consumer, transactional producer and reader alike."""
    password_file = tmp_path / "password"
    password_file.write_text(PASSWORD + "\n")
    settings = settings_of(
        broker, sasl_mechanism=mechanism, password=None, password_file=str(password_file)
    )
    topic = f"{TOPIC}.{mechanism}"
    async with open_admin(settings) as admin:
        await create_topics(admin, settings, [topic])
    async with open_writer(settings) as writer:
        await writer.write([Output(topic=topic, key=b"k", value=b"%d" % n) for n in range(5)])

    async def judge(delivery: Delivery) -> Sequence[Output]:
        value = mechanism.encode() + (delivery.record.value or b"")
        return [Output(topic=settings.topics.verdicts, key=b"k", value=value)]

    runner = StreamRunner(open_log(settings), judge, [topic], settings.stream)
    running = asyncio.create_task(runner.run())

    async def done() -> bool:
        assert not running.done(), running.exception()
        return runner.status().events_committed == 5

    await eventually(done)
    await runner.stop()
    await running
    async with open_reader(settings) as reader:
        found = [record.value or b"" async for record in reader.read(settings.topics.verdicts)]
    mine = [value for value in found if value.startswith(mechanism.encode())]
    assert mine == [b"%s%d" % (mechanism.encode(), n) for n in range(5)]


def another_authority(directory: Path) -> str:
    path = directory / "other.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return str(path)


WRONG = {
    "password": r"refuses the user or the password.*kafka\.security\.username.*password_file",
    "username": r"refuses the user or the password.*kafka\.security\.username",
    "sasl_mechanism": r"does not take SCRAM-SHA-256.*kafka\.security\.sasl_mechanism",
    "ca_file": r"is not trusted.*kafka\.security\.ca_file",
}


@pytest.mark.parametrize("field", WRONG)
async def test_what_is_wrong_is_named_by_worker_and_topics_and_doctor(
    broker: SecureCluster, tmp_path: Path, field: str
) -> None:
    """At once, for waiting makes no password right; and the password itself is never printed."""
    wrong = another_authority(tmp_path) if field == "ca_file" else "SCRAM-SHA-256"
    settings = settings_of(broker, **{field: wrong})

    async def judge(delivery: Delivery) -> Sequence[Output]:
        raise AssertionError

    async with asyncio.timeout(settings.kafka.request_timeout_s):
        with pytest.raises(FatalError, match=WRONG[field]) as refused:
            await StreamRunner(open_log(settings), judge, [TOPIC], settings.stream).run()
    assert PASSWORD not in str(refused.value)
    with pytest.raises(FatalError, match=WRONG[field]):
        async with open_admin(settings):
            pass
    findings = [each async for each in diagnose(settings, model=False) if "log" in each.check]
    assert [each.ok for each in findings] == [False]
    assert findings[0].detail == str(refused.value)
