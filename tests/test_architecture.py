"""The house rules that a reader relies on: who may import what, and how long a file may be."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "worker"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
MAX_MEDIAN = 120

ROOMS = {
    "torch": ("judge", "training"),
    "transformers": ("judge", "training"),
    "peft": ("judge", "training"),
    "faust": ("stream", "app.py", "cli/run.py"),
    "mode": ("stream", "app.py"),
    "aiokafka": ("stream",),
    "boto3": ("media",),
    "botocore": ("media",),
}
"""Libraries and the only places that may import them. Benches measure all of them: they may too."""


def imports(file: Path) -> Iterator[str]:
    """Every module a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("library", ROOMS)
def test_a_library_is_imported_only_in_its_room(library: str) -> None:
    allowed = (*ROOMS[library], "bench")
    strays = [
        room(file)
        for file in FILES
        if any(name.partition(".")[0] == library for name in imports(file))
        and not room(file).startswith(allowed)
    ]
    assert strays == []


def test_nothing_imports_the_app_but_commands_and_benches() -> None:
    importers = {room(file) for file in FILES if "worker.app" in set(imports(file))}
    assert {name for name in importers if not name.startswith(("cli/", "bench/"))} == set()


def test_the_way_through_the_house_has_one_direction() -> None:
    """Contracts know nothing but values; decisions know no log, no store and no command."""
    forbidden = {
        "contracts": ("worker.policy", "worker.media", "worker.judge", "worker.outcome"),
        "outcome": ("worker.stream", "worker.cli", "worker.web", "worker.telemetry"),
        "policy": ("worker.stream", "worker.media", "worker.outcome", "worker.cli"),
        "stream": ("worker.policy", "worker.media", "worker.judge", "worker.outcome"),
    }
    strays = [
        f"{room(file)} imports {name}"
        for file in FILES
        for name in imports(file)
        if name.startswith(forbidden.get(room(file).partition("/")[0], ()))
        and forbidden.get(room(file).partition("/")[0])
    ]
    assert strays == []


def test_no_file_is_too_long_to_read() -> None:
    lengths = {room(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
    assert statistics.median(lengths.values()) <= MAX_MEDIAN


def test_every_module_says_what_it_holds() -> None:
    silent = [
        room(file)
        for file in FILES
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert silent == []
