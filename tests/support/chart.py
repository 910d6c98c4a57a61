"""Renders the Helm chart with the real ``helm`` and looks into what came out."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from deploy.chart_reference import CHART
from tests.support.tools import helm

Manifest = dict[str, Any]
KUBERNETES = "1.34.0"
_FRACTION = re.compile(r"=\d+\.\d+$")
VALUE_SETS = tuple(sorted(path.stem.removesuffix("-values") for path in CHART.glob("ci/*.yaml")))


class Refused(Exception):
    """``helm`` refused the values; the message is what the user reads."""


@functools.cache
def render_text(values: str, sets: tuple[str, ...] = (), chart: Path = CHART) -> str:
    """Everything ``helm template`` prints.

    Raises:
        Refused: with helm's message.
    """
    command = [str(helm()), "template", "rel", str(chart), "--namespace", "moderation"]
    command += ["--kube-version", KUBERNETES]
    command += ["--values", str(CHART / "ci" / f"{values}-values.yaml")]
    for each in sets:  # helm's --set knows no fractions
        command += ["--set-json" if _FRACTION.search(each) else "--set", each]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render_notes(values: str, folder: Path) -> str:
    """NOTES.txt, which ``helm template`` leaves out: rendered in a copy of the chart, as data."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text()
    (chart / "templates" / "notes.yaml").write_text(
        f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}'
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n"
        'data:\n  notes: |\n{{ include "notes" . | indent 4 }}\n'
    )
    text = render_text(values, (), chart)
    manifests = [each for each in yaml.safe_load_all(text) if each]
    found = next(each for each in manifests if each["metadata"]["name"] == "notes")
    return str(found["data"]["notes"])


def render(values: str, *sets: str) -> list[Manifest]:
    """All manifests for a value set of the chart's ``ci/`` folder, with ``--set`` arguments."""
    return [each for each in yaml.safe_load_all(render_text(values, sets)) if each]


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    """The manifests of one kind."""
    return [each for each in manifests if each["kind"] == kind]


def only(manifests: Iterable[Manifest], kind: str) -> Manifest:
    """The one manifest of a kind."""
    (found,) = of_kind(manifests, kind)
    return found


def pod_spec(manifests: Iterable[Manifest]) -> Manifest:
    """The pod of the Deployment."""
    spec: Manifest = only(manifests, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(manifests: Iterable[Manifest]) -> Manifest:
    """The worker's container."""
    (found,) = pod_spec(manifests)["containers"]
    return dict(found)


def worker_yaml(manifests: Iterable[Manifest]) -> str:
    """The worker's settings file."""
    for each in of_kind(manifests, "ConfigMap"):
        if "worker.yaml" in each["data"]:
            return str(each["data"]["worker.yaml"])
    raise AssertionError("no ConfigMap holds worker.yaml")
