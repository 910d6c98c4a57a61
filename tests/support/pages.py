"""The written pages of the repository, and what tests look for in them."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

from tests.support.tools import REPOSITORY

_BLOCK = re.compile(r"^[ ]*```.*?^[ ]*```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file of the repository that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    files = {REPOSITORY / name for name in listed.split("\0") if name}
    return tuple(sorted(file for file in files if file.is_file()))


def markdown_pages() -> tuple[Path, ...]:
    """Every Markdown page."""
    return tuple(file for file in repository_files() if file.suffix == ".md")


def name_of(page: Path) -> str:
    """A page by its path in the repository, as tests print it."""
    return page.relative_to(REPOSITORY).as_posix()


def links(text: str) -> list[str]:
    """Targets of the links outside of code blocks."""
    return _LINK.findall(_BLOCK.sub("", text))


def anchors(text: str) -> set[str]:
    """What ``#`` links into a page can name: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a language, without the indentation of a list they stand in."""
    found = re.findall(rf"^([ ]*)```{language}\n(.*?)^[ ]*```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]
