"""Files of a prefilter's lists: one entry a line, beside the policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from worker.errors import PolicyError
from worker.policy.bundle import LIST_SUFFIX
from worker.policy.fields import Fields

MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_ENTRIES = 100_000
_SHOWN = 20
"""Problems reported of one file; a file of another kind would have one in every line."""

EntryProblem = Callable[[str], tuple[str, str] | None]
"""What is wrong with an entry, and what to do; None where nothing is."""


class ListFile(NamedTuple):
    """A file's name as the policy gives it, and what it lists."""

    name: str | None
    entries: tuple[str, ...]


def read_list(fields: Fields, field: str, policy_file: str, wrong: EntryProblem) -> ListFile:
    """The file that ``field`` names, its entries without repeats; reports every bad line.

    Blank lines and lines that begin with ``#`` are no entries; ``\\#`` begins one with ``#``.
    """
    name = fields.text(field, limit=200)
    none = ListFile(name or None, ())
    if not name:
        return none
    if Path(name).name != name or Path(name).suffix != LIST_SUFFIX or name.startswith("."):
        fix = f"Name a *{LIST_SUFFIX} file that lies beside the policy, without a directory."
        fields.report(field, f"`{name}` is no list beside the policy", fix)
        return none
    path = Path(policy_file).parent / name
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        fields.report(field, f"`{name}` cannot be read: {error.strerror}", "Check the name.")
        return none
    if len(raw) > MAX_FILE_BYTES:
        fields.report(field, f"`{name}` is larger than {MAX_FILE_BYTES} bytes", "Split it up.")
        return none
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.object[: error.start].count(b"\n") + 1
        fields.report(field, f"`{name}` is not UTF-8 in line {at}", "Save it as UTF-8.")
        return none
    entries: dict[str, None] = {}
    found: list[PolicyError] = []
    for number, written in enumerate(text.split("\n"), 1):
        line = written.strip()
        if not line or line.startswith("#"):
            continue
        entry = line[1:] if line.startswith("\\#") else line
        problem = wrong(entry)
        if problem is not None:
            what, fix = problem
            found.append(PolicyError(what, fix=fix, file=str(path), line=number, field=field))
        entries[entry] = None
    fields.problems.found += found[:_SHOWN]
    if len(found) > _SHOWN:
        fields.report(field, f"`{name}` has {len(found)} bad lines", "Mend the ones shown first.")
    if not entries:
        fields.report(field, f"`{name}` has no entries", "Write one a line, or delete the field.")
    if len(entries) > MAX_ENTRIES:
        fields.report(field, f"`{name}` has more than {MAX_ENTRIES} entries", "Split it up.")
    return ListFile(name, tuple(entries))
