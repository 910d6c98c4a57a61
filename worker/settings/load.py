"""A YAML settings file with the lines of its fields, and what is wrong with settings, in words."""

from __future__ import annotations

import copy
import difflib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from worker.document import Fault, Where, dotted, read_document
from worker.errors import ConfigurationError

logger = logging.getLogger(__name__)

# Messages name lines and fields and never repeat a value: a settings file may hold a password.


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
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        kind = type(error).__name__
        raise ConfigurationError(
            f"{file}: cannot be read ({kind}); name a YAML file in UTF-8"
        ) from None
    document = read_document(text, secret=True)
    if document.faults:
        raise ConfigurationError("\n".join(_fault(file, each) for each in document.faults))
    return SettingsFile(document.values, document.lines)


def _fault(file: Path, fault: Fault) -> str:
    where = f"{file}:{fault.line}" if fault.line else str(file)
    field = f"{dotted(fault.where)}: " if fault.where else ""
    said = f"{where}: {field}{fault.problem}. {fault.fix}"
    return f"{said}\n{fault.excerpt}" if fault.excerpt else said


# Settings that are gone are read for one more release, so that an upgrade starts.


class Retired(NamedTuple):
    """A setting that is no more: the one to use in its place, if any, and why."""

    path: str
    successor: str | None
    why: str


RETIRED: tuple[Retired, ...] = (
    Retired("stream.commit_max_events", None, "the bytes of a transaction are what bounds it"),
    *(
        Retired(f"judge.remote.{name}", None, "the circuit breaker finds its own measure")
        for name in ("retry_ratio", "breaker_failures", "breaker_initial_s", "breaker_max_s")
    ),
)
"""Each is taken out one release after it came in here."""


def without_retired(
    values: Mapping[str, Any], named: Callable[[Retired], str], retired: Iterable[Retired] = RETIRED
) -> dict[str, Any]:
    """``values`` (by section) with what is retired moved to its successor, or left out.

    ``named`` says what the setting is called where it was found. Each one is warned about.
    """
    kept = copy.deepcopy(dict(values))
    for each in retired:
        *above, name = each.path.split(".")
        section = _inner(kept, above)
        if section is None or name not in section:
            continue
        value = section.pop(name)
        use = f"use {each.successor}" if each.successor else "leave it out"
        logger.warning(
            "%s is retired and will be refused by the next release: %s; %s",
            named(each),
            each.why,
            use,
        )
        if each.successor:
            *place, last = each.successor.split(".")
            target: dict[str, Any] = kept
            for part in place:
                target = target.setdefault(part, {})
            target.setdefault(last, value)
    return kept


def _inner(values: dict[str, Any], path: Sequence[str]) -> dict[str, Any] | None:
    for part in path:
        inner = values.get(part)
        if not isinstance(inner, dict):
            return None
        values = inner
    return values


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


def variable_name(path: str) -> str:
    """The variable that sets ``kafka.group_id``: ``MODERATION_KAFKA__GROUP_ID``."""
    return (PREFIX + path.replace(".", DELIMITER)).upper()


def variable_of(where: Sequence[str]) -> str | None:
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
    named = dotted(where) or "combination"
    text = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = _fields(_section(tree, where[:-1]))
        text = f"no setting has this name{_near(where[-1], known)}"
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        text = f"this is a section: set fields of it, such as {_example(tree, where)}"
    return f"  {_source(where, file, lines)}{named}: {text}"


def _source(where: tuple[str, ...], file: Path | None, lines: Mapping[Where, int]) -> str:
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


def _section(tree: type[BaseModel], where: Sequence[str]) -> type[BaseModel] | None:
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


def _example(tree: type[BaseModel], where: tuple[str, ...]) -> str:
    names = list(_fields(_section(tree, where)))
    return f"`{'.'.join((*where, *names[:1]))}`"
