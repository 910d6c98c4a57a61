"""The YAML settings file: plain values that remember their lines, and a message for what is wrong.

Messages name lines and fields and never repeat a value: a settings file may hold a password.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from worker.errors import ConfigurationError

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
