"""Writes the Grafana dashboards of the chart and of compose from deploy/dashboards.yaml.

``python -m deploy.dashboards`` writes; ``--check`` says which are out of date and exits 1.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deploy.chart_reference import CHART, HERE, put

FOLDER = CHART / "files" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WORKERS = re.compile(r"\{J\b")
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def spelled(expression: str) -> str:
    """PromQL with Grafana's variables in place of J and R."""
    return _WORKERS.sub('{job=~"$job"', expression).replace("[R]", "[$__rate_interval]")


def queries(panel: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Legend and PromQL of a panel."""
    if metric := panel.get("quantiles"):
        for legend, share in _QUANTILES.items():
            rate = f"rate({metric}_bucket{{J}}[R])"
            yield legend, spelled(f"histogram_quantile({share}, sum by (le) ({rate}))")
    for legend, expression in panel.get("queries", {}).items():
        yield legend, spelled(expression)


def panels(rows: Mapping[str, list[Mapping[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Rows with their panels laid out over Grafana's 24 columns: six numbers, or three curves."""
    y, number = 0, 0
    for question, row in rows.items():
        number += 1
        place = {"h": 1, "w": 24, "x": 0, "y": y}
        yield {"id": number, "type": "row", "title": question, "gridPos": place, "panels": []}
        y += 1
        for kind, height, width in (("stat", 4, 4), ("timeseries", 8, 8)):
            shown = [each for each in row if bool(each.get("stat")) == (kind == "stat")]
            for index, panel in enumerate(shown):
                number += 1
                x = index * width % 24
                place = {"h": height, "w": width, "x": x, "y": y + index * width // 24 * height}
                yield drawn(panel, kind, number, place)
            y += -(-len(shown) * width // 24) * height


def drawn(
    panel: Mapping[str, Any], kind: str, number: int, place: dict[str, int]
) -> dict[str, Any]:
    """One panel as Grafana has it."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}} if kind == "stat" else {}
    return {
        "id": number,
        "type": kind,
        "title": panel["title"],
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.get("unit", "short")}, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(65 + index), "expr": expr, "legendFormat": legend, "datasource": SOURCE}
            for index, (legend, expr) in enumerate(queries(panel))
        ],
    }


def dashboard(name: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """A whole dashboard, with a link to the others and the alerts as annotations."""
    job = {
        "name": "job",
        "type": "query",
        "label": "Job",
        "datasource": SOURCE,
        "query": {"query": "label_values(moderation_ready, job)", "refId": "job"},
        "includeAll": True,
        "multi": True,
        "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
    source = {"name": "datasource", "type": "datasource", "query": "prometheus", "current": {}}
    fired = {
        "name": "Alerts",
        "enable": True,
        "datasource": SOURCE,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Moderation.+",alertstate="firing"}',
        "titleFormat": "{{alertname}}",
    }
    others = {"type": "dashboards", "tags": ["moderation"], "title": "Others", "includeVars": True}
    return {
        "uid": f"moderation-{name}",
        "title": said["title"],
        "tags": ["moderation"],
        "schemaVersion": 41,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "annotations": {"list": [fired]},
        "links": [others],
        "templating": {"list": [source, job]},
        "panels": list(panels(said["rows"])),
    }


def dashboards() -> dict[Path, str]:
    """Every dashboard and its text."""
    said = yaml.safe_load((HERE / "dashboards.yaml").read_text())
    return {
        FOLDER / f"{name}.json": json.dumps(dashboard(name, each), indent=1) + "\n"
        for name, each in said.items()
    }


def main() -> None:
    """Write, or check, the dashboards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    stale = put(dashboards(), given.check)
    sys.exit(1 if given.check and stale else 0)


if __name__ == "__main__":
    main()
