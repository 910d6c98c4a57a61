"""Profiles fit the cards they are named for, and what others let through is let through."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.chart_reference import CHART
from tests.support.chart import (
    KUBERNETES,
    Manifest,
    container,
    of_kind,
    only,
    pod_spec,
    render,
    worker_yaml,
)
from tests.support.tools import REPOSITORY, helm
from worker.doctor.memory import memory_report
from worker.settings import load_settings

MODEL = "nvidia/Nemotron-3.5-Content-Safety"
CARDS = {
    "gpu-16gb": "15GiB",
    "gpu-24gb": "22GiB",
    "gpu-48gb": "39GiB",
    "gpu-80gb": "79GiB",
    "mig-1g-10gb": "9.5GiB",
    "mig-2g-20gb": "19.5GiB",
}
"""What a card of the name leaves to a process."""
OTHERS = {"trial-cpu", "remote-judge"}


def profile(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "profiles" / f"{name}.yaml").read_text())
    return loaded


def rendered(name: str, *more: str) -> list[Manifest]:
    """The chart with a profile over the least values."""
    command = [str(helm()), "template", "rel", str(CHART), "--kube-version", KUBERNETES]
    command += ["--values", f"{CHART}/ci/default-values.yaml"]
    command += ["--values", f"{CHART}/profiles/{name}.yaml", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def test_every_profile_is_one_that_these_tests_know() -> None:
    assert {path.stem for path in CHART.glob("profiles/*.yaml")} == set(CARDS) | OTHERS


@pytest.mark.parametrize("name", CARDS)
def test_a_profile_fits_its_card_with_the_policies_of_the_repository(name: str) -> None:
    """The default settings want 38 GiB: on most cards a worker would refuse to start."""
    judge = {**profile(name)["settings"]["judge"], "model": MODEL}
    settings = load_settings(
        None, judge=judge, policies={"directory": str(REPOSITORY / "policies")}
    )

    report = memory_report(settings, card=CARDS[name])

    assert report.fits, report.summary
    row = f"| `{name}.yaml` |"
    line = next(
        each
        for each in (REPOSITORY / "docs" / "operations.md").read_text().splitlines()
        if each.startswith(row)
    )
    assert f"{report.needed_bytes / 2**30:.1f} of {CARDS[name].removesuffix('GiB')} GiB" in line


@pytest.mark.parametrize("name", sorted(CARDS))
def test_a_profile_asks_for_one_device_and_memory_for_the_weights_on_their_way(name: str) -> None:
    """Eight gigabytes pass through the host, and more while an adapter is merged."""
    resources = container(rendered(name))["resources"]
    devices = [key for key in resources["limits"] if key.startswith("nvidia.com/")]
    assert len(devices) == 1
    assert devices[0].removeprefix("nvidia.com/") == (
        name.replace("-10gb", ".10gb").replace("-20gb", ".20gb") if "mig" in name else "gpu"
    )
    assert int(resources["limits"]["memory"].removesuffix("Gi")) >= 16


def test_the_trial_profile_alone_lets_a_demonstration_judge() -> None:
    allowed = {
        path.stem
        for path in CHART.glob("profiles/*.yaml")
        if profile(path.stem).get("model", {}).get("allowDemonstration")
    }
    assert allowed == {"trial-cpu"}
    assert (
        yaml.safe_load(worker_yaml(rendered("trial-cpu")))["judge"]["allow_demonstration"] is True
    )


def test_the_remote_profile_has_no_model_and_no_card() -> None:
    manifests = rendered(
        "remote-judge", "--set", "settings.judge.remote.base_url=http://vllm:8000/v1"
    )
    assert "model" not in {each["name"] for each in pod_spec(manifests)["volumes"]}
    assert "nvidia" not in str(container(manifests)["resources"])


def test_topics_are_made_with_the_partitions_that_the_values_name() -> None:
    """A topic of four partitions never has a fifth worker."""
    settings = yaml.safe_load(worker_yaml(render("gpu-keda-sasl")))
    assert settings["topics"]["input_partitions"] == {
        "community.conversations": 12,
        "ide.Conversations_v2": 6,
    }


def test_lists_and_pictures_are_shipped_with_the_policies() -> None:
    sets = (
        r"policies.inline.scams\.txt=double your bitcoin",
        r"policies.binary.bad\.png=aGVsbG8=",
        "policies.extraConfigMaps[0]=big-lists",
    )
    manifests = render("default", *sets)
    policies = next(m for m in of_kind(manifests, "ConfigMap") if "binaryData" in m)
    assert policies["data"]["scams.txt"] == "double your bitcoin"
    assert policies["binaryData"] == {"bad.png": "aGVsbG8="}
    volume = next(v for v in pod_spec(manifests)["volumes"] if v["name"] == "policies")
    assert [each["configMap"]["name"] for each in volume["projected"]["sources"]] == [
        "rel-moderation-worker-policies",
        "big-lists",
    ]


def egress(*sets: str, values: str = "default") -> set[int]:
    """Ports that the NetworkPolicy lets out, without DNS."""
    policy = only(render(values, "networkPolicy.enabled=true", *sets), "NetworkPolicy")
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", [])]
    return set(ports) - {53}


def test_the_network_policy_lets_out_what_the_other_values_name() -> None:
    """A release that cannot reach its own judge is not ready, and nothing says why."""
    assert egress() == {9092, 443}
    assert egress("settings.kafka.bootstrap_servers=kafka") == {9092, 443}
    assert egress("settings.kafka.bootstrap_servers=[fd00::1]:9094") == {9094, 443}
    assert egress("settings.store.endpoint_url=http://minio:9000") == {9092, 9000}
    remote = ("settings.judge.backend=remote", "settings.judge.remote.base_url=http://vllm:8000/v1")
    assert egress(*remote) == {9092, 443, 8000}
    assert egress("otel.endpoint=http://collector:4318") == {9092, 443, 4318}
    hub = ("model.hub.endpoint=http://mirror:8080", "settings.store.backend=directory")
    assert egress(*hub, values="s3-irsa") == {9093, 8080}
    proxy = ("networkPolicy.extraEgress[0].ports[0].port=3128",)
    assert egress(*proxy) == {9092, 443, 3128}


def test_what_others_let_through_is_let_through() -> None:
    sets = (
        *("initContainers[0].name=wait", "initContainers[0].image=busybox:1"),
        *("extraContainers[0].name=beside", "extraContainers[0].image=busybox:1"),
        "lifecycle.preStop.exec.command[0]=true",
        "extraPodSpec.schedulerName=volcano",
        "extraEnvFrom[0].configMapRef.name=more",
        "rollout.maxUnavailable=20%",
        "rollout.minReadySeconds=30",
    )
    manifests = render("gpu-keda-sasl", *sets)
    pod = pod_spec(manifests)
    spec = only(manifests, "Deployment")["spec"]
    assert [each["name"] for each in pod["initContainers"]] == ["wait"]
    assert [each["name"] for each in pod["containers"]] == ["moderation-worker", "beside"]
    worker = pod["containers"][0]
    assert worker["lifecycle"]["preStop"]["exec"]["command"] == [True]
    assert worker["envFrom"] == [{"configMapRef": {"name": "more"}}]
    assert pod["schedulerName"] == "volcano"
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == "20%"
    assert spec["minReadySeconds"] == 30


def test_objects_of_ones_own_are_installed_with_the_release() -> None:
    """As maps or as text, with the release's name in them."""
    map_ = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"{{ .Release.Name }}-map"}}'
    text = r'"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-text}"'
    manifests = rendered("trial-cpu", "--set-json", f"extraObjects=[{map_},{text}]")
    names = {each["metadata"]["name"] for each in of_kind(manifests, "ConfigMap")}
    assert {"rel-map", "rel-text"} <= names


