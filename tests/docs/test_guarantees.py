"""Every promise names tests that exist, and what its commands show is what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tools import REPOSITORY

PAGES = {name: REPOSITORY / "docs" / f"{name}.md" for name in ("guarantees", "performance")}
TEXT = PAGES["guarantees"].read_text(encoding="utf-8")
TEST_ID = re.compile(r"`(tests/[^`:]+\.py)::(\w+)`")
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
TYPED = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
SHOWN = [
    pytest.param(command, printed, id=command[:50])
    for page in PAGES.values()
    for block in CONSOLE.findall(page.read_text(encoding="utf-8"))
    for command, printed in TYPED.findall(block)
]
PROMISES = re.split(r"^## (?=\d)", TEXT, flags=re.MULTILINE)[1:]


def test_there_are_seven_promises() -> None:
    """Each with what is promised, where it ends, what proves it and how to see it."""
    assert [promise[0] for promise in PROMISES] == list("1234567")
    for promise in PROMISES:
        for part in ("**Promised.**", "**Where it ends", "**Proved by**", "**See it"):
            assert part in promise, promise.split("\n")[0]


@pytest.mark.parametrize("promise", PROMISES, ids=[each.split("\n")[0] for each in PROMISES])
def test_every_promise_names_tests_and_they_exist(promise: str) -> None:
    """A test that is renamed takes its promise with it."""
    named = TEST_ID.findall(promise)

    assert len(named) >= 3
    assert len(named) == promise.count("`tests/")
    for file, test in named:
        path = REPOSITORY / file
        assert path.is_file(), file
        assert re.search(rf"^\s*(async )?def {test}\(", path.read_text(), re.MULTILINE), test


@pytest.mark.parametrize(("command", "printed"), SHOWN)
def test_every_command_prints_what_the_page_shows(
    command: str, printed: str, tmp_path: Path
) -> None:
    """Run as the page says: with the scripted judge, in a directory of the reader's own."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MODERATION_JUDGE__BACKEND": "scripted",
            "MODERATION_STORE__BACKEND": "directory",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout == printed


def test_the_pages_show_commands() -> None:
    """The patterns that find them still fit the pages."""
    assert len(SHOWN) >= 7
