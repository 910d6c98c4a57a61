"""What the chart promises about stopping, starting, secrets and rollouts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.chart import (
    VALUE_SETS,
    Manifest,
    container,
    of_kind,
    only,
    pod_spec,
    render,
    render_notes,
    render_text,
    worker_yaml,
)


def template(manifests: list[Manifest]) -> Manifest:
    found: Manifest = only(manifests, "Deployment")["spec"]["template"]
    return found


@pytest.mark.parametrize("deadline", [5, 60, 300])
def test_a_stop_has_time_for_the_drain_and_the_last_transaction(deadline: int) -> None:
    """SIGKILL must come after stream.drain_s and kafka.transaction_timeout_s, never between."""
    manifests = render("default", f"batchDeadlineSeconds={deadline}")
    settings = yaml.safe_load(worker_yaml(manifests))
    assert settings["judge"]["batch_deadline_s"] == settings["stream"]["drain_s"] == deadline
    assert settings["kafka"]["rebalance_timeout_s"] == 2 * deadline
    assert pod_spec(manifests)["terminationGracePeriodSeconds"] >= deadline + 30 + 15


def test_a_drain_time_set_by_hand_moves_the_grace_period_with_it() -> None:
    sets = ("settings.stream.drain_s=100", "settings.kafka.transaction_timeout_s=50")
    assert pod_spec(render("default", *sets))["terminationGracePeriodSeconds"] == 165


@pytest.mark.parametrize("values", VALUE_SETS)
def test_the_worker_is_process_one(values: str) -> None:
    """A shell in between would swallow SIGTERM, and nothing would drain."""
    command = container(render(values))["command"]
    assert command == ["moderation-worker", "run", "--config", "/etc/moderation-worker/worker.yaml"]


@pytest.mark.parametrize("values", VALUE_SETS)
def test_probes_ask_the_page_that_means_what_they_ask(values: str) -> None:
    """Being not ready (a broker away, a policy refused) must never restart a worker."""
    worker = container(render(values))
    assert worker["startupProbe"]["exec"]["command"] == [
        "moderation-worker-probe",
        "/readyz",
        "model",
    ]
    assert worker["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert worker["readinessProbe"]["httpGet"]["path"] == "/readyz"
    port = yaml.safe_load(worker_yaml(render(values)))["web"]["port"]
    assert worker["ports"] == [{"name": "web", "containerPort": port}]
    env = {each["name"]: each.get("value") for each in worker["env"]}
    assert env["MODERATION_WEB__PORT"] == str(port), "the startup probe asks there"


@pytest.mark.parametrize("values", VALUE_SETS)
def test_no_container_can_become_root_or_write_to_its_image(values: str) -> None:
    for manifest in (m for m in render(values) if m["kind"] in ("Deployment", "Job")):
        pod = manifest["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for each in pod["containers"] + pod.get("initContainers", []):
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert each["resources"]["limits"]["memory"]


def test_a_changed_policy_reaches_running_workers_and_a_changed_setting_restarts_them() -> None:
    before = template(render("default"))
    phrases = template(render("default", r"policies.inline.scams\.txt=double your bitcoin"))
    topic = template(render("default", r"policies.inline.more\.yaml=topics: [other.topic]"))
    setting = template(render("default", "settings.judge.max_batch=8"))
    assert phrases == before
    assert topic != before, "a topic that is new to the workers is subscribed to at their start"
    assert setting != before


def test_policies_and_settings_are_mounted_whole_so_that_the_kubelet_can_update_them() -> None:
    """A subPath mount never changes while a pod lives."""
    assert all("subPath" not in each for each in container(render("default"))["volumeMounts"])


@pytest.mark.parametrize("values", VALUE_SETS)
def test_every_mount_has_a_volume_and_no_mount_lies_inside_another(values: str) -> None:
    pod = pod_spec(render(values))
    volumes = {each["name"] for each in pod["volumes"]}
    for each in pod["containers"] + pod.get("initContainers", []):
        paths = [mount["mountPath"] for mount in each["volumeMounts"]]
        assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
        assert not any(a != b and a.startswith(f"{b}/") for a in paths for b in paths)


def test_credentials_stay_in_their_secrets() -> None:
    """No Secret is rendered, and only references to it: values end up in release history."""
    manifests = render("gpu-keda-sasl")
    assert not of_kind(manifests, "Secret")
    assert "password_file: /secrets/kafka/password" in worker_yaml(manifests)
    secret = next(v["secret"] for v in pod_spec(manifests)["volumes"] if v["name"] == "kafka")
    assert {each["path"] for each in secret["items"]} == {
        *("password", "ca.pem", "tls.crt", "tls.key")
    }
    env = {each["name"]: each for each in container(manifests)["env"]}
    for name in ("AWS_SECRET_ACCESS_KEY", "MODERATION_KAFKA__SECURITY__USERNAME"):
        assert "secretKeyRef" in env[name]["valueFrom"]


def test_a_rollout_never_asks_for_a_gpu_more_than_there_are() -> None:
    strategy = only(render("gpu-keda-sasl"), "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}
    manifests = render("gpu-keda-sasl")
    assert container(manifests)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod_spec(manifests)["nodeSelector"] == {
        "kubernetes.io/arch": "amd64",
        "nvidia.com/gpu.product": "NVIDIA-L4",
    }
    assert pod_spec(manifests)["runtimeClassName"] == "nvidia"


def test_without_a_gpu_nothing_of_a_gpu_is_asked_for() -> None:
    assert "nvidia" not in render_text("default").lower()


@pytest.mark.parametrize(
    ("values", "volume", "model"),
    [
        ("default", None, "tiny"),
        ("gpu-keda-sasl", "image", "/models/checkpoint"),
        ("s3-irsa", "persistentVolumeClaim", "nvidia/Nemotron-3.5-Content-Safety"),
        ("everything-off", "persistentVolumeClaim", "/models"),
    ],
)
def test_the_model_comes_from_where_the_switch_says(
    values: str, volume: str | None, model: str
) -> None:
    manifests = render(values)
    assert yaml.safe_load(worker_yaml(manifests))["judge"]["model"] == model
    found = [each for each in pod_spec(manifests)["volumes"] if each["name"] == "model"]
    assert [set(each) - {"name"} for each in found] == ([{volume}] if volume else [])


def test_only_the_init_container_may_go_to_the_hub() -> None:
    """The worker itself starts from what was fetched, pinned to a commit, or not at all."""
    manifests = render("s3-irsa")
    (fetch,) = pod_spec(manifests)["initContainers"]
    settings = yaml.safe_load(worker_yaml(manifests))
    assert fetch["command"][:2] == ["moderation-worker-fetch-model", "hub"]
    assert fetch["command"][-1] == settings["judge"]["revision"]
    env = {each["name"]: each.get("value") for each in container(manifests)["env"]}
    assert env["HF_HUB_OFFLINE"] == "1"
    fetching = {each["name"]: each.get("value") for each in fetch["env"]}
    assert fetching["HF_HUB_OFFLINE"] == "0", "the image itself is offline"
    assert fetching["HF_HOME"] == env["HF_HOME"]


def test_the_topics_job_gets_a_new_name_with_every_change() -> None:
    """A Job's pod cannot be changed; with the old name the upgrade would be refused."""
    names = {
        only(render("default", "topicsJob.enabled=true", each), "Job")["metadata"]["name"]
        for each in ("image.tag=a", "image.tag=b", "settings.topics.partitions=9")
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("default", ["topicsJob.enabled=true", "protects nobody", "105 s", "--skip-model"]),
        ("gpu-keda-sasl", ["KEDA keeps 2 to 18 workers (18 partitions", "get jobs"]),
        ("everything-off", ["run on the CPU", "port-forward deploy/mod 8080"]),
    ],
)
def test_the_notes_say_what_to_do_next(values: str, said: list[str], tmp_path: Path) -> None:
    text = render_notes(values, tmp_path)
    for each in said:
        assert each in text
