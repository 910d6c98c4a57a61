"""Alerts and dashboard ask only for what the worker serves, and say what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.chart_reference import CHART
from tests.support.chart import only, render
from tests.support.measured import label_of, name_of
from tests.support.promql import served, unknown, uses
from tests.support.tools import REPOSITORY
from worker.telemetry.instruments import instruments


def rules(*sets: str) -> list[dict[str, Any]]:
    manifest = only(render("default", "alerts.enabled=true", *sets), "PrometheusRule")
    return [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
    return loaded


def targets() -> Iterator[tuple[str, str, str]]:
    """Title, expression and legend of every query of the dashboard."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


def test_every_alert_uses_metrics_and_labels_that_workers_serve() -> None:
    assert {rule["alert"]: unknown(rule["expr"]) for rule in rules() if unknown(rule["expr"])} == {}


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
    for rule in rules():
        kept = frozenset().union(*(use.labels for use in uses(rule["expr"])))
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert named <= kept, rule["alert"]


def test_the_check_itself_finds_a_wrong_metric_a_wrong_label_and_bad_syntax() -> None:
    assert unknown("sum(moderation_lagg)") == ["no metric moderation_lagg"]
    assert unknown("sum by (user_id) (moderation_lag)") == ["moderation_lag has no label user_id"]
    with pytest.raises(ValueError, match="unclosed"):
        uses("sum by (moderation_lag")


def test_thresholds_come_from_the_values() -> None:
    changed = ("alerts.retentionSeconds=1000", "batchDeadlineSeconds=7")
    text = "\n".join(rule["expr"] for rule in rules(*changed))
    for expected in ("> 500", "> 800", "batch_stalled_seconds) > 7"):
        assert expected in text


def test_every_alert_is_explained_in_the_operations_guide() -> None:
    guide = (REPOSITORY / "docs" / "operations.md").read_text()
    assert [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in guide] == []


def test_prometheus_of_compose_evaluates_the_charts_alerts() -> None:
    """The file is generated; test_chart_reference says when it is stale."""
    written = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "alerts.yaml").read_text())
    assert [rule for group in written["groups"] for rule in group["rules"]] == rules()


def test_the_dashboard_has_no_two_panels_of_one_id_and_no_fixed_data_source() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = {json.dumps(panel["datasource"]) for panel in panels if "datasource" in panel}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}


def test_labels_of_the_worker_carry_no_user_content() -> None:
    """Ids, keys and offsets as labels would make a time series of every event."""
    labels = {label for names in served().values() for label in names}
    for each in ("conversation", "event_id", "user", "offset", "tenant", "key"):
        assert not any(each in label_of(label) for label in labels)
