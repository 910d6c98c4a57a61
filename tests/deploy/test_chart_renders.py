"""Every value set renders to manifests the Kubernetes API and the operators would accept."""

from __future__ import annotations

import jsonschema
import kubernetes_validate
import pytest

from tests.support.chart import VALUE_SETS, of_kind, render, render_text
from tests.support.crds import SCHEMAS

SUPPORTED = ("1.33", "1.35", "1.37")


@pytest.mark.parametrize("version", SUPPORTED)
@pytest.mark.parametrize("values", VALUE_SETS)
def test_builtin_objects_hold_no_field_kubernetes_does_not_know(values: str, version: str) -> None:
    for manifest in render(values):
        if manifest["kind"] not in SCHEMAS:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("values", VALUE_SETS)
def test_custom_resources_hold_no_field_their_operators_do_not_know(values: str) -> None:
    for manifest in render(values):
        if schema := SCHEMAS.get(manifest["kind"]):
            jsonschema.validate(manifest, schema)


def test_the_full_value_set_makes_every_kind_of_object_the_chart_can_make() -> None:
    kinds = {each["kind"] for each in render("gpu-keda-sasl")}
    assert kinds == {
        *("ConfigMap", "Deployment", "Job", "NetworkPolicy", "PodDisruptionBudget"),
        *("PodMonitor", "PrometheusRule", "ScaledObject", "ServiceAccount"),
        "TriggerAuthentication",
    }


def test_with_everything_off_only_the_worker_and_its_settings_are_left() -> None:
    assert [each["kind"] for each in render("everything-off")] == ["ConfigMap", "Deployment"]


@pytest.mark.parametrize("values", VALUE_SETS)
def test_names_stay_valid_when_the_release_name_is_long(values: str) -> None:
    manifests = render(values, "fullnameOverride=" + "a" * 80)
    assert all(len(each["metadata"]["name"]) <= 63 for each in manifests)


@pytest.mark.parametrize("values", VALUE_SETS)
def test_every_selector_finds_the_workers_pods_and_no_others(values: str) -> None:
    manifests = render(values)
    labels = of_kind(manifests, "Deployment")[0]["spec"]["template"]["metadata"]["labels"]
    jobs = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(manifests, "Job")]
    for kind, field in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
        ("PodMonitor", "selector"),
    ):
        for manifest in of_kind(manifests, kind):
            wanted = manifest["spec"][field]["matchLabels"].items()
            assert wanted <= labels.items()
            assert not any(wanted <= other.items() for other in jobs)


def test_lint_finds_nothing_wrong_with_the_templates() -> None:
    """``helm template`` is strict about values only; stray braces would stand in the output."""
    for values in VALUE_SETS:
        text = render_text(values)
        assert "<no value>" not in text
        assert "%!" not in text
