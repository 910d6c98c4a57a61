"""The tables of codes in docs/contracts.md, made from the enumerations."""

from __future__ import annotations

from enum import StrEnum

from worker.contracts.codes import DeadLetterCode, SkippedReasoning, UndecidedReason
from worker.contracts.field_docs import field_docs

_TABLES: tuple[tuple[str, type[StrEnum]], ...] = (
    ("Dead letter codes", DeadLetterCode),
    ("Undecided reasons", UndecidedReason),
    ("Skipped reasoning", SkippedReasoning),
)


def code_tables() -> str:
    """Markdown: a heading and a table for every enumeration of codes."""
    return "\n".join(_table(title, codes) for title, codes in _TABLES)


def _table(title: str, codes: type[StrEnum]) -> str:
    docs = field_docs(codes)
    rows = [f"| `{code.value}` | {docs[code.name]} |" for code in codes]
    return "\n".join([f"### {title}", "", "| code | meaning |", "| --- | --- |", *rows, ""])
