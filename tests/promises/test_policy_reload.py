"""Policy owners change policies without an engineer: no restart, and no broken policy goes live."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.worker_place import WorkerPlace, eventually, said
from tests.support.worker_process import WorkerProcess
from worker.contracts.verdict import Verdict


async def judge(place: WorkerPlace, number: int) -> Verdict:
    """The verdict on one more event."""
    await place.write([said("a grenade", number)])
    return {verdict.event_id: verdict for verdict in await place.until(number)}[f"e-{number}"]


async def test_an_edit_goes_live_and_a_broken_one_does_not(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Later verdicts carry the new version; a broken file keeps it, and the worker says so."""
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        before = await judge(place, 1)
        assert (before.policy.version, before.outcome) == (1, "unsafe")

        place.policy(version=2, builtin={"suppress": ["Guns and Illegal Weapons"]})
        applied = lambda: (  # noqa: E731
            worker.metric(
                "moderation_policy_reloads_total", moderation_policy_reload_result="applied"
            )
            >= 2
        )
        await eventually(applied, "reloaded")
        after = await judge(place, 2)
        assert (after.policy.version, after.outcome) == (2, "safe")
        assert after.policy.sha256 != before.policy.sha256

        place.policy(version=3, actions={"default": "shrug"})
        await eventually(lambda: bool(worker.probe("/readyz")[1]["notes"]), "saying so")
        status, body = worker.probe("/readyz")
        assert status == 200, "the old version is good: the worker goes on"
        (note,) = body["notes"]
        assert note["code"] == "policy_file"
        assert "chatter.yaml" in note["detail"]
        assert worker.metric("moderation_policy_problems") == 1
        kept = await judge(place, 3)
        assert kept.policy == after.policy

        place.policy(version=4)
        await eventually(lambda: not worker.probe("/readyz")[1]["notes"], "mended")
        assert (await judge(place, 4)).policy.version == 4
        assert worker.metric("moderation_policy_problems") == 0


async def test_a_policy_whose_examples_fail_does_not_go_live(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Its own examples are judged first; the version before it stays."""
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        wrong = [{"text": "a grenade", "expect": "safe"}]
        place.policy(version=2, examples=wrong)
        await eventually(lambda: bool(worker.probe("/readyz")[1]["notes"]), "saying so")
        assert "examples" in worker.probe("/readyz")[1]["notes"][0]["detail"]
        assert (await judge(place, 1)).policy.version == 1


async def test_a_topic_whose_policy_was_never_valid_waits(tmp_path: Path) -> None:
    """Not ready, and nothing is judged or lost; mended, its events are judged."""
    place = WorkerPlace(tmp_path / "place")
    place.policy(examples=[{"text": "a grenade", "expect": "safe"}])
    await place.create_topics()
    await place.write([said("a grenade")])
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_web)
        await eventually(lambda: worker.problems("/readyz") == ["policy"], "waiting for a policy")
        assert worker.probe("/healthz")[0] == 200
        assert await place.verdicts() == []
        place.policy(version=2)
        await asyncio.to_thread(worker.wait_ready)
        (verdict,) = await place.until(1)
    assert (verdict.policy.version, verdict.outcome) == (2, "unsafe")
