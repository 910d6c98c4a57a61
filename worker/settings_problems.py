"""What is wrong with settings, in words: where each field was set, its name, and what to do."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from worker.settings_file import Where

PREFIX = "MODERATION_"
DELIMITER = "__"


def explain(
    error: ValidationError, tree: type[BaseModel], file: Path | None, lines: Mapping[Where, int]
) -> str:
    """Every problem of a validation, one a line, without the values."""
    problems = [
        _line(problem["type"], problem["loc"], problem["msg"], tree, file, lines)
        for problem in error.errors(include_url=False, include_input=False)
    ]
    return "\n".join(
        (f"settings cannot be used ({file or 'environment and defaults'}):", *problems)
    )


def unknown_variables(tree: type[BaseModel]) -> Iterator[str]:
    """Problems with variables that name no section: a typo there would be a silent default.

    Names without the delimiter are left alone: Kubernetes makes ``MODERATION_…_PORT`` of services.
    """
    sections = _fields(tree)
    for variable in sorted(os.environ):
        name, delimiter, _ = variable.upper().removeprefix(PREFIX).partition(DELIMITER)
        if not variable.upper().startswith(PREFIX) or not delimiter:
            continue
        if name.lower() not in sections:
            yield f"  {variable}: no section is named `{name.lower()}`{_near(name, sections)}"


def variable_of(where: Where) -> str | None:
    """The variable of the environment that sets a field or a part of it, if one does."""
    wanted = (PREFIX + DELIMITER.join(where)).upper()
    for variable in sorted(os.environ):
        name = variable.upper()
        if name == wanted or name.startswith(wanted + DELIMITER):
            return variable
    return None


def _line(
    kind: str,
    location: tuple[int | str, ...],
    message: str,
    tree: type[BaseModel],
    file: Path | None,
    lines: Mapping[Where, int],
) -> str:
    where = tuple(str(part) for part in location)
    named = ".".join(where) or "combination"
    text = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _fields(_section(tree, where[:-1]))
        text = f"no setting has this name{_near(where[-1], known)}"
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        text = f"this is a section: set fields of it, such as {_example(tree, where)}"
    return f"  {_source(where, file, lines)}{named}: {text}"


def _source(where: Where, file: Path | None, lines: Mapping[Where, int]) -> str:
    """Where a field was set: the environment stands over the file."""
    if not where:
        return ""
    variable = variable_of(where)
    if variable is not None:
        return f"{variable}: "
    for length in range(len(where), 0, -1):
        if line := lines.get(where[:length]):
            return f"{file}:{line}: "
    return ""


def _fields(section: type[BaseModel] | None) -> dict[str, Any]:
    return dict(section.model_fields) if section is not None else {}


def _section(tree: type[BaseModel], where: Where) -> type[BaseModel] | None:
    found: type[BaseModel] = tree
    for name in where:
        field = found.model_fields.get(name)
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return None
        found = kind
    return found


def _near(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(sorted(known))}"


def _example(tree: type[BaseModel], where: Where) -> str:
    names = list(_fields(_section(tree, where)))
    return f"`{'.'.join((*where, *names[:1]))}`"
