"""Promise 1 with the whole worker on a real Kafka: every record ends in exactly one place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tests.support.chaos import Fleet, Source, assert_exactly_once, source_of, torment
from tests.support.kafka import Cluster
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import ROOT, misjudge_command
from worker.contracts.dead_letter import parse_dead_letter
from worker.contracts.encode import QuarantineRecord
from worker.contracts.verdict import Verdict
from worker.records import Output, Record

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EVENTS = 6000
STRIKES = 12
TEXTS = ("hello", "a grenade", "how to bully", "ransomware here", "", "bake a cake")


def scripted(number: int) -> Output:
    """Mixed: two policies, a third unsafe, some undecided, every eleventh no event at all."""
    if number % 11 == 0:
        return Output(topic="chat", key=b"c%d" % (number % 13), value=b"{ %d" % number)
    topic = "forum" if number % 3 == 0 else "chat"
    return said(TEXTS[number % len(TEXTS)], number, topic=topic)


def origin(record: Record) -> Source:
    """The input that a verdict, a held record or a dead letter came from."""
    if record.topic.endswith("dead-letter"):
        source = parse_dead_letter(record).source
        return source.topic, source.partition, source.offset
    return source_of(record)


def held_match_verdicts(verdicts: Sequence[Record], held: Sequence[Record]) -> None:
    """Quarantine holds exactly the verdicts that hold or block, each once, word for word."""
    decided = [msgspec.json.decode(each.value or b"", type=Verdict) for each in verdicts]
    wanted = {v.verdict_id: v for v in decided if v.action in ("hold", "block")}
    kept = [msgspec.json.decode(each.value or b"", type=QuarantineRecord) for each in held]
    found = {each.verdict.verdict_id: each.verdict for each in kept}
    assert len(kept) == len(found), "something is held twice"
    assert found == wanted


async def test_every_record_ends_in_exactly_one_place_whatever_is_killed(
    kafka: Cluster, tmp_path: Path
) -> None:
    """Kills and freezes beyond the session timeout: verdict xor dead letter, in order, once."""
    place = WorkerPlace(
        tmp_path / "place",
        log={"backend": "kafka"},
        kafka={
            "bootstrap_servers": kafka.bootstrap_servers,
            "group_id": "promises-exactly-once",
            "session_timeout_s": 2.0,
            "rebalance_timeout_s": 20.0,
            "transaction_timeout_s": 15.0,
        },
        # Strikes follow one another faster than a worker starts, so two ends in a row are the rule:
        # whom they bring under suspicion is the subject of tests/log/test_kafka_chaos.py.
        stream={"max_events": 64, "poison_isolate_after": 12, "poison_give_up_after": 14},
        web={"port": 0},
        telemetry={"log_level": "warning"},
    )
    place.policy()
    place.policy("forums", topics=["forum"], actions={"default": "flag"}, on_undecided="block")
    await place.create_topics()
    names = place.settings.topics

    async def feed(start: int, stop: int) -> None:
        await place.write([scripted(number) for number in range(start, stop)])

    async def progress() -> int:
        outcomes = await place.read(names.verdicts) + await place.read(names.dead_letter)
        return len({origin(record) for record in outcomes})

    log = tmp_path / "workers.log"
    env = {"PYTHONPATH": str(ROOT), "MISJUDGE_DELAY_S": "0.15"}
    fleet = Fleet(misjudge_command(place.config), 2, log, env=env, cwd=ROOT)
    try:
        fed = await torment(
            fleet,
            progress,
            feed,
            EVENTS,
            seed=11,
            strikes=STRIKES,
            gap_s=(2.5, 4.5),
            freeze_s=(5.0, 6.0),
            deadline_s=300,
        )
    finally:
        fleet.stop()
    inputs = await place.read("chat") + await place.read("forum")
    assert len(inputs) == fed >= EVENTS
    verdicts, letters = await place.read(names.verdicts), await place.read(names.dead_letter)
    assert_exactly_once(inputs, verdicts + letters, origin)
    assert len(letters) == len(range(0, fed, 11))
    held_match_verdicts(verdicts, await place.read(names.quarantine))
    assert fleet.kills >= 8
    assert fleet.freezes >= 4
