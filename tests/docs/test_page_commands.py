"""Every command that a page tells a reader to type exists, with the options it gives."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.support.commands import in_page, problem
from tests.support.pages import markdown_pages, name_of
from tests.support.tools import REPOSITORY
from worker.cli import COMMANDS, TOOLS

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
MAKE = re.compile(r"(?:^|`|\$ )make ([a-z]+)", re.MULTILINE)
MODULE = re.compile(r"python -m ((?:worker|moderation_tools|deploy|tests)[a-z._]*)")
ARGS = re.compile(r'ARGS="([^"]*)"')


@pytest.mark.parametrize("page", markdown_pages(), ids=name_of)
def test_every_command_of_a_page_exists(page: Path) -> None:
    """A reader who copies it gets past the argument parser."""
    text = page.read_text(encoding="utf-8")

    assert [found for found in map(problem, in_page(text)) if found] == []
    assert [target for target in MAKE.findall(text) if target not in TARGETS] == []
    assert [name for name in MODULE.findall(text) if not importlib.util.find_spec(name)] == []


@pytest.mark.parametrize("page", markdown_pages(), ids=name_of)
def test_every_test_that_a_page_runs_exists(page: Path) -> None:
    """``make test ARGS="…"`` names files and tests that are there."""
    for arguments in ARGS.findall(page.read_text(encoding="utf-8")):
        for argument in arguments.split():
            file, _, test = argument.partition("::")
            if file.startswith("tests/"):
                assert (REPOSITORY / file).exists(), argument
                assert not test or f"def {test}(" in (REPOSITORY / file).read_text(), argument


def test_the_readme_lists_every_command() -> None:
    """A command nobody hears of is not there."""
    table = README.split("## Commands")[1].split("\n## ")[0]

    commands = [f"`moderation-worker {name} " for name in (*COMMANDS, *TOOLS)]
    targets = [f"`make {name}`" for name in TARGETS if name not in ("help", "clean")]

    assert [each for each in commands + targets if each not in table] == []


def test_the_check_reads_prompts_sentences_and_blocks() -> None:
    """Were the patterns to miss a form of writing, nothing would be checked."""
    page = (
        "Run `moderation-worker juge`.\n"
        "```sh\nmoderation-worker judge --txt x < file\n```\n"
        "```console\n$ moderation-worker demo --once | head -1\nmoderation-worker says\n```\n"
    )

    found = [problem(each) for each in in_page(page)]

    assert found[1:] == [None, "no command 'juge' in 'juge'"]
    assert "No such option" in str(found[0])
