"""Collecting every problem of a policy file, each with its line, field and fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from worker.errors import PolicyError

Where = tuple[str | int, ...]
"""A place in a file: ``("custom", "taxonomy", 2, "name")``."""


class Problems:
    """The problems of one file. Nothing is raised before everything was looked at."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Where, int] = {}
        self.found: list[PolicyError] = []
        self._places: dict[Where, Where] = {}

    def place(self, kept: Where, given: Where) -> None:
        """Remember where an entry of a value stands in the file, where some were left out."""
        self._places[kept] = self._places.get(given, given)

    def add(self, where: Where, problem: str, fix: str) -> None:
        """Report a problem at a field; a field that is not there is reported at its parent."""
        for end in range(len(where), 0, -1):
            given = self._places.get(where[:end])
            if given is not None:
                where = (*given, *where[end:])
                break
        nearest = where
        while nearest and nearest not in self.lines:
            nearest = nearest[:-1]
        self.at(self.lines.get(nearest, 1), where, problem, fix)

    def at(self, line: int, where: Where, problem: str, fix: str) -> None:
        """Report a problem at a line."""
        self.found.append(
            PolicyError(problem, fix=fix, file=self.file, line=line, field=dotted(where))
        )

    def raise_any(self) -> None:
        """Raise one ``PolicyError`` for everything found, in file order, if anything was."""
        if self.found:
            raise PolicyError.of(sorted(self.found, key=lambda problem: problem.line))


def dotted(where: Where) -> str:
    """``custom.taxonomy[2].name``, as people write it."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def suggestion(given: str, known: Iterable[str]) -> str:
    """``Did you mean X?``, or the known values where nothing is near."""
    names = list(known)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(given.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{folded[near[0]]}`?"
    return f"Known: {', '.join(names)}."
