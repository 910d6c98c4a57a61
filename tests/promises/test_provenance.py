"""Promise 3: the verdict says where it came from, and everything it says is true."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
from click.testing import CliRunner

from tests.support.images import encoded, plain
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess
from worker.cli import main
from worker.contracts.timestamps import is_rfc3339
from worker.contracts.verdict import Verdict, verdict_id
from worker.judge.scripted import ScriptedJudge


def shown(place: WorkerPlace, policy: str) -> dict[str, object]:
    """What ``policy show`` says of a policy."""
    arguments = ["policy", "show", policy, "--json", "--config", str(place.config)]
    answer = CliRunner().invoke(main, arguments)
    assert answer.exit_code == 0, answer.output
    document: dict[str, object] = json.loads(answer.output)
    return document


async def judged(place: WorkerPlace, log: Path, count: int) -> list[Verdict]:
    with WorkerProcess(place.config, log):
        return await place.until(count)


async def test_every_field_of_provenance_is_filled_and_true(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Policy, model, image digests, source and identity, checked against their origins."""
    content = encoded(plain())
    picture = place.picture("a.png", content)
    place.policy(version=7)
    event = said("a grenade", 5, images=[{"uri": picture}], tenant="acme")
    await place.write([said("hello"), event])
    verdicts = {v.event_id: v for v in await judged(place, tmp_path / "log", 2)}
    verdict = verdicts["e-5"]
    record = next(each for each in await place.read("chat") if each.value == event.value)
    assert msgspec.to_builtins(verdict.source) == {
        "topic": "chat",
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
    }
    assert (verdict.event_id, verdict.conversation_id, verdict.tenant) == ("e-5", "c-5", "acme")
    named = shown(place, "chatter")
    assert verdict.policy.name == "chatter"
    assert verdict.policy.version == 7
    assert verdict.policy.sha256 == named["sha256"]
    assert verdict.model == ScriptedJudge().model()
    assert all((verdict.model.id, verdict.model.revision, verdict.model.numerics))
    assert len(verdict.model.template_sha256) == 64
    (image,) = verdict.images
    assert image.uri == picture
    assert image.sha256 == hashlib.sha256(content).hexdigest()
    assert verdict.kind == "automatic"
    assert verdict.decided_by == "judge"
    assert verdict.attempts == 1
    assert is_rfc3339(verdict.judged_at)
    assert verdict.timings_ms.total > 0
    assert verdict.verdict_id == verdict_id(
        "chat", record.partition, record.offset, "e-5", "automatic"
    )


async def test_the_same_record_gets_the_same_verdict_id_in_another_group(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Whoever reads verdicts can drop what a second run of the same input says again."""
    await place.write([said("a grenade" if n % 3 else "hello", n) for n in range(30)])
    first = await judged(place, tmp_path / "1.log", 30)
    place.change(kafka={"group_id": "another"}, topics={"verdicts": "again"})
    await place.create_topics()
    second = await judged(place, tmp_path / "2.log", 30)
    assert {v.verdict_id: v.outcome for v in first} == {v.verdict_id: v.outcome for v in second}
    assert len({verdict.verdict_id for verdict in first}) == 30
