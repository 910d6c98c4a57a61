"""The repository stands alone: it refers to nothing that its reader cannot reach."""

from __future__ import annotations

import re

from tests.support.pages import name_of, repository_files

# A bracketed letter keeps a pattern from finding itself.
ELSEWHERE = {
    "a document that is not here": re.compile(
        r"DESIG[N](\.md|\s*§)|\b(platform|peers|nemotron)[.]md|\breferenc[e]/\w+\.md"
    ),
    "a tracker that is not here": re.compile(r"\b[Ii]ssue #?[0-9]|\bcloses? #[0-9]"),
    "a path of one machine": re.compile(r"(?<![\w.])/(wor[k]|roo[t]|home/\w+|Users/\w+)/"),
    "a host of one network": re.compile(
        r"https?://[^\s/\"']*(artifactor[y]|nexu[s]\.|\.interna[l]|\.cor[p]|pypi-mirro[r])"
    ),
    "who wrote it with what": re.compile(
        r"\b(AI|coding|sub-?) ?agen[t]s?\b|\b(this|another|earlier|previous) sessio[n]\b"
        r"|\blanguage model wrote\b|Co-[A]uthored-By",
        re.IGNORECASE,
    ),
}
UNREADABLE = frozenset({".safetensors", ".png", ".jpg", ".gif", ".webp", ".gz", ".bin"})


def test_nothing_refers_to_what_a_reader_cannot_reach() -> None:
    """Documents, trackers, machines and people that are not part of it are not named in it."""
    found = [
        f"{name_of(file)}:{number}: {what}: {line.strip()[:80]}"
        for file in repository_files()
        if file.suffix not in UNREADABLE
        for number, line in enumerate(
            file.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        )
        for what, pattern in ELSEWHERE.items()
        if pattern.search(line)
    ]

    assert found == []


def test_the_patterns_find_what_they_are_for() -> None:
    """A pattern that matches nothing would hold nothing."""
    for example, what in {
        "see DESIGN" + " §4": "a document that is not here",
        "fixed by issue" + " 12": "a tracker that is not here",
        "lies in /" + "work/main": "a path of one machine",
        "from https://pypi." + "corp/simple": "a host of one network",
        "written in an earlier " + "session": "who wrote it with what",
    }.items():
        assert ELSEWHERE[what].search(example), example
