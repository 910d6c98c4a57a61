"""A policy file as plain values that remember their lines. Safe tags only, every size bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from worker.policy.fields import Problems, Where

MAX_BYTES = 512 * 1024
MAX_DEPTH = 12
MAX_VALUES = 20_000
"""Values after aliases are followed: what bounds a file of nested aliases."""

_SCALARS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")
}
_CONTAINERS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


def read_document(text: str, problems: Problems) -> dict[str, Any]:
    """The mapping a policy file holds; empty where it is none. Records lines and problems."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        problems.add((), f"the file is larger than {MAX_BYTES} bytes", "Split the policy up.")
        return {}
    try:
        if not _shallow(text, problems):
            return {}
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problems.at(mark.line + 1 if mark else 0, (), f"not YAML: {error.problem}", _YAML_FIX)
        return {}
    except (yaml.YAMLError, ValueError) as error:
        problems.add((), f"not YAML: {str(error).splitlines()[0]}", _YAML_FIX)
        return {}
    if not isinstance(root, yaml.MappingNode):
        problems.add((), "not a mapping of fields", "Begin with `name:`, see docs/policies.md.")
        return {}
    value = _Walk(problems).value(root, ())
    return value if isinstance(value, dict) else {}


_YAML_FIX = "Mend the YAML there; values with `: ` or `#` in them need quotes."


def _shallow(text: str, problems: Problems) -> bool:
    """Refuse deep nesting before anything recursive sees it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 0
            problems.at(line, (), f"nested more than {MAX_DEPTH} deep", "Flatten it.")
            return False
    return True


class _Walk:
    """One walk over the node graph. Aliases are followed, so a budget counts every value."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._left = MAX_VALUES
        self._scalars = SafeConstructor()

    def value(self, node: yaml.Node, path: Where) -> Any:
        self._left -= 1
        line = node.start_mark.line + 1
        self._problems.lines.setdefault(path, line)
        if self._left < 0:
            if self._left == -1:
                fix = "Write the values out instead of nesting aliases."
                self._problems.at(line, path, f"more than {MAX_VALUES} values", fix)
            return None
        if node.tag not in _SCALARS | _CONTAINERS:
            fix = "Policies hold text, numbers, true and false, lists and mappings only."
            self._problems.at(line, path, f"the YAML tag {node.tag!r} is not allowed", fix)
            return None
        if isinstance(node, yaml.MappingNode):
            return dict(self._entries(node, path))
        if isinstance(node, yaml.SequenceNode):
            if len(path) > MAX_DEPTH:
                return self._endless(line, path)
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        try:
            return self._scalars.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            self._problems.at(line, path, f"not a value: {reason}", "Put text in quotes.")
            return None

    def _entries(self, node: yaml.MappingNode, path: Where) -> Iterator[tuple[str, Any]]:
        if len(path) > MAX_DEPTH:
            self._endless(node.start_mark.line + 1, path)
            return
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.at(line, path, "a field name must be text", "Write `name: value`.")
                continue
            key = str(key_node.value)
            if key in seen:
                fix = f"It stands in line {seen[key]} already: keep one of the two."
                self._problems.at(line, (*path, key), "the field is given twice", fix)
                continue
            seen[key] = line
            self._problems.lines[(*path, key)] = line
            yield key, self.value(value_node, (*path, key))

    def _endless(self, line: int, path: Where) -> None:
        problem = "the value contains itself, or is nested too deep"
        self._problems.at(line, path[:MAX_DEPTH], problem, "Write it out without aliases.")
