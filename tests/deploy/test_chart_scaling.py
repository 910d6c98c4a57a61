"""Scaling follows the lag, stays within the partitions, and is gentle with the group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import of_kind, only, render, worker_yaml
from tests.support.promql import unknown
from tests.support.rules import Worker, evaluated, played

MORE = ("inputTopics[1].name=ide_conversations", "inputTopics[1].partitions=2")


def scaling(values: str, *sets: str) -> dict[str, Any]:
    spec: dict[str, Any] = only(render(values, *sets), "ScaledObject")["spec"]
    return spec


def test_the_deployment_leaves_the_replicas_to_whoever_scales() -> None:
    """With a number of its own, every upgrade would undo what KEDA did."""
    assert "replicas" not in only(render("gpu-keda-sasl"), "Deployment")["spec"]
    assert only(render("everything-off"), "Deployment")["spec"]["replicas"] == 3
    assert not of_kind(render("everything-off"), "ScaledObject")


def test_each_input_topic_has_a_trigger_on_the_lag_of_the_workers_own_group() -> None:
    kafka = yaml.safe_load(worker_yaml(render("s3-irsa")))["kafka"]
    triggers = [each["metadata"] for each in scaling("s3-irsa", *MORE)["triggers"]]
    assert [each["topic"] for each in triggers] == [
        "ide.conversations",
        "ide_conversations",
    ]
    for each in triggers:
        assert each["consumerGroup"] == kafka["group_id"]
        assert each["bootstrapServers"] == kafka["bootstrap_servers"]
        assert each["offsetResetPolicy"] == "earliest", "as the worker starts a new group"


def test_there_are_never_more_workers_than_partitions() -> None:
    assert scaling("gpu-keda-sasl")["maxReplicaCount"] == 18
    assert scaling("gpu-keda-sasl", "autoscaling.maxReplicas=3")["maxReplicaCount"] == 3
    few = scaling("s3-irsa", "inputTopics[0].partitions=1", "autoscaling.minReplicas=2")
    assert (few["minReplicaCount"], few["maxReplicaCount"], few["fallback"]["replicas"]) == (
        1,
        1,
        1,
    )


def test_topics_that_differ_in_a_dot_have_triggers_of_their_own() -> None:
    """Kafka keeps them apart; a name made from a topic would not."""
    spec = scaling("s3-irsa", *MORE)
    assert [each["name"] for each in spec["triggers"]] == ["topic_0", "topic_1"]
    assert spec["advanced"]["scalingModifiers"]["formula"] == "topic_0 + topic_1"


def test_the_lag_aimed_at_is_what_a_worker_judges_while_an_event_may_wait() -> None:
    sets = ("autoscaling.workerEventsPerSecond=12.5", "autoscaling.tolerableDelaySeconds=100")
    spec = scaling("s3-irsa", *sets)
    assert spec["advanced"]["scalingModifiers"]["target"] == "1250"
    assert [each["metadata"]["lagThreshold"] for each in spec["triggers"]] == ["1250"]


def test_one_waiting_event_wakes_the_first_worker() -> None:
    """KEDA wakes above the number it is given."""
    spec = scaling("s3-irsa")
    assert spec["minReplicaCount"] == 0
    assert spec["advanced"]["scalingModifiers"]["activationTarget"] == "0"
    assert spec["triggers"][0]["metadata"]["activationLagThreshold"] == "0"


def test_with_prometheus_the_rate_counts_and_an_outage_holds() -> None:
    spec = scaling("gpu-keda-sasl")
    assert (
        spec["advanced"]["scalingModifiers"]["formula"] == "min(topic_0 + topic_1 + judged, held)"
    )
    queries = {
        each["name"]: each["metadata"]["query"]
        for each in spec["triggers"]
        if each["type"] == "prometheus"
    }
    assert set(queries) == {"judged", "held"}
    assert {name: unknown(query) for name, query in queries.items()} == {"judged": [], "held": []}
    assert all('job="moderation/rel-moderation-worker"' in query for query in queries.values())


@pytest.mark.timeout(1800)
def test_the_queries_say_what_the_formula_needs_in_prometheus_own_engine(tmp_path: Path) -> None:
    """Twelve hundred events a minute of two workers each; then the store goes away for good."""
    spec = scaling("gpu-keda-sasl")
    queries = {
        each["name"]: each["metadata"]["query"]
        for each in spec["triggers"]
        if each["type"] == "prometheus"
    }
    away = {"store": "_x20 0+60x20"}
    workers = [
        Worker(name=name, minutes=40, events_per_minute=1200, paused=away) for name in ("a", "b")
    ]
    scene = played(workers)
    target = float(spec["advanced"]["scalingModifiers"]["target"])

    (judged,) = evaluated(scene, queries["judged"], 15, tmp_path)
    assert judged == pytest.approx(2 * 20 * 30 / 0.8, rel=0.01)
    assert evaluated({}, queries["judged"], 15, tmp_path) == [0]
    assert evaluated(scene, queries["held"], 15, tmp_path) == [1e9]
    assert evaluated(scene, queries["held"], 25, tmp_path) == [2 * target]
    assert evaluated({}, queries["held"], 25, tmp_path) == [1e9], "from zero nothing is held"


def test_triggers_and_metadata_of_ones_own_are_let_through() -> None:
    sets = (
        *("autoscaling.triggers[0].type=cron", "autoscaling.triggers[0].name=morning"),
        *("autoscaling.triggers[0].metadata.timezone=UTC",),
        "autoscaling.kafkaMetadata.limitToPartitionsWithLag=true",
    )
    spec = scaling("s3-irsa", *sets)
    assert spec["advanced"]["scalingModifiers"]["formula"] == "max(topic_0, morning)"
    assert spec["triggers"][-1]["metadata"] == {"timezone": "UTC"}
    assert spec["triggers"][0]["metadata"]["limitToPartitionsWithLag"] == "true"


def test_an_unreadable_lag_removes_no_worker() -> None:
    assert scaling("s3-irsa")["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_keda_proves_itself_to_the_brokers_as_the_worker_does() -> None:
    manifests = render("gpu-keda-sasl")
    auth = only(manifests, "TriggerAuthentication")
    (first, second, *_) = only(manifests, "ScaledObject")["spec"]["triggers"]
    assert first["authenticationRef"] == second["authenticationRef"]
    assert first["authenticationRef"]["name"] == auth["metadata"]["name"]
    assert (first["metadata"]["sasl"], first["metadata"]["tls"]) == ("scram_sha512", "enable")
    assert {each["parameter"] for each in auth["spec"]["secretTargetRef"]} == {
        *("username", "password", "ca", "cert", "key")
    }


def test_without_secrets_keda_asks_for_none() -> None:
    sets = (
        "autoscaling.enabled=true",
        "inputTopics[0].name=community.conversations",
        "inputTopics[0].partitions=4",
    )
    manifests = render("default", *sets)
    assert not of_kind(manifests, "TriggerAuthentication")
    (trigger,) = only(manifests, "ScaledObject")["spec"]["triggers"]
    assert "authenticationRef" not in trigger
    assert not {"sasl", "tls"} & trigger["metadata"].keys()
