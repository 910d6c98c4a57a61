"""A policy's own lists work in the running worker: they decide, note, go live, and never clear."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from tests.support.images import encoded, noise
from tests.support.worker_place import WorkerPlace, eventually, said
from tests.support.worker_process import WorkerProcess

HITS = "moderation_prefilter_hits_total"
KNOWN = encoded(noise(60, 60, seed=3))


async def test_lists_decide_and_note_and_nothing_past_the_floor_gets_safe(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Text, image and allowed phrase through the whole worker; the phrase leaves it only there."""
    digest = hashlib.sha256(KNOWN).hexdigest()
    (place.policies / "spam.txt").write_text("# spam\nfrobnicate now\n", "utf-8")
    place.policy(
        prefilter={
            "lists": [
                {
                    "name": "spam",
                    "decide": "unsafe",
                    "category": "Spam",
                    "match": "loose",
                    "phrases_file": "spam.txt",
                },
                {"name": "seen", "decide": "unsafe", "category": "Sexual", "images": [digest]},
                {"name": "notes", "decide": "reason", "phrases": ["quux"]},
            ],
            "allow": ["frobnicate now museum"],
        }
    )
    known, other = place.picture("a.png", KNOWN), place.picture("b.png", encoded(noise(60, 60)))
    await place.write(
        [
            said("F r o b n i c a t e   n-o-w", 1),
            said("fr0bnicate, NOW! and an image", 2, images=[{"uri": "s3://pics/missing.png"}]),
            said("look", 3, images=[{"uri": known}]),
            said("look", 4, images=[{"uri": other}]),
            said("quux", 5),
            said("the frobnicate now museum", 6),
            said("a zibblefant in the frobnicate now museum", 7),
        ]
    )
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        verdicts = {each.event_id: each for each in await place.until(7)}
        assert worker.metric(HITS, moderation_prefilter_list="spam") == 2
        assert worker.metric(HITS, moderation_prefilter_list="seen") == 1
        assert worker.metric(HITS, moderation_prefilter_decide="reason") == 1
        pages = [worker.get(page)[1].decode() for page in ("/", "/console.json", "/metrics")]
        log = worker.said()
    got = {name: (each.outcome, each.decided_by) for name, each in verdicts.items()}
    assert got == {
        "e-1": ("unsafe", "prefilter"),
        "e-2": ("unsafe", "prefilter"),
        "e-3": ("unsafe", "prefilter"),
        "e-4": ("safe", "judge"),
        "e-5": ("safe", "judge"),
        "e-6": ("safe", "judge"),
        "e-7": ("unsafe", "judge"),
    }
    assert [each.name for each in verdicts["e-2"].categories] == ["Spam"]
    assert [each.image for each in verdicts["e-3"].prefilter] == [0]
    assert [each.list for each in verdicts["e-5"].prefilter] == ["notes"]
    assert verdicts["e-7"].action == "block"
    held = ("e-1", "e-2", "e-3", "e-7")
    assert {each.verdict.event_id for each in await place.quarantined()} == set(held)
    for page in (*pages, log):
        assert "frobnicate" not in page
        assert "quux" not in page


async def test_a_longer_list_goes_live_without_a_restart(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Only the list's file is written; the next event meets it, the cache does not hide it."""
    listed = place.policies / "spam.txt"
    listed.write_text("something else\n", "utf-8")
    spam = {"name": "spam", "decide": "unsafe", "category": "Spam", "phrases_file": "spam.txt"}
    place.policy(prefilter={"lists": [spam]})
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        await place.write([said("frobnicate", 1)])
        (before,) = await place.until(1)
        listed.write_text("something else\nfrobnicate\n", "utf-8")
        applied = lambda: (  # noqa: E731
            worker.metric(
                "moderation_policy_reloads_total", moderation_policy_reload_result="applied"
            )
            >= 2
        )
        await eventually(applied, "reloaded")
        await place.write([said("frobnicate", 2)])
        after = {each.event_id: each for each in await place.until(2)}["e-2"]
    assert (before.outcome, after.outcome, after.decided_by) == ("safe", "unsafe", "prefilter")
    assert before.policy.sha256 != after.policy.sha256
