"""YAML as people write it: plain values with their lines, and what is wrong with words and a caret.

One reader for settings and policies. Safe tags only, every size bounded, and nothing is raised: all
faults of a file are found at once. A settings file may hold a password, so a reader can be told to
show no values (``secret``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from yaml.constructor import SafeConstructor

MAX_BYTES = 512 * 1024
MAX_DEPTH = 12
MAX_VALUES = 20_000
"""Values after aliases are followed: what bounds a file of nested aliases."""
MAX_EXCERPT = 100

Where = tuple[str | int, ...]
"""A place in a file: ``("custom", "taxonomy", 2, "name")``."""

_SCALARS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")
}
_CONTAINERS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_KEY = re.compile(r"[\s-]*[a-z_][a-z0-9_]{0,63}\s*:(?=\s|$)")
"""The beginning of a line that is no value: indentation, dashes and the name of a field."""


class Fault(NamedTuple):
    """One thing that is wrong: ``line`` from 1, 0 where there is none; ``excerpt`` may be empty."""

    line: int
    where: Where
    problem: str
    fix: str
    excerpt: str = ""


class Document(NamedTuple):
    """What a file says: a mapping, the line of each value, and its faults in the order found."""

    values: dict[str, Any]
    lines: dict[Where, int]
    faults: list[Fault]


def read_document(text: str, *, secret: bool = False) -> Document:
    """Read one YAML mapping; an empty file sets nothing. ``secret`` keeps values out of faults."""
    found = Document({}, {}, [])
    if len(text.encode(errors="replace")) > MAX_BYTES:
        fix = f"Keep it below {MAX_BYTES} bytes."
        found.faults.append(Fault(0, (), f"the file is larger than {MAX_BYTES} bytes", fix))
        return found
    reader = _Reader(text, secret, found)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader) if reader.shallow() else None
    except yaml.MarkedYAMLError as error:
        reader.broken(error)
        return found
    except (yaml.YAMLError, ValueError) as error:  # a character that YAML has no place for
        at = getattr(error, "position", None)
        line = text.count("\n", 0, at) + 1 if isinstance(at, int) else 0
        problem = "not YAML: it holds a character that no text file may hold"
        reader.fault(line, (), problem, "Remove it; an editor shows it as a control character.")
        return found
    if root is None:
        return found
    if not isinstance(root, yaml.MappingNode):
        line = root.start_mark.line + 1
        reader.fault(line, (), "not a mapping of fields", "Write `name: value` lines.")
        return found
    value = reader.value(root, ())
    return found._replace(values=value if isinstance(value, dict) else {})


class _Reader:
    """One walk over the node graph. Aliases are followed, so a budget counts every value."""

    def __init__(self, text: str, secret: bool, found: Document) -> None:
        self._text, self._secret, self._found = text, secret, found
        self._rows = text.splitlines()
        self._left = MAX_VALUES
        self._scalars = SafeConstructor()

    def fault(
        self, line: int, where: Where, problem: str, fix: str, column: int | None = None
    ) -> None:
        """Note a fault; with a column (from 0) the line is shown and pointed at."""
        excerpt = "" if column is None else self._excerpt(line, column)
        self._found.faults.append(Fault(line, where, problem, fix, excerpt))

    def _excerpt(self, line: int, column: int) -> str:
        if not 0 < line <= len(self._rows):
            return ""
        row = self._rows[line - 1]
        if self._secret:
            key = _KEY.match(row)
            shown = key.group() if key else ""
            row = f"{shown} …" if row[len(shown) :].strip() else shown
        start = max(0, column - MAX_EXCERPT // 2)
        shown = row[start : start + MAX_EXCERPT].replace("\t", "→")
        shown = "".join(each if each.isprintable() else "?" for each in shown)
        number = f"{line:>5} | "
        caret = " " * (len(number) + min(column - start, len(shown)))
        return f"{number}{shown}\n{caret}^"

    def broken(self, error: yaml.MarkedYAMLError) -> None:
        """A syntax error, in words of its cause."""
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        column = mark.column if mark else 0
        problem, fix = self._cause(error, line, column)
        opened = error.context_mark
        if opened is not None and any(word in problem for word in ("quote", "bracket", "colon")):
            line, column = opened.line + 1, opened.column
        self.fault(line, (), f"not YAML: {problem}", fix, column)

    def _cause(self, error: yaml.MarkedYAMLError, line: int, column: int) -> tuple[str, str]:
        said = f"{error.context or ''} {error.problem or ''}"
        row = self._rows[line - 1] if 0 < line <= len(self._rows) else ""
        opened = error.context_mark.line + 1 if error.context_mark else line
        indentation = row[: len(row) - len(row.lstrip())]
        if "\t" in indentation or row[column : column + 1] == "\t":
            return "a tab stands where spaces must", "Indent with spaces; YAML takes no tabs."
        if "quoted scalar" in said or "unknown escape" in said:
            if "escape" in said:
                fix = "Write `\\\\` for a backslash, or use single quotes."
                return "a backslash in double quotes begins an escape that is not known", fix
            return "a quote is opened and never closed", f"Close the quote of line {opened}."
        if "flow sequence" in said or "flow mapping" in said:
            sign = "]" if "sequence" in said else "}"
            fix = f"Close the bracket of line {opened} with `{sign}`, and part its entries by `,`."
            return "a bracket is opened and not closed", fix
        if "single document" in said:
            fix = "Keep one document: remove `---` and what belongs to the other."
            return "a second document begins here", fix
        if "undefined alias" in said or "alias" in said or "anchor" in said:
            return "`*` and `&` at the start of a value mean aliases", "Put the value in quotes."
        if "mapping values are not allowed" in said:
            fix = "Put a value that holds `: ` in quotes, or line the field up with its neighbours."
            return "a second `: ` in one value, or a field that is indented too far", fix
        if "cannot start any token" in said or "directive" in said or "tag" in said:
            sign = row[column : column + 1]
            return f"a value cannot begin with `{sign}`", "Put the value in quotes."
        if "could not find expected ':'" in said:
            fix = "Write `name: value`, with a space behind the colon."
            return "a field without a colon, or a line that belongs to the value above it", fix
        if "block end" in said or "block mapping" in said or "block collection" in said:
            fix = "Line it up with its neighbours: a level is two spaces, entries begin with `- `."
            return "the indentation does not fit the lines above", fix
        known = "it breaks the rules of YAML" if self._secret else str(error.problem)
        return known, "Mend the YAML there; values with `: ` or `#` in them need quotes."

    def shallow(self) -> bool:
        """Refuse deep nesting before anything recursive sees it."""
        depth = 0
        for event in yaml.parse(self._text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 0
                self.fault(line, (), f"nested more than {MAX_DEPTH} deep", "Flatten it.")
                return False
        return True

    def value(self, node: yaml.Node, path: Where) -> Any:
        """What a node stands for; None where it was refused."""
        self._left -= 1
        line, column = node.start_mark.line + 1, node.start_mark.column
        self._found.lines.setdefault(path, line)
        if self._left < 0:
            if self._left == -1:
                fix = "Write the values out instead of nesting aliases."
                self.fault(line, path, f"more than {MAX_VALUES} values", fix)
            return None
        if node.tag not in _SCALARS | _CONTAINERS:
            tag = "a YAML tag" if self._secret else f"the YAML tag {node.tag!r}"
            fix = "Write text, numbers, true and false, lists and mappings only."
            self.fault(line, path, f"{tag} is not allowed", fix, column)
            return None
        if isinstance(node, yaml.MappingNode):
            return dict(self._entries(node, path))
        if isinstance(node, yaml.SequenceNode):
            if len(path) > MAX_DEPTH:
                return self._endless(line, path)
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        try:
            found = self._scalars.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError) as error:
            reason = "" if self._secret else f": {str(error).splitlines()[0]}"
            self.fault(line, path, f"not a value{reason}", "Put text in quotes.", column)
            return None
        return self._text_of(found, line, path) if isinstance(found, str) else found

    def _text_of(self, found: str, line: int, path: Where) -> str:
        """Text with the halves of its characters joined: JSON writes an emoji as two escapes."""
        if found.isascii():
            return found
        joined = found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "\ufffd" in joined and "\ufffd" not in found:
            fix = "Write the character itself, or both escapes of it (`\\ud83d\\ude00`)."
            self.fault(line, path, "half a character (a lone surrogate) is no text", fix)
        return joined

    def _entries(self, node: yaml.MappingNode, path: Where) -> Iterator[tuple[str, Any]]:
        if len(path) > MAX_DEPTH:
            self._endless(node.start_mark.line + 1, path)
            return
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column
            if not isinstance(key_node, yaml.ScalarNode):
                problem = "a field name must be text"
                self.fault(line, path, problem, "Write `name: value`.", column)
                continue
            key = self._text_of(str(key_node.value), line, path)
            if key in seen:
                fix = f"It stands in line {seen[key]} already: keep one of the two."
                self.fault(line, (*path, key), "the field is given twice", fix, column)
                continue
            seen[key] = line
            self._found.lines[(*path, key)] = line
            yield key, self.value(value_node, (*path, key))

    def _endless(self, line: int, path: Where) -> None:
        problem = "the value contains itself, or is nested too deep"
        self.fault(line, path[:MAX_DEPTH], problem, "Write it out without aliases.")


def dotted(where: Where) -> str:
    """``custom.taxonomy[2].name``, as people write it."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
