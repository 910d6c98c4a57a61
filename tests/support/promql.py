"""Which metrics and labels a PromQL expression asks for, by a real PromQL parser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import promql_parser
import yaml

from tests.support.measured import label_of, name_of
from tests.support.tools import REPOSITORY
from worker.telemetry.instruments import Counter, Histogram, instruments

SCRAPED = {"job", "instance", "namespace", "pod", "container"}
"""Labels that come from scraping, not from the worker."""
_KEDA = SCRAPED | {"metric", "scaledObject", "scaler", "triggerIndex", "type"}
FOREIGN = {
    "kube_pod_container_status_restarts_total": SCRAPED,
    "kube_pod_init_container_status_restarts_total": SCRAPED,
    "kube_pod_status_phase": SCRAPED | {"phase"},
    "keda_scaler_metrics_value": _KEDA,
    "keda_scaler_detail_errors_total": _KEDA,
}
"""Metrics of kube-state-metrics and of KEDA 2.17 that alerts may use."""
_BY = re.compile(r"by \(([^)]*)\)")
GRAFANA = re.compile(r"\$__rate_interval|\$__interval")


class Use(NamedTuple):
    """One metric in an expression, and the labels it is selected or summed by."""

    metric: str
    labels: frozenset[str]


def served() -> dict[str, set[str]]:
    """Every metric name of ``/metrics`` and the labels it may have."""
    names: dict[str, set[str]] = {}
    for each in instruments():
        labels = {label_of(label) for label in each.labels} | SCRAPED
        base = name_of(each.name, each.unit)
        if isinstance(each, Histogram):
            names |= {f"{base}_bucket": labels | {"le"}}
            names |= {f"{base}_sum": labels, f"{base}_count": labels}
        else:
            names[f"{base}_total" if isinstance(each, Counter) else base] = labels
    return names | FOREIGN | recorded()


def recorded() -> dict[str, set[str]]:
    """What the recording rules add, with the labels that they keep."""
    groups = yaml.safe_load((REPOSITORY / "deploy" / "prometheus" / "alerts.yaml").read_text())
    rules = [rule for group in groups["groups"] for rule in group["rules"] if "record" in rule]
    return {
        rule["record"]: {label.strip() for label in _BY.findall(rule["expr"])[0].split(",")}
        for rule in rules
    }


def uses(expression: str) -> list[Use]:
    """Metrics and labels of an expression.

    Raises:
        ValueError: it is not PromQL.
    """
    tree = promql_parser.parse(GRAFANA.sub("5m", expression))
    return list(_uses(tree, frozenset()))


def _uses(node: object, grouped: frozenset[str]) -> Iterator[Use]:
    match node:
        case promql_parser.VectorSelector():
            matched = {each.name for each in node.matchers.matchers}
            yield Use(str(node.name), grouped | matched)
        case promql_parser.MatrixSelector():
            yield from _uses(node.vector_selector, grouped)
        case promql_parser.AggregateExpr():
            by = frozenset(node.modifier.labels) if node.modifier else frozenset()
            yield from _uses(node.expr, grouped | by)
        case promql_parser.BinaryExpr():
            yield from _uses(node.lhs, grouped)
            yield from _uses(node.rhs, grouped)
        case promql_parser.Call():
            for each in node.args:
                yield from _uses(each, grouped)
        case promql_parser.ParenExpr() | promql_parser.SubqueryExpr() | promql_parser.UnaryExpr():
            yield from _uses(node.expr, grouped)


def unknown(expression: str) -> list[str]:
    """What the expression asks for and no worker serves, in words; empty when all is well."""
    names, problems = served(), []
    found = uses(expression)
    if not found:
        problems.append(f"no metric at all in {expression!r}")
    for use in found:
        if use.metric not in names:
            problems.append(f"no metric {use.metric}")
        else:
            missing = use.labels - names[use.metric]
            problems += [f"{use.metric} has no label {each}" for each in sorted(missing)]
    return problems
