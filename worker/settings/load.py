"""A YAML settings file with the lines of its fields, and what is wrong with settings, in words."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from worker.errors import ConfigurationError

# The YAML settings file: plain values that remember their lines, and a message for what is wrong.
#
# Messages name lines and fields and never repeat a value: a settings file may hold a password.

Where = tuple[str, ...]


class SettingsFile(NamedTuple):
    """What a file says: ``values`` by section, and the line (from 1) of each field."""

    values: dict[str, Any]
    lines: dict[Where, int]


def read_settings_file(file: Path) -> SettingsFile:
    """Read ``file``; an empty one sets nothing.

    Raises:
        ConfigurationError: it cannot be read, is no YAML, no mapping, or gives a field twice.
    """
    if not file.is_file():
        raise ConfigurationError(f"{file}: no such file; name a YAML file or leave --config out")
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return SettingsFile({}, {})
        if not isinstance(root, yaml.MappingNode):
            raise ConfigurationError(
                f"{file}: not a mapping of sections; begin with one, such as `kafka:`"
            )
        lines = dict(_lines(root, (), file))
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ConfigurationError(
            f"{where}: not YAML; mend it there (indentation, brackets; values with `: `, `#`, "
            "`@`, `*`, `&` or `!` need quotes)"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        kind = type(error).__name__
        raise ConfigurationError(
            f"{file}: cannot be read ({kind}); name a YAML file in UTF-8"
        ) from None
    return SettingsFile(values, lines)


def _lines(node: yaml.MappingNode, above: Where, file: Path) -> Iterator[tuple[Where, int]]:
    """Every field's line; a field given twice is refused, since one of the two would not count."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = str(key.value)
        where = (*above, name)
        if name in seen:
            raise ConfigurationError(
                f"{file}:{line}: {'.'.join(where)} stands in line {seen[name]} already; "
                "keep one of the two"
            )
        seen[name] = line
        yield where, line
        if isinstance(value, yaml.MappingNode) and len(where) < 8:
            yield from _lines(value, where, file)


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
