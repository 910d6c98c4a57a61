"""The tables of docs/telemetry.md."""

from __future__ import annotations

import re
from pathlib import Path

import worker

DOCS = Path(worker.__file__).parents[1] / "docs" / "telemetry.md"


def rows(title: str) -> dict[str, list[str]]:
    """A table of the documentation, by the code in its first column."""
    text = DOCS.read_text()
    section = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, f"docs/telemetry.md has no section {title}"
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.group(1).splitlines()
        if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}
