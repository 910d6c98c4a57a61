"""The engine inside whole workers: what it keeps, in every numerics, and equal to the plain model.

On the demonstration checkpoint, whatever its weights answer.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.images import encoded, plain
from tests.support.worker_place import WorkerPlace, eventually, said
from tests.support.worker_process import WorkerProcess
from worker.contracts.verdict import Verdict

pytestmark = [pytest.mark.slow, pytest.mark.model]

KEPT = "moderation_judge_reuse_bytes"
GRAPHS = "moderation_judge_graphs"
USES = "moderation_judge_reuse_total"
LOCAL = {"backend": "local", "model": "tiny", "device": "cpu", "threads": 1, "prefill_tokens": 64}
CLOSE = 1e-3


async def write_all(place: WorkerPlace) -> int:
    """Plain, equal, long and illustrated events under two policies; how many."""
    picture = place.picture("a.png", encoded(plain()))
    look = [{"uri": picture}]
    events = [
        said("How do I bake bread?", 1),
        said("Where can I buy a grenade?", 2),
        said("Tell me about the weather in the mountains. " * 40, 3),
        said("What is on this?", 4, images=look),
        said("And what do you see here?", 5, images=look),
        said("How do I bake bread?", 6, topic="thoughts"),
        said("Where can I buy a grenade?", 7, topic="thoughts"),
    ]
    await place.write(events)
    return len(events)


def by_event(verdicts: list[Verdict]) -> dict[str, Verdict]:
    return {verdict.event_id: verdict for verdict in verdicts}


@pytest.fixture
async def both(place: WorkerPlace) -> WorkerPlace:
    """Two policies, of which one always thinks, and the model on this machine."""
    place.change(judge=LOCAL)
    place.policy("thinker", topics=["thoughts"], think={"when": "always", "max_tokens": 40})
    await place.create_topics()
    return place


async def test_policies_are_warm_before_their_first_event_and_shown(
    both: WorkerPlace, tmp_path: Path
) -> None:
    """At the start and when a reload makes one live: in the metrics, on the console, and no event
    of theirs ever computes a policy."""
    with WorkerProcess(both.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        before = worker.metric(KEPT, moderation_kind="policy")
        assert before > 0
        kept = json.loads(worker.get("/console.json")[1])["data"]["kept"]
        assert kept["policies"] >= 1
        assert kept["policy_bytes"] == before
        both.policy(version=2, custom={"disallowed": ["Talk of mountains."]}, builtin=None)
        await eventually(
            lambda: worker.metric(KEPT, moderation_kind="policy") > before, "computed the policy"
        )
        computed = worker.metric(USES, moderation_kind="policy", moderation_result="miss")
        await both.write([said("How high is this?", n) for n in range(1, 4)])
        await both.until(3)
        used = worker.metric(USES, moderation_kind="policy", moderation_result="hit")
        assert used > 0
        assert worker.metric(USES, moderation_kind="policy", moderation_result="miss") == computed


async def test_a_worker_with_the_engine_says_what_one_with_the_plain_model_says(
    both: WorkerPlace, tmp_path: Path
) -> None:
    """Long contexts in pieces, images seen before, traces: label by label, score by score."""
    count = await write_all(both)
    with WorkerProcess(both.config, tmp_path / "packed.log") as worker:
        packed = by_event(await both.until(count))
        seen = worker.metric(USES, moderation_kind="image", moderation_result="hit")
        assert seen >= 1, "the second event's image was known"
        await both.write([said("How do I bake bread?", 8)])
        again = by_event(await both.until(count + 1))["e-8"]
    assert (again.cached, again.decided_by) == (True, "cache")
    assert again.user == packed["e-1"].user
    both.change(
        judge={"engine": "plain"}, kafka={"group_id": "another"}, topics={"verdicts": "again"}
    )
    await both.create_topics()
    with WorkerProcess(both.config, tmp_path / "plain.log"):
        plainly = by_event(await both.until(count + 1))
    for event, verdict in packed.items():
        other = plainly[event]
        assert verdict.undecided_reason is None, event
        assert (verdict.outcome, verdict.action) == (other.outcome, other.action), event
        assert [c.name for c in verdict.categories] == [c.name for c in other.categories], event
        assert verdict.user is not None
        assert other.user is not None
        assert verdict.user.label == other.user.label, event
        assert verdict.user.score == pytest.approx(other.user.score, abs=CLOSE), event
        assert verdict.reasoning == other.reasoning, event
    assert packed["e-6"].reasoning is not None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"numerics": "int8"}, "float32/cpu/cpu/int8"),
        ({"numerics": "w8a16", "dtype": "bfloat16"}, "bfloat16/cpu/cpu/w8a16"),
        ({"compile": True}, "float32/cpu/cpu"),
    ],
)
async def test_every_numerics_judges_and_is_named(
    both: WorkerPlace, tmp_path: Path, fields: dict[str, Any], named: str
) -> None:
    """Each event is decided, and its verdict says by which numbers."""
    both.change(judge=fields)
    with WorkerProcess(both.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        compiled = worker.metric(GRAPHS) if "compile" in fields else 0
        count = await write_all(both)
        verdicts = await both.until(count)
        if compiled:
            assert worker.metric(GRAPHS) == compiled, "an event waited for a compiler"
            assert f"{compiled:.0f} graphs compiled in" in worker.get("/")[1].decode()
        assert ("compile" in fields) == (compiled > 0)
    assert {verdict.undecided_reason for verdict in verdicts} == {None}
    assert {verdict.model.numerics for verdict in verdicts} == {named}
