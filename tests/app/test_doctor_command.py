"""``doctor``: what is wrong with a deployment, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.cli import moderation_worker
from tests.support.kafka import free_ports
from tests.support.worker_place import WorkerPlace


def checks(place: WorkerPlace, expect: int) -> dict[str, dict[str, Any]]:
    answer = moderation_worker("doctor", "--json", "--config", place.config)
    assert answer.code == expect, answer.out + answer.err
    (line,) = answer.lines()
    assert line["ok"] == (expect == 0)
    return {check["check"]: check for check in line["checks"]}


async def test_all_is_well(place: WorkerPlace) -> None:
    """Exit code 0; every part was looked at."""
    found = checks(place, 0)
    assert {"policies", "store", "model", "topic chat", "topic moderation.verdicts"} <= set(found)
    answer = moderation_worker("doctor", "--config", place.config)
    assert answer.code == 0
    assert "FAIL" not in answer.out


def test_missing_topics_come_with_their_mending(tmp_path: Path) -> None:
    """Exit code 1; what is wrong says what to do, what is right says so."""
    place = WorkerPlace(tmp_path / "place")
    place.policy()
    found = checks(place, 1)
    assert found["policies"]["ok"]
    assert not found["topic chat"]["ok"]
    assert "topics create" in found["topic chat"]["fix"]
    text = moderation_worker("doctor", "--skip-model", "--config", place.config)
    assert text.code == 1
    assert "FAIL  topic chat" in text.out
    assert "fix: create it with `moderation-worker topics create`" in text.out


async def test_a_deployment_of_text_alone_is_well_and_told_about_images(place: WorkerPlace) -> None:
    """No bucket is allowed: exit code 0, and what an image would come to."""
    place.change(store={"buckets": []})
    assert "is undecided; see store.buckets" in checks(place, 0)["store"]["detail"]


def test_a_broken_policy_and_a_broker_nobody_runs_do_not_hide_each_other(tmp_path: Path) -> None:
    """One failing check stops no other."""
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    place = WorkerPlace(
        tmp_path / "place", log={"backend": "kafka"}, kafka={"bootstrap_servers": nobody}
    )
    place.policy(version="three")
    found = checks(place, 1)
    assert "chatter.yaml" in found["policies"]["detail"]
    assert found["model"]["ok"]
    assert nobody in found["log (kafka)"]["detail"]
    assert "chatter.yaml" not in found["log (kafka)"]["detail"]
    place.policy(version=3)
    found = checks(place, 1)
    assert found["policies"]["ok"]
    assert "kafka.bootstrap_servers" in found["log (kafka)"]["fix"]


def test_a_policy_on_an_output_topic_is_found_before_a_worker_is_started(tmp_path: Path) -> None:
    """What a worker refuses at start, its doctor names."""
    place = WorkerPlace(tmp_path / "place")
    place.policy(topics=["moderation.verdicts"])
    assert "cannot be an input" in checks(place, 1)["policies"]["detail"]


def test_a_store_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The directory store says what to create."""
    place = WorkerPlace(tmp_path / "place", store={"directory": str(tmp_path / "nowhere")})
    place.policy()
    found = checks(place, 1)
    assert not found["store (directory)"]["ok"]
    assert found["store (directory)"]["fix"] == "create store.directory"