def test_a_rollout_waits_longer_than_a_worker_may_take_to_start() -> None:
    """Else a fleet whose models load slowly is reported as failed while it is starting."""
    manifests = render("default")
    spec = only(manifests, "Deployment")["spec"]
    probe = container(manifests)["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    grace = pod_spec(manifests)["terminationGracePeriodSeconds"]
    assert spec["progressDeadlineSeconds"] > patience + grace


def test_a_platform_that_assigns_users_assigns_them() -> None:
    """OpenShift refuses a pod that names one."""
    security = pod_spec(render("default", "runAsUser=0"))["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & security.keys()
    assert security["runAsNonRoot"] is True


def test_a_checkpoint_of_the_fetched_kind_is_where_the_worker_looks(tmp_path: Path) -> None:
    """Paths of the init container and of the settings are one path."""
    (tmp_path / "sums").write_text(f"{'a' * 64}  config.json\n")
    more = ("--set", "model.source=s3", "--set", "model.s3.uri=s3://models/guard")
    manifests = rendered("gpu-24gb", *more, "--set-file", f"model.s3.sha256sums={tmp_path}/sums")
    (fetch,) = pod_spec(manifests)["initContainers"]
    assert fetch["command"][-1] == yaml.safe_load(worker_yaml(manifests))["judge"]["model"]
