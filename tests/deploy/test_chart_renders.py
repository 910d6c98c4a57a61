"""Every value set renders to manifests the Kubernetes API and the operators would accept."""

from __future__ import annotations

import jsonschema
import kubernetes_validate
import pytest

from tests.support.chart import VALUE_SETS, of_kind, only, render, render_text
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
    sets = ("fullnameOverride=" + "a" * 80, "nameOverride=" + "b" * 80)
    for manifest in render(values, *sets):
        assert len(manifest["metadata"]["name"]) <= 63
        pods = manifest.get("spec", {}).get("template", {}).get("metadata", {})
        labels = {**manifest["metadata"]["labels"], **pods.get("labels", {})}
        assert {name: len(text) for name, text in labels.items() if len(text) > 63} == {}


def test_two_long_names_that_differ_at_their_end_stay_two() -> None:
    """Cut off alone they would be one, and the second release would take over the first."""
    names = {
        only(render("default", f"fullnameOverride={'a' * 60}-{each}"), "Deployment")["metadata"][
            "name"
        ]
        for each in ("eu", "us")
    }
    assert len(names) == 2


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
