"""docs/contracts.md says what the commands in it print, and documents every code and header."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.cli.schema import schema
from worker.codes import DeadLetterCode, SkippedReasoning, UndecidedReason
from worker.contracts import limits
from worker.contracts.schema import code_tables
from worker.records import Header

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
SESSIONS = re.findall(r"```console\n\$ (.*?)\n(.*?)```", PAGE, re.DOTALL)


def shell(command: str) -> str:
    """What the command prints, run at the root with this environment's commands first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout


def test_the_page_shows_commands() -> None:
    """The pattern that finds them still fits the page."""
    assert len(SESSIONS) == PAGE.count("```console") >= 10


@pytest.mark.parametrize(("command", "printed"), SESSIONS, ids=[each[0][:60] for each in SESSIONS])
def test_every_command_of_the_page_prints_what_the_page_shows(command: str, printed: str) -> None:
    """Run as a reader would."""
    assert shell(command) == printed


def test_the_tables_of_codes_are_those_of_the_enumerations() -> None:
    """After a change: replace them by what ``moderation-worker schema codes`` prints."""
    assert PAGE.endswith(code_tables())
    printed = CliRunner().invoke(schema, ["codes"])
    assert printed.output == code_tables()


@pytest.mark.parametrize("code", [*DeadLetterCode, *UndecidedReason, *SkippedReasoning])
def test_every_code_is_documented_with_a_meaning(code: str) -> None:
    """A code nobody can look up is of no use."""
    assert re.search(rf"^\| `{code}` \| .{{10,}} \|$", PAGE, re.MULTILINE)


def test_every_dead_letter_header_is_documented() -> None:
    """By its full name, or by its ending in a list of them."""
    names = [
        value
        for name, value in vars(Header).items()
        if name.startswith("DEAD_LETTER_") and name != "DEAD_LETTER_PREFIX"
    ]
    assert len(names) == 11
    for name in names:
        ending = name.removeprefix(Header.DEAD_LETTER_PREFIX)
        assert f"`{name}`" in PAGE or f"`.{ending}`" in PAGE


@pytest.mark.parametrize(
    "bound",
    [
        limits.MAX_ID_CHARS,
        limits.MAX_MESSAGES,
        limits.MAX_TEXT_CHARS,
        limits.MAX_URI_CHARS,
        limits.MAX_VERSION_ID_CHARS,
        limits.MAX_TIME_CHARS,
        limits.MAX_DEPTH,
        limits.MAX_VALUES,
    ],
)
def test_the_bounds_of_the_page_are_those_of_the_worker(bound: int) -> None:
    """Numbers are written with commas."""
    assert re.search(rf"\b{bound:,}\b", PAGE)


def test_every_link_of_the_page_leads_to_a_file_or_a_heading() -> None:
    """Relative links only; the others are not ours."""
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in PAGE.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (ROOT / "docs" / target).exists(), target


def test_schema_export_writes_and_checks(tmp_path: Path) -> None:
    """``--check`` fails and names what differs, and writes nothing."""
    run = CliRunner().invoke
    out = str(tmp_path / "schemas")
    missing = run(schema, ["export", "--check", "--out", out])
    assert (missing.exit_code, "verdict.v1.schema.json differs" in missing.output) == (1, True)
    assert not (tmp_path / "schemas").exists()
    assert run(schema, ["export", "--out", out]).exit_code == 0
    assert run(schema, ["export", "--check", "--out", out]).exit_code == 0


def test_schema_decode_refuses_a_header_without_a_value() -> None:
    """A mistyped option is not silently dropped."""
    result = CliRunner().invoke(schema, ["decode", "--header", "ce_id"], input="{}")
    assert result.exit_code == 2
