"""Alerts and dashboard ask only for what the worker serves, and say what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.chart_reference import COMPOSE_JOB
from deploy.dashboards import FOLDER, dashboards
from tests.support.chart import VALUE_SETS, only, render
from tests.support.measured import label_of, name_of
from tests.support.pages import anchors
from tests.support.promql import served, unknown, uses
from tests.support.tools import REPOSITORY
from worker.telemetry.instruments import instruments


def rules(values: str = "default", *sets: str) -> list[dict[str, Any]]:
    """Recording rules and alerts of a value set."""
    manifest = only(render(values, "alerts.enabled=true", *sets), "PrometheusRule")
    return [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]


def alerts(values: str = "default", *sets: str) -> list[dict[str, Any]]:
    return [rule for rule in rules(values, *sets) if "alert" in rule]


def boards() -> dict[str, dict[str, Any]]:
    """The dashboards by file name."""
    return {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}


def targets() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of every query of the dashboards."""
    for board in boards().values():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield panel["title"], target["expr"], target["legendFormat"]


def test_every_alert_uses_metrics_and_labels_that_workers_serve() -> None:
    for values in VALUE_SETS:
        named = {rule.get("alert", rule.get("record")): rule["expr"] for rule in rules(values)}
        assert {name: unknown(expr) for name, expr in named.items() if unknown(expr)} == {}


def test_every_panel_uses_metrics_and_labels_that_workers_serve() -> None:
    assert {title: unknown(expr) for title, expr, _ in targets() if unknown(expr)} == {}


def test_every_metric_of_the_worker_is_on_the_dashboard() -> None:
    """A metric nobody can see is a metric nobody misses when it breaks."""
    shown = {use.metric for _, expr, _ in targets() for use in uses(expr)}
    hidden = [
        each.name
        for each in instruments()
        if not any(metric.startswith(name_of(each.name, each.unit)) for metric in shown)
    ]
    assert hidden == []


def test_legends_and_summaries_name_only_labels_their_query_keeps() -> None:
    for title, expr, legend in targets():
        kept = frozenset().union(*(use.labels for use in uses(expr)))
        assert set(re.findall(r"{{(\w+)}}", legend)) <= kept, title
    for rule in alerts("gpu-keda-sasl"):
        kept = frozenset().union(*(use.labels for use in uses(rule["expr"])))
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert named <= kept, rule["alert"]


def test_the_check_itself_finds_a_wrong_metric_a_wrong_label_and_bad_syntax() -> None:
    assert unknown("sum(moderation_lagg)") == ["no metric moderation_lagg"]
    assert unknown("sum by (user_id) (moderation_lag)") == ["moderation_lag has no label user_id"]
    with pytest.raises(ValueError, match="unclosed"):
        uses("sum by (moderation_lag")


def test_thresholds_come_from_the_values() -> None:
    changed = ("alerts.retentionSeconds=1000", "batchDeadlineSeconds=7", "alerts.minReady=3")
    more = ("alerts.slo.seconds=2.5", "alerts.slo.objective=0.95", "alerts.stuckSeconds=77")
    text = "\n".join(rule["expr"] for rule in rules("default", *changed, *more))
    for expected in (
        *("> 500", "> 800", "batch_stalled_seconds) > 7", "vector(0)) < 3"),
        *('le="2.5"', "ratio1h > 0.72", "ratio6h > 0.3", "stalled_seconds) > 77"),
    ):
        assert expected in text


def test_every_alert_is_explained_in_the_operations_guide() -> None:
    guide = (REPOSITORY / "docs" / "operations.md").read_text()
    every = alerts("gpu-keda-sasl")
    assert [rule["alert"] for rule in every if f"`{rule['alert']}`" not in guide] == []


def test_every_alert_leads_to_its_own_place_in_the_runbook() -> None:
    """At three in the morning nobody searches."""
    headings = anchors((REPOSITORY / "docs" / "runbook.md").read_text())
    for rule in alerts("gpu-keda-sasl", "alerts.runbookUrl=https://wiki.example.com/runbook"):
        url, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert url == "https://wiki.example.com/runbook"
        assert anchor == rule["alert"].lower()
        assert anchor in headings


def test_prometheus_of_compose_evaluates_the_charts_alerts() -> None:
    """The file is generated; test_chart_reference says when it is stale."""
    written = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "alerts.yaml").read_text())
    found = [rule for group in written["groups"] for rule in group["rules"]]
    ours = rules("default", f"alerts.job={COMPOSE_JOB}")
    assert [rule.get("alert") for rule in found] == [rule.get("alert") for rule in ours]
    assert [rule["expr"] for rule in found if f'job="{COMPOSE_JOB}"' in rule["expr"]]
    scraped = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert [each["job_name"] for each in scraped["scrape_configs"]] == [COMPOSE_JOB]


def test_each_person_has_a_dashboard_whose_rows_are_questions() -> None:
    """On call, who owns policies, who pays for GPUs: they look for different things."""
    assert set(boards()) == {"on-call", "policies", "capacity"}
    for board in boards().values():
        assert all(p["title"].endswith("?") for p in board["panels"] if p["type"] == "row")
        places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
        assert len(set(places)) == len(places)
        assert all(
            place["x"] + place["w"] <= 24 for place in (p["gridPos"] for p in board["panels"])
        )


def test_the_dashboards_are_those_of_their_source() -> None:
    """Mend with: python -m deploy.dashboards"""
    assert {path.name for path, text in dashboards().items() if path.read_text() != text} == set()


def test_a_dashboard_has_no_two_panels_of_one_id_and_no_fixed_data_source() -> None:
    for board in boards().values():
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        sources = {json.dumps(panel["datasource"]) for panel in panels if "datasource" in panel}
        assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}


def test_labels_of_the_worker_carry_no_user_content() -> None:
    """Ids, keys and offsets as labels would make a time series of every event."""
    labels = {label for names in served().values() for label in names}
    for each in ("conversation", "event_id", "user", "offset", "tenant", "key"):
        assert not any(each in label_of(label) for label in labels)
