"""What an operator's rules need is on ``/metrics`` from the first moment, and true."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from deploy.dashboards import dashboards
from tests.support.images import encoded, noise
from tests.support.kafka import free_ports
from tests.support.promql import FOREIGN, recorded, uses
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_process import WorkerProcess, misjudge_command


async def test_a_worker_that_loads_its_model_says_that_it_is_not_ready(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """A gauge that appears with readiness cannot say that there is none."""
    loading = {"MISJUDGE_START_S": "3"}
    with WorkerProcess(
        place.config, tmp_path / "log", command=misjudge_command, env=loading
    ) as worker:
        await asyncio.to_thread(worker.wait_web)
        await asyncio.to_thread(
            worker.until, lambda: "moderation_ready 0.0" in worker.metrics(), "said to be unready"
        )
        assert worker.metric("moderation_check", moderation_check="loop") == 1
        assert worker.metric("moderation_check", moderation_check="model") == 0
        assert worker.metric("moderation_build_info") == 1
        await asyncio.to_thread(worker.wait_ready)
        assert worker.metric("moderation_ready") == 1
        assert (
            worker.metric("moderation_model_info", moderation_model_id="demonstration/scripted")
            == 1
        )
        assert worker.metric("moderation_policy_info", moderation_policy_name="chatter") == 1


async def test_a_remote_judge_that_is_away_at_the_start_is_a_dependency_that_is_away(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """No stream runs yet that could pause; the rule has to see it all the same."""
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}/v1"
    place.change(judge={"backend": "remote", "remote": {"base_url": nobody}})
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(
            worker.until,
            lambda: (
                worker.metric("moderation_dependency_paused_seconds", moderation_dependency="judge")
                > 0.5
            ),
            "counting",
        )
        assert worker.metric("moderation_ready") == 0


async def test_how_late_a_verdict_is_counts_from_its_record(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Hours in a backlog are late, however fast the judge is."""
    slow = {"MISJUDGE_DELAY_S": "1.5"}
    with WorkerProcess(
        place.config, tmp_path / "log", command=misjudge_command, env=slow
    ) as worker:
        await place.write([said("hello", number) for number in range(3)])
        await place.until(3)
        name = "moderation_record_to_verdict_duration_seconds"
        topic = {"messaging_destination_name": "chat"}
        await asyncio.to_thread(
            worker.until, lambda: worker.metric(f"{name}_count", **topic) == 3, "counted"
        )
        assert worker.metric(f"{name}_bucket", le="1.0", **topic) == 0
        assert worker.metric(f"{name}_bucket", le="60.0", **topic) == 3


async def test_a_partition_that_stands_still_counts_and_the_others_do_not(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Its head is never answered; the lag of the topic alone would not show it."""
    hang = {"MISJUDGE_HANG": "1"}
    with WorkerProcess(
        place.config, tmp_path / "log", command=misjudge_command, env=hang
    ) as worker:
        await asyncio.to_thread(worker.wait_ready)
        await place.write([said("it hangs", 1)])
        stalled = "moderation_partition_stalled_seconds"
        await asyncio.to_thread(worker.until, lambda: worker.metric(stalled) > 0.5, "stalled")
        counted = [line for line in worker.metrics().splitlines() if line.startswith(stalled + "{")]
        assert sum(float(line.rpartition(" ")[2]) > 0 for line in counted) == 1
        assert len(counted) == 4


@pytest.mark.model
@pytest.mark.slow
async def test_every_query_of_the_dashboards_finds_series_on_a_running_worker(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """A panel without data looks like a quiet day."""
    lists = [{"name": "scams", "decide": "reason", "phrases": ["hello"]}]
    place.policy(prefilter={"lists": lists}, think={"when": "always", "max_tokens": 20})
    place.change(judge={"backend": "local", "model": "tiny", "max_context": 4096})
    seen = {"uri": place.picture("seen.png", encoded(noise(64, 64)))}
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        await place.write([said("hello <end_of_turn>"), said("look", 3, images=[seen])])
        await place.until(2)
        await place.write([said("look again", 3, images=[seen])])
        await place.until(3)
        page = worker.metrics()
    there = {line.partition("{")[0].partition(" ")[0] for line in page.splitlines()}
    elsewhere = set(FOREIGN) | set(recorded()) | set(ON_OCCASION)
    boards = [yaml.safe_load(text) for text in dashboards().values()]
    wanted = {
        use.metric
        for board in boards
        for panel in board["panels"]
        for target in panel.get("targets", [])
        for use in uses(target["expr"])
    }
    assert sorted(wanted - elsewhere - there) == []


ON_OCCASION = {
    "moderation_dependency_paused_seconds": "while a dependency is away",
    "moderation_dependency_retries_total": "after one was away",
    "moderation_dead_letters_total": "after the first",
    "moderation_unknown_fields_total": "after the first",
    "moderation_folded_total": "after the first",
    "moderation_system_messages_total": "after the first",
    "moderation_shadow_events_total": "with a candidate policy",
    "moderation_log_dropped_total": "after the first",
    "moderation_log_rebalances_total": "with Kafka, whose groups rebalance",
    "moderation_judge_graphs": "with judge.compile",
    "moderation_judge_answers_written_total": "after an answer whose constant text was improbable",
    "moderation_judge_remote_duration_seconds_bucket": "with a remote judge",
    "moderation_judge_remote_duration_seconds_count": "with a remote judge",
    "moderation_judge_remote_retries_total": "with a remote judge",
    "moderation_judge_remote_breaker": "with a remote judge",
}
"""Series that a worker has only when there is something to say; no other may be missing."""
