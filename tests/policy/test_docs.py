"""Promises of docs/policies.md: complete, and its console output is real."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from worker.cli.policy import policy_group
from worker.guard.taxonomy import BUILTIN
from worker.policy.floor import FLOOR_ACTION, FLOOR_SEVERITY, FLOOR_THRESHOLD
from worker.policy.model import (
    Actions,
    BuiltinPass,
    Candidate,
    CustomCategory,
    CustomPass,
    Example,
    Policy,
    Prefilter,
    PrefilterList,
    Think,
    Thresholds,
)
from worker.prefilter.pictures import DEFAULT_DISTANCE

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
NVIDIA = Path(__file__).parent / "data" / "nvidia-policy.json"
TEXT = PAGE.read_text(encoding="utf-8")
_YAML = re.compile(r"```yaml\n(# (\S+)\n.*?)```", re.DOTALL)
_CONSOLE = re.compile(r"```console\n\$ moderation-worker policy ([^\n]*)\n(.*?)```", re.DOTALL)

SECTIONS: dict[str, type[msgspec.Struct]] = {
    "### The policy": Policy,
    "### `builtin`": BuiltinPass,
    "### `custom`": CustomPass,
    "Each category of `taxonomy`:": CustomCategory,
    "### `think`": Think,
    "### `thresholds`": Thresholds,
    "### `actions`": Actions,
    "### `prefilter`": Prefilter,
    "Each list of `lists`:": PrefilterList,
    "### `candidate`": Candidate,
    "### `examples`": Example,
}


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_field_is_in_its_table(heading: str) -> None:
    """A field that is added without a line here fails, and so does a line without its field."""
    after = TEXT.split(f"\n{heading}\n", 1)[1].lstrip("\n")
    table = [line for line in after.split("\n\n")[0].split("\n") if line.startswith("| `")]
    fields = set(SECTIONS[heading].__struct_fields__) - {
        "sha256",
        "adapter_sha256",
        "file",
        "loaded",
    }
    if SECTIONS[heading] is Candidate:
        fields.add("file")

    assert {line.split("`")[1] for line in table} == fields


def defaults() -> list[tuple[str, str]]:
    return [
        ("max_tokens", f"| {Think().max_tokens} |"),
        ("deadline_ms", f"| {Think().deadline_ms} |"),
        ("band", f"`[{Think().band[0]}, {Think().band[1]}]`"),
        ("unsafe", f"| {Thresholds().unsafe} |"),
        ("default", f"| `{Actions().default}` |"),
        ("distance", f"| {DEFAULT_DISTANCE} |"),
        ("sample", "| 0.1 |"),
    ]


@pytest.mark.parametrize(("field", "default"), defaults())
def test_documented_defaults_are_the_real_ones(field: str, default: str) -> None:
    """Tables and types agree."""
    lines = [line for line in TEXT.split("\n") if line.startswith(f"| `{field}` |")]

    assert any(default in line for line in lines)


def test_every_built_in_category_is_listed_in_order() -> None:
    """Authors copy names from here."""
    assert ", ".join(BUILTIN) in TEXT


def test_the_floors_constants_are_stated() -> None:
    """Fixed values belong into the page."""
    stated = f"severity `{FLOOR_SEVERITY}`, action `{FLOOR_ACTION}`, and a threshold of "

    assert f"{stated}{FLOOR_THRESHOLD:g}" in TEXT


@pytest.mark.parametrize(("command", "shown"), _CONSOLE.findall(TEXT))
def test_console_output_is_real(
    command: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the page, run on the files of the page, prints what the page says."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(NVIDIA, tmp_path)
    for text, file in _YAML.findall(TEXT):
        (tmp_path / file).write_text(text, encoding="utf-8")

    assert shown == output_of(command)


def output_of(command: str) -> str:
    arguments: list[Any] = command.split()
    return CliRunner().invoke(policy_group(), arguments).output
