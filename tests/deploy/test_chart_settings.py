"""What the chart and compose tell the worker is what the worker understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from deploy.chart_reference import lookup
from tests.support.chart import VALUE_SETS, container, pod_spec, render, worker_yaml
from worker.settings import Kafka, Settings, load_settings


def load(
    manifests: list[dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """The settings a pod of these manifests would run with; secrets get a stand-in."""
    for each in container(manifests)["env"]:
        if each["name"].startswith("MODERATION_"):
            monkeypatch.setenv(each["name"], each.get("value", "from-a-secret"))
    path = folder / "worker.yaml"
    path.write_text(worker_yaml(manifests))
    return load_settings(path)


@pytest.mark.parametrize("values", VALUE_SETS)
def test_the_worker_reads_the_rendered_settings(
    values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = render(values)
    settings = load(manifests, tmp_path, monkeypatch)
    assert settings.web.host == "0.0.0.0"
    assert settings.kafka.bootstrap_servers != Kafka().bootstrap_servers
    mounted = {mount["mountPath"] for mount in container(manifests)["volumeMounts"]}
    assert str(settings.policies.directory) in mounted


def test_the_production_set_means_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(render("gpu-keda-sasl"), tmp_path, monkeypatch)
    security = settings.kafka.security
    assert (security.protocol, security.username) == ("SASL_SSL", "from-a-secret")
    assert security.password_file == Path("/secrets/kafka/password")
    assert security.ca_file == Path("/secrets/kafka/ca.pem")
    assert settings.judge.batch_deadline_s == settings.stream.drain_s == 45
    assert settings.judge.adapter == Path("/adapters/general")


@pytest.mark.parametrize("values", VALUE_SETS)
def test_the_derived_grace_period_covers_the_settings_the_worker_ends_up_with(
    values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chart repeats one default of the worker (the transaction timeout): they must agree."""
    manifests = render(values)
    settings = load(manifests, tmp_path, monkeypatch)
    needed = settings.stream.drain_s + settings.kafka.transaction_timeout_s
    assert pod_spec(manifests)["terminationGracePeriodSeconds"] > needed


@pytest.mark.parametrize("values", VALUE_SETS)
def test_every_variable_of_the_chart_names_a_field_of_the_worker(values: str) -> None:
    names = [each["name"] for each in container(render(values))["env"]]
    assert unknown_variables(names) == []


def test_every_variable_of_compose_names_a_field_of_the_worker(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        assert unknown_variables(service.get("environment", {})) == []


def test_compose_gives_the_worker_settings_it_accepts(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in compose["services"]["worker"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.judge.model == "tiny"
    assert settings.kafka.bootstrap_servers == "kafka:29092"


def test_a_misspelt_variable_would_be_noticed() -> None:
    """Guards the two tests above against passing whatever they are given."""
    assert unknown_variables(["MODERATION_KAFKA__GROUPID", "MODERATION_NO__SUCH"]) != []


def unknown_variables(names: Any) -> list[str]:
    """Names ``MODERATION_*`` that no field of the settings tree answers to."""
    return [name for name in names if name.startswith("MODERATION_") and not known(name)]


def known(name: str) -> bool:
    """Whether ``MODERATION_A__B`` is the field b of section a."""
    node: Any = Settings
    for part in name.removeprefix("MODERATION_").lower().split("__"):
        if not (isinstance(node, type) and issubclass(node, BaseModel)):
            return False
        if part not in node.model_fields:
            return False
        node = node.model_fields[part].annotation
    return True


def test_defaults_the_chart_repeats_are_the_workers_own() -> None:
    """values.yaml states two of the worker's settings itself, so that they can be seen there."""
    values = yaml.safe_load((Path("helm/moderation-worker/values.yaml")).read_text())
    defaults = Settings.model_construct()
    assert lookup(values, "settings.kafka.group_id") == defaults.kafka.group_id
    assert lookup(values, "batchDeadlineSeconds") == defaults.judge.batch_deadline_s
