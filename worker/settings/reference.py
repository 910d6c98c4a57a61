"""Every setting as one can ask for it: what it means, what it may be, what it is and from where."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import msgspec
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from worker.settings.load import read_settings_file, variable_name, variable_of
from worker.settings.sections import Settings, load_settings

REDACTED = "**********"
_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
}


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting. ``default`` is as a file would say it; ``secret`` ones are never shown."""

    path: str
    kind: str
    default: Any
    meaning: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """The variable of the environment that sets it."""
        return variable_name(self.path)


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """What a setting is now; ``source`` is ``default``, ``FILE:LINE`` or a variable's name."""

    path: str
    value: Any
    source: str


def every_setting(tree: type[BaseModel] = Settings, above: str = "") -> Iterator[Setting]:
    """All settings, in the order they are written."""
    for name, field in tree.model_fields.items():
        path = f"{above}{name}"
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from every_setting(kind, f"{path}.")
        else:
            yield Setting(
                path=path,
                kind=_kind(field),
                default=_plain(field.get_default(call_default_factory=True)),
                meaning=" ".join((field.description or "").split()).replace("``", "`"),
                secret=SecretStr in _parts(kind),
            )


def effective(config: Path | None) -> list[Effective]:
    """What each setting is, with these variables and this file.

    Raises:
        ConfigurationError: settings that cannot be used.
    """
    settings = load_settings(config)
    lines = read_settings_file(config).lines if config is not None else {}
    found = []
    for each in every_setting():
        where = each.path.split(".")
        value: Any = settings
        for name in where:
            value = getattr(value, name)
        source = "default"
        # A field that a section's one line in braces sets stands in that line too.
        if variable := variable_of(where):
            source = variable
        elif line := lines.get(tuple(where)):
            source = f"{config}:{line}"
        shown = REDACTED if each.secret and value is not None else _plain(value)
        found.append(Effective(path=each.path, value=shown, source=source))
    return found


def reference_page() -> str:
    """docs/settings.md."""
    parts = [_HEAD]
    section = None
    for each in every_setting():
        above = each.path.rpartition(".")[0]
        if above != section:
            section = above
            title = f"`{above}`" if above else "At the top"
            parts.append(
                f"\n## {title}\n\n| setting | value | default | meaning |\n|---|---|---|---|"
            )
        name = each.path.rpartition(".")[2]
        parts.append(f"| `{name}` | {each.kind} | {_shown(each.default)} | {each.meaning} |")
    return "\n".join(parts) + "\n"


_HEAD = """# Settings

Made by `moderation-worker settings explain --all`; a test compares it with the code.

Settings come from a YAML file (`--config worker.yaml`, sections as below) and from variables of the
environment over it: `kafka.group_id` is `MODERATION_KAFKA__GROUP_ID`. Lists in variables are `a, b`
or JSON.

```sh
moderation-worker settings show --changed                   # what is set, and where
moderation-worker settings explain judge.max_batch_tokens   # what one means, and may be
moderation-worker settings schema                           # JSON Schema, for editors
```

`settings show` tells every value as the worker would have it, the file's line or the variable that
set it, and hides secrets. A setting that is gone is read for one more release, with a warning that
names what to use in its place."""


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    return f"`{msgspec.json.encode(value).decode() if not isinstance(value, str) else value}`"


def _plain(value: Any) -> Any:
    """As a file would say it."""
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, SecretStr):
        return REDACTED
    return str(value) if isinstance(value, Path) else value


def _parts(kind: Any) -> list[Any]:
    """The alternatives of a type, None left out."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return [each for each in typing.get_args(kind) if each is not type(None)]
    return [kind]


def _kind(field: FieldInfo) -> str:
    """What a value may be, in words."""
    words = []
    for kind in _parts(field.annotation):
        origin = typing.get_origin(kind)
        if origin is Literal:
            words.append(", ".join(f"`{each}`" for each in typing.get_args(kind)))
        elif origin in (tuple, list):
            words.append("a list of names")
        elif origin is dict:
            words.append("a mapping")
        elif kind is SecretStr:
            words.append("text, never shown")
        else:
            words.append(_WORDS.get(kind, getattr(kind, "__name__", str(kind))))
    return " or ".join(words) + _bounds(field.metadata)


def _bounds(metadata: list[Any]) -> str:
    said = ""
    for each in metadata:
        if isinstance(each, FieldInfo):
            said += _bounds(each.metadata)
        elif isinstance(each, Gt):
            said += f", above {each.gt}"
        elif isinstance(each, Ge):
            said += f", {each.ge} or more"
        elif isinstance(each, Lt):
            said += f", below {each.lt}"
        elif isinstance(each, Le):
            said += f", {each.le} at most"
    return said
