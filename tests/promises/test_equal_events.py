"""A spam wave costs one forward: equal events are judged once, and their verdicts say so."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.worker_place import WorkerPlace, eventually, said
from tests.support.worker_process import WorkerProcess

REQUESTS = "moderation_judge_cache_requests_total"
WAVE = 1_000


async def test_a_wave_of_a_thousand_copies_is_one_forward(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Through the whole worker, among events that differ: one answer, a thousand verdicts."""
    wave = [said("buy a grenade now", number) for number in range(WAVE)]
    others = [said(f"hello number {number}", WAVE + number) for number in range(50)]
    await place.write([*wave, *others])
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        verdicts = {each.event_id: each for each in await place.until(WAVE + 50)}
        misses = worker.metric(REQUESTS, moderation_result="miss")
        reused = sum(
            worker.metric(REQUESTS, moderation_result=result) for result in ("hit", "shared")
        )
        held = worker.metric("moderation_judge_cache_bytes")
        console = worker.get("/console.json")[1].decode()
    copies = [verdicts[f"e-{number}"] for number in range(WAVE)]
    assert misses == 51
    assert reused == WAVE - 1
    assert 0 < held <= place.settings.judge.cache_bytes
    assert [each.cached for each in copies].count(True) == WAVE - 1
    assert {each.decided_by for each in copies if each.cached} == {"cache"}
    assert {(each.outcome, each.action, each.categories) for each in copies} == {
        ("unsafe", "hold", copies[0].categories)
    }
    assert not any(verdicts[f"e-{WAVE + number}"].cached for number in range(50))
    assert "From cache" in console


async def test_a_changed_policy_never_gets_the_old_policys_answer(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """The same text again, after its category was suppressed: judged anew, and safe."""
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        await place.write([said("a grenade", 1), said("a grenade", 2)])
        before = await place.until(2)
        place.policy(version=2, builtin={"suppress": ["Guns and Illegal Weapons"]})
        applied = lambda: (  # noqa: E731
            worker.metric(
                "moderation_policy_reloads_total", moderation_policy_reload_result="applied"
            )
            >= 2
        )
        await eventually(applied, "reloaded")
        await place.write([said("a grenade", 3)])
        after = {each.event_id: each for each in await place.until(3)}["e-3"]
    assert {each.outcome for each in before} == {"unsafe"}
    assert (after.policy.version, after.outcome, after.cached) == (2, "safe", False)


async def test_without_the_cache_every_event_is_judged(place: WorkerPlace, tmp_path: Path) -> None:
    """``judge.cache_bytes: 0`` switches it off."""
    place.change(judge={"cache_bytes": 0})
    await place.write([said("a grenade", number) for number in range(20)])
    with WorkerProcess(place.config, tmp_path / "log"):
        verdicts = await place.until(20)
    assert not any(each.cached for each in verdicts)
    assert {each.decided_by for each in verdicts} == {"judge"}
