"""Every relative link of every page leads to a file, and to a heading where it names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.pages import anchors, links, markdown_pages, name_of
from tests.support.tools import REPOSITORY

PATHS = re.compile(r"`((?:worker|tests|docs|policies|schemas|helm|deploy|examples)/[^`\s*:]*)`")


@pytest.mark.parametrize("page", markdown_pages(), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Links to other sites are not ours to hold."""
    for target in links(page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        goal = page.parent / file if file else page
        assert goal.exists(), target
        if anchor:
            assert anchor in anchors(goal.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", markdown_pages(), ids=name_of)
def test_every_path_that_is_named_is_there(page: Path) -> None:
    """A file that moved takes its mentions with it."""
    text = page.read_text(encoding="utf-8")

    assert [path for path in PATHS.findall(text) if not (REPOSITORY / path).exists()] == []


def test_the_readme_leads_to_every_page_of_the_documentation() -> None:
    """A page that nothing leads to is not read."""
    linked = set(links((REPOSITORY / "README.md").read_text(encoding="utf-8")))
    pages = [name_of(page) for page in markdown_pages() if page.parent == REPOSITORY / "docs"]

    assert [page for page in pages if page not in linked] == []
