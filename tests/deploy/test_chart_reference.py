"""Nothing about the chart is written twice: what is generated is up to date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from deploy.chart_reference import CHART, documented, leaves, outputs, values
from tests.support.tools import helm


def test_generated_files_are_up_to_date() -> None:
    """Mend with: python -m deploy.chart_reference --helm PATH-OF-HELM"""
    stale = [p.name for p, text in outputs(helm()).items() if p.read_text() != text]
    assert stale == []


def test_every_value_is_documented_and_every_comment_belongs_to_a_value() -> None:
    text = (CHART / "values.yaml").read_text()
    paths = {path for path, _ in documented(text)}
    assert {value.path for value in values()} == paths
    assert set(leaves(yaml.safe_load(text), paths)) == paths
    assert text.count("# -- ") == len(paths)


def test_a_value_without_a_comment_is_found(tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    with (chart / "values.yaml").open("a") as file:
        file.write("extra:\n  thing: 1\n")
    with pytest.raises(SystemExit, match=r"extra\.thing"):
        values(chart)


def test_the_schema_is_valid_and_accepts_the_defaults() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(defaults))


def test_the_schema_closes_every_object_it_lists_properties_of() -> None:
    """An open object would let a misspelt value through."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert open_objects(schema, "values") == []


def open_objects(node: object, path: str) -> list[str]:
    """Paths of objects with properties that accept others."""
    if isinstance(node, list):
        return [hit for i, each in enumerate(node) for hit in open_objects(each, f"{path}.{i}")]
    if not isinstance(node, dict):
        return []
    opened = [path] if "properties" in node and node.get("type") == "object" else []
    hits = [] if node.get("additionalProperties") is False else opened
    return hits + [hit for key, each in node.items() for hit in open_objects(each, f"{path}.{key}")]
