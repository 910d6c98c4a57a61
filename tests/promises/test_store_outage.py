"""An outage is not a bad event: the store goes away in the middle, and nobody is blamed for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.faulty_s3 import FaultyS3, faulty_s3
from tests.support.images import encoded, plain
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess
from worker.records import Output

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
PICTURES = 40


def on_s3(place: WorkerPlace, store: FaultyS3) -> None:
    """Read pictures from this store, each time anew."""
    place.change(
        store={
            "backend": "s3",
            "endpoint_url": store.endpoint_url,
            "region": "us-east-1",
            "path_style": True,
            "connect_timeout_s": 0.5,
            "read_timeout_s": 1.0,
            "fetch_deadline_s": 4.0,
            "cache_bytes": 0,
        },
        stream={"max_events": 16},
    )
    for number in range(PICTURES):
        store.objects[f"pics/{number}.png"] = encoded(plain(colour=(number, 0, 0)))


def look(number: int) -> Output:
    return said("look", number, images=[{"uri": f"s3://pics/{number % PICTURES}.png"}])


@pytest.mark.slow
async def test_a_store_that_goes_away_holds_partitions_and_blames_no_event(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Alive and waiting while it is away; afterwards every event is judged, in order, once."""
    with faulty_s3() as store:
        on_s3(place, store)
        with WorkerProcess(place.config, tmp_path / "log", env=CREDENTIALS) as worker:
            await asyncio.to_thread(worker.wait_ready)
            await place.write([look(number) for number in range(40)])
            await place.until(40)
            store.stop()
            await place.write([look(number) for number in range(40, 120)])

            def waiting() -> bool:
                notes = worker.probe("/readyz")[1].get("notes", [])
                return any(note["code"] == "dependency" for note in notes)

            def tried() -> bool:
                retries = "moderation_dependency_retries_total"
                return worker.metric(retries, moderation_dependency="store") >= 20

            await asyncio.to_thread(worker.until, waiting, "waiting for the store")
            await asyncio.to_thread(worker.until, tried, "trying again and again")
            assert worker.probe("/healthz")[0] == 200
            during = await place.verdicts()
            store.start()
            verdicts = await place.until(120, deadline_s=120)
            assert worker.probe("/healthz")[0] == 200
    assert {verdict.outcome for verdict in during} == {"safe"}
    assert len({verdict.event_id for verdict in verdicts}) == len(verdicts) == 120
    assert {verdict.outcome for verdict in verdicts} == {"safe"}, "an event was blamed"
    assert {verdict.attempts for verdict in verdicts} == {1}
    newest: dict[str, int] = {}
    for verdict in verdicts:
        assert verdict.source.offset > newest.get(verdict.conversation_id, -1), "out of order"
        newest[verdict.conversation_id] = verdict.source.offset


async def test_a_single_missing_object_is_undecided_at_once(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """The store is up and says no: nobody waits, the neighbours are judged."""
    with faulty_s3() as store:
        on_s3(place, store)
        missing = said("look", 1, images=[{"uri": "s3://pics/gone.png"}])
        with WorkerProcess(place.config, tmp_path / "log", env=CREDENTIALS) as worker:
            await asyncio.to_thread(worker.wait_ready)
            await place.write([missing, look(2)])
            verdicts = {verdict.event_id: verdict for verdict in await place.until(2)}
            assert worker.probe("/readyz")[1]["notes"] == []
    assert store.requests["pics/gone.png"] == 1
    assert verdicts["e-1"].outcome == "undecided"
    assert verdicts["e-1"].undecided_reason == "image_missing"
    assert verdicts["e-1"].action == "hold"
    assert verdicts["e-2"].outcome == "safe"
