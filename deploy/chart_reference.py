"""Writes what follows from the chart's values.yaml: its schema, its reference, compose's alerts.

``python -m deploy.chart_reference`` writes; ``--check`` only says what is out of date and exits 1.
``--helm PATH`` names a helm, which the alerts need; without it they are left as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from deploy.chart_schema import OVERRIDES, settings_schema

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "helm" / "moderation-worker"
MARK = "# -- "
COMPOSE_JOB = "moderation-worker"
"""Label ``job`` of the workers that compose's Prometheus scrapes."""


class Value(NamedTuple):
    """One documented value: dotted path, text of its comment, default."""

    path: str
    text: str
    default: Any


def documented(text: str) -> Iterator[tuple[str, str]]:
    """Dotted path and text of every ``# --`` comment, in file order."""
    parents: list[tuple[int, str]] = []
    comment: list[str] | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith(MARK):
            comment = [stripped.removeprefix(MARK)]
        elif stripped.startswith("#") and comment is not None:
            comment.append(stripped.removeprefix("#").strip())
        elif stripped and not stripped.startswith(("#", "-")) and ":" in stripped:
            indent = len(line) - len(line.lstrip())
            parents = [parent for parent in parents if parent[0] < indent]
            parents.append((indent, stripped.split(":", 1)[0]))
            if comment is not None:
                yield ".".join(name for _, name in parents), " ".join(comment)
            comment = None


def leaves(tree: Mapping[str, Any], documented_paths: set[str], prefix: str = "") -> Iterator[str]:
    """Paths that need a comment: everything down to the first documented path of a branch."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and path not in documented_paths:
            yield from leaves(value, documented_paths, f"{path}.")
        else:
            yield path


def values(chart: Path = CHART) -> list[Value]:
    """Every value of the chart. Raises ``SystemExit`` naming those without a comment."""
    text = (chart / "values.yaml").read_text()
    tree = yaml.safe_load(text)
    comments = dict(documented(text))
    missing = [path for path in leaves(tree, set(comments)) if path not in comments]
    if missing:
        sys.exit(f"values.yaml: no '{MARK}' comment above {', '.join(missing)}")
    return [Value(path, comments[path], lookup(tree, path)) for path in comments]


def lookup(tree: Any, path: str) -> Any:
    """The value at a dotted path."""
    for key in path.split("."):
        tree = tree[key]
    return tree


def schema(found: list[Value]) -> dict[str, Any]:
    """JSON Schema of the values; objects are closed, so a typo is refused by ``helm``."""
    definitions, settings = settings_schema()
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the moderation-worker chart",
        **closed(),
        "$defs": definitions,
    }
    for value in found:
        *parents, name = value.path.split(".")
        node = root
        for parent in parents:
            node = node["properties"].setdefault(parent, closed())
        own = settings if value.path == "settings" else typed(value)
        node["properties"][name] = {"description": value.text, **own}
    root["properties"]["global"] = {"type": "object", "description": "Helm's own; not used."}
    return root


def closed() -> dict[str, Any]:
    """An object that refuses properties it does not list."""
    return {"type": "object", "additionalProperties": False, "properties": {}}


def typed(value: Value) -> dict[str, Any]:
    """Schema of one value: by hand where its default does not say enough, else by its default."""
    if value.path in OVERRIDES:
        return OVERRIDES[value.path]
    match value.default:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer", "minimum": 0}
        case float():
            return {"type": "number", "minimum": 0}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array"}
        case _:
            return {"type": "object"}


def readme(found: list[Value]) -> str:
    """The chart's README: how to install it, and every value."""
    intro = (HERE / "chart_readme.md").read_text()
    rows = [f"| `{v.path}` | {v.text} | `{shown(v)}` |" for v in found]
    return "\n".join(
        [intro, "| value | what it does | default |", "| --- | --- | --- |", *rows, ""]
    )


def shown(value: Value) -> str:
    """A default in one line; a tree is said to be one."""
    text = json.dumps(value.default)
    return text if len(text) < 70 else "see values.yaml"


def alerts(helm: Path) -> str:
    """The chart's alerts with their default thresholds, as a rule file of Prometheus."""
    command = [str(helm), "template", "moderation", str(CHART), "--kube-version", "1.34.0"]
    command += ["--values", f"{CHART}/ci/default-values.yaml", "--set", "alerts.enabled=true"]
    command += ["--set", f"alerts.job={COMPOSE_JOB}"]
    command += ["--show-only", "templates/prometheusrule.yaml"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    head = "# Generated by deploy.chart_reference from the chart: edit templates/_alerts.tpl.\n"
    return head + yaml.safe_dump(yaml.safe_load(rendered)["spec"], sort_keys=False, width=100)


def outputs(helm: Path | None = None) -> dict[Path, str]:
    """Every generated file and its text."""
    found = values()
    made = {HERE / "prometheus" / "alerts.yaml": alerts(helm)} if helm else {}
    return made | {
        CHART / "values.schema.json": json.dumps(schema(found), indent=2) + "\n",
        CHART / "README.md": readme(found),
    }


def put(made: Mapping[Path, str], check: bool) -> list[Path]:
    """Write what differs, or only say so; returns what differed."""
    stale = [path for path, text in made.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if not check:
            path.write_text(made[path])
        state = "out of date" if check else "wrote"
        sys.stdout.write(f"{state}: {path.relative_to(HERE.parent)}\n")
    return stale


def main() -> None:
    """Write, or check, the generated files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--helm", type=Path)
    given = parser.parse_args()
    stale = put(outputs(), given.check)
    if given.helm:  # which reads the schema, so that has to be written before
        stale += put(outputs(given.helm), given.check)
    sys.exit(1 if given.check and stale else 0)


if __name__ == "__main__":
    main()
