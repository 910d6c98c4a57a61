"""Every command the chart, the compose file and the operations guide give is one that exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.chart import VALUE_SETS, of_kind, render, render_notes
from tests.support.commands import in_script, in_text, problem
from tests.support.tools import REPOSITORY
from worker.judge.watchdog import HUNG_DEVICE_EXIT

GUIDE = REPOSITORY / "docs" / "operations.md"


@pytest.mark.parametrize("values", VALUE_SETS)
def test_every_command_of_the_chart_exists(values: str) -> None:
    for manifest in [m for kind in ("Deployment", "Job") for m in of_kind(render(values), kind)]:
        for each in manifest["spec"]["template"]["spec"]["containers"]:
            program, *arguments = each["command"]
            assert program == "moderation-worker"
            assert problem(arguments) is None


@pytest.mark.parametrize("values", VALUE_SETS)
def test_every_command_of_the_notes_exists(values: str, tmp_path: Path) -> None:
    found = list(in_script(render_notes(values, tmp_path)))
    assert found
    assert [each for each in map(problem, found) if each] == []


@pytest.mark.parametrize("name", ["worker", "topics", "producer"])
def test_every_command_of_compose_exists(compose: dict[str, Any], name: str) -> None:
    command = compose["services"][name]["command"]
    arguments = shlex.split(command) if isinstance(command, str) else command
    assert problem(arguments) is None


def test_every_command_of_the_guide_exists() -> None:
    text = GUIDE.read_text()
    found = [*in_text(text), *(shlex.split(each) for each in INLINE.findall(text))]
    assert len(found) > 5
    assert [each for each in map(problem, found) if each] == []


INLINE = re.compile(r"`moderation-worker ([a-z][a-z ]*)`")


def test_the_check_finds_commands_and_options_that_do_not_exist() -> None:
    assert problem(["judge", "--text", "hello"]) is None
    assert problem(["juge"]) == "no command 'juge' in 'juge'"
    assert "No such option" in str(problem(["judge", "--txt", "hello"]))
    assert problem(["judge", "this"]) == "judge: too much: this"


def test_the_guide_names_the_exit_code_the_watchdog_uses() -> None:
    assert f"\n| {HUNG_DEVICE_EXIT} | a batch was on the device" in GUIDE.read_text()


def test_every_link_of_the_guide_leads_somewhere() -> None:
    text = GUIDE.read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", each.lower()).replace(" ", "-")
        for each in re.findall(r"^## (.+)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        page, _, anchor = target.partition("#")
        assert (GUIDE.parent / page).exists() if page else anchor in headings, target
