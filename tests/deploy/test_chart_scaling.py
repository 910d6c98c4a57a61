"""Scaling follows the lag, stays within the partitions, and is gentle with the group."""

from __future__ import annotations

from typing import Any

import yaml

from tests.support.chart import of_kind, only, render, worker_yaml


def scaling(values: str, *sets: str) -> dict[str, Any]:
    spec: dict[str, Any] = only(render(values, *sets), "ScaledObject")["spec"]
    return spec


def test_the_deployment_leaves_the_replicas_to_whoever_scales() -> None:
    """With a number of its own, every upgrade would undo what KEDA did."""
    assert "replicas" not in only(render("gpu-keda-sasl"), "Deployment")["spec"]
    assert only(render("everything-off"), "Deployment")["spec"]["replicas"] == 3
    assert not of_kind(render("everything-off"), "ScaledObject")


def test_each_input_topic_has_a_trigger_on_the_lag_of_the_workers_own_group() -> None:
    kafka = yaml.safe_load(worker_yaml(render("gpu-keda-sasl")))["kafka"]
    triggers = [each["metadata"] for each in scaling("gpu-keda-sasl")["triggers"]]
    assert [each["topic"] for each in triggers] == [
        "community.conversations",
        "ide.Conversations_v2",
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


def test_transaction_markers_alone_wake_nobody() -> None:
    """One marker at the end of each partition counts as lag of one."""
    spec = scaling("gpu-keda-sasl")
    assert [each["metadata"]["activationLagThreshold"] for each in spec["triggers"]] == ["12", "10"]


def test_workers_leave_one_at_a_time_and_a_broker_outage_removes_none() -> None:
    spec = scaling("s3-irsa")
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] >= 300
    assert [(each["type"], each["value"]) for each in down["policies"]] == [("Pods", 1)]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_keda_proves_itself_to_the_brokers_as_the_worker_does() -> None:
    manifests = render("gpu-keda-sasl")
    auth = only(manifests, "TriggerAuthentication")
    (first, second) = only(manifests, "ScaledObject")["spec"]["triggers"]
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
