"""All names stand in one module, and the documentation says the same as the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import worker
from tests.support.measured import label_of, name_of
from tests.telemetry.documented import rows
from worker.telemetry import names
from worker.telemetry.instruments import Counter, Gauge, Histogram, Instrument, instruments

ROOT = Path(worker.__file__).parent
MAKERS = frozenset(
    {
        *("stage", "start_span", "start_as_current_span", "shared_span", "finished_span"),
        *("batch_span", "set_attribute", "Counter", "Histogram", "Gauge"),
    }
)


def values(holder: type) -> dict[str, str]:
    return {value: key for key, value in vars(holder).items() if not key.startswith("_")}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        if path != ROOT / "telemetry" / "names.py":
            yield path, ast.parse(path.read_text())


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_no_span_metric_or_attribute_is_named_in_place() -> None:
    """A name as a literal would escape the documentation and the promise about labels."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and called(node) in MAKERS
        and node.args
        and isinstance(node.args[0], (ast.Constant, ast.JoinedStr))
    ]
    assert found == []


def test_no_declared_name_is_written_a_second_time() -> None:
    """Dotted names exist once: a renamed attribute changes everywhere or nowhere."""
    declared = {each for each in values(names.Metric) | values(names.Attribute) if "." in each}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.value}"
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in declared
    ]
    assert found == []


def test_labels_are_declared_attributes_and_never_ids() -> None:
    """A label with a value for every event would cost a series for every event."""
    attributes = values(names.Attribute)
    for each in instruments():
        for label in each.labels:
            assert label in attributes
            assert label not in (names.Attribute.OFFSET, names.Attribute.VERDICT_ID)


@pytest.mark.parametrize(
    ("title", "holder"),
    [
        ("Spans", names.Span),
        ("Attributes", names.Attribute),
        ("Log fields", names.LogField),
        ("The line of an event", names.Canonical),
        ("Other fields", names.LogExtra),
    ],
)
def test_the_documentation_lists_exactly_the_names(title: str, holder: type) -> None:
    """Nothing undocumented, nothing documented that is not there, and each with a meaning."""
    table = rows(title)
    assert set(table) == set(values(holder))
    assert all(all(cells) for cells in table.values())


def kind(each: Instrument) -> str:
    return {Counter: "counter", Histogram: "histogram", Gauge: "gauge"}[type(each)]


def test_the_documentation_describes_every_metric() -> None:
    """Name in Prometheus, kind, unit and labels are those of the instruments."""
    table = rows("Metrics")
    assert set(table) == {each.name for each in instruments()}
    for each in instruments():
        prometheus, described, unit, labels, meaning = table[each.name]
        total = "_total" if isinstance(each, Counter) else ""
        assert prometheus.strip("`") == name_of(each.name, each.unit) + total
        assert described == kind(each)
        assert unit.strip("`") == each.unit
        assert re.findall(r"`([^`]+)`", labels) == [label_of(label) for label in each.labels]
        assert meaning
