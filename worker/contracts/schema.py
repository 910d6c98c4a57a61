"""The published contracts under ``schemas/`` and the tables of the docs, made from the types."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from worker.codes import DeadLetterCode, SkippedReasoning, UndecidedReason
from worker.contracts import samples
from worker.contracts.asyncapi import asyncapi
from worker.contracts.dead_letter import DeadLetter, Failure, RecordReference
from worker.contracts.encode import Original, QuarantineRecord, encode
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.verdict import (
    CategoryVerdict,
    ContextUse,
    ImageVerdict,
    ModelRef,
    PolicyRef,
    PrefilterHit,
    Reasoning,
    SideVerdict,
    SourceRef,
    Timings,
    Verdict,
)
from worker.records import Headers

# Docstrings of fields and codes, read from the source so that schemas and tables repeat them.


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """The line under each field of ``kind``, in order; fields of its bases come first.

    Fields without one are left out. Needs the source file, as every installation has it.
    """
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("worker."):
            docs |= _own_docs(base)
    return docs


def _own_docs(kind: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    (definition,) = tree.body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for statement, after in zip(definition.body, definition.body[1:], strict=False):
        name = _assigned(statement)
        if (
            name
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            docs[name] = " ".join(after.value.value.split())
    return docs


def _assigned(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        return statement.targets[0].id
    return None


# JSON Schema 2020-12 of the contracts, made from the types and their docstrings.
#
# What comes in is described tolerantly: unknown fields are allowed and optional ones may be null.
# What goes out is described strictly: every field is there and no other is.

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
CONTRACTS: Final[dict[str, type[msgspec.Struct]]] = {
    "event": Event,
    "verdict": Verdict,
    "quarantine": QuarantineRecord,
    "dead-letter": DeadLetter,
    "record-reference": RecordReference,
}
"""Every published document by the name of its file and URN."""

_TOLERANT: Final = (Event, Message, ImageRef)
_STRICT: Final = (
    Verdict,
    SourceRef,
    SideVerdict,
    CategoryVerdict,
    ImageVerdict,
    Reasoning,
    PolicyRef,
    PrefilterHit,
    ModelRef,
    ContextUse,
    Timings,
    QuarantineRecord,
    Original,
    Failure,
    DeadLetter,
    RecordReference,
)
_FORMATS: Final[dict[str, dict[str, Any]]] = {
    "time": {"format": "date-time"},
    "judged_at": {"format": "date-time"},
    "held_at": {"format": "date-time"},
    "failed_at": {"format": "date-time"},
    "score": {"minimum": 0, "maximum": 1},
    "first_bytes": {"contentEncoding": "base64"},
}


def json_schema(name: str, *, strict: bool = False) -> dict[str, Any]:
    """The schema of one contract, complete in itself.

    ``strict`` refuses in an event what the worker would ignore: for producers, before they send.
    """
    kind = CONTRACTS[name]
    (reference,), definitions = msgspec.json.schema_components([kind])
    kinds = {each.__name__: each for each in (*_TOLERANT, *_STRICT)}
    for title, definition in definitions.items():
        _complete(definition, kinds[title])
    if name == "event":
        _require_messages(definitions["Event"])
        for title in [each.__name__ for each in _TOLERANT] if strict else ():
            definitions[title]["additionalProperties"] = False
    return {
        "$schema": DIALECT,
        "$id": f"urn:moderation-worker:schema:{name}:v1{':strict' if strict else ''}",
        **definitions.pop(reference["$ref"].removeprefix("#/$defs/")),
        **({"$defs": dict(sorted(definitions.items()))} if definitions else {}),
    }


def _complete(schema: dict[str, Any], kind: type[msgspec.Struct]) -> None:
    """Add what the types alone do not say: descriptions, formats, and how strict it is."""
    schema["description"] = _first_paragraph(kind)
    docs = field_docs(kind)
    for name, field in schema["properties"].items():
        schema["properties"][name] = field = _with_format(name, field)
        field["description"] = docs[name].replace("``", "`")
    if kind in _STRICT:
        schema["required"] = list(schema["properties"])
        schema["additionalProperties"] = False
        for field in schema["properties"].values():
            field.pop("default", None)
        return
    for name, field in schema["properties"].items():
        if name not in schema.get("required", ()) and "anyOf" not in field:
            described = {key: field.pop(key) for key in ("description", "default") if key in field}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **described}


def _require_messages(schema: dict[str, Any]) -> None:
    """In what comes in; a held event whose messages could not be read has none."""
    messages = schema["properties"]["messages"]
    array, _null = messages["anyOf"]
    schema["properties"]["messages"] = array | {
        "minItems": 1,
        "description": messages["description"],
    }
    schema["required"].append("messages")


def _with_format(name: str, field: dict[str, Any]) -> dict[str, Any]:
    extra = _FORMATS.get(name)
    if extra is None:
        return field
    if "anyOf" in field:
        first, *others = field["anyOf"]
        return field | {"anyOf": [first | extra, *others]}
    return field | extra


def _first_paragraph(kind: type) -> str:
    doc = (kind.__doc__ or "").split("\n\n")[0]
    return " ".join(doc.split()).replace("``", "`")


# Everything under ``schemas/``, generated: JSON Schemas, the AsyncAPI document, the examples.

_HEADING = "# Generated by `moderation-worker schema export`; edit the types instead.\n"


def documents() -> dict[str, str]:
    """Path below the directory to content, in the order they are listed."""
    schemas = {f"{name}.v1.schema.json": _pretty(json_schema(name)) for name in CONTRACTS}
    schemas["event.v1.strict.schema.json"] = _pretty(json_schema("event", strict=True))
    document = yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=100)
    return {**schemas, "asyncapi.yaml": _HEADING + document, **_examples()}


def export(directory: Path) -> list[Path]:
    """Write every document below ``directory``, made where missing; the paths written."""
    written = []
    for name, content in documents().items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def drift(directory: Path) -> list[Path]:
    """Documents below ``directory`` that differ from what the types say, missing ones included."""
    return [
        directory / name
        for name, content in documents().items()
        if not (directory / name).is_file()
        or (directory / name).read_text(encoding="utf-8") != content
    ]


def _examples() -> dict[str, str]:
    cloudevent = {
        "specversion": "1.0",
        "id": samples.EVENT.id,
        "source": "/example-community/chat",
        "type": "com.example.conversation.v1",
        "time": samples.EVENT.time,
        "partitionkey": samples.EVENT.conversation_id,
        "datacontenttype": "application/json",
        "data": _plain(samples.EVENT),
    }
    headers = {
        "quarantine.headers": samples.QUARANTINE_OUTPUT.headers,
        "dead-letter.headers": samples.DEAD_LETTER_RECORD.headers,
    }
    contents: dict[str, Any] = {
        "event": _plain(samples.EVENT),
        "event.cloudevent": cloudevent,
        "verdict": _plain(samples.VERDICT),
        "verdict.undecided": _plain(samples.UNDECIDED),
        "quarantine": _plain(samples.QUARANTINE),
        "dead-letter": _plain(samples.DEAD_LETTER),
        "record-reference": json.loads(samples.BY_REFERENCE_RECORD.value or b""),
        **{name: _texts(each) for name, each in headers.items()},
    }
    return {f"examples/{name}.json": _pretty(content) for name, content in contents.items()}


def _plain(value: msgspec.Struct) -> Any:
    return json.loads(encode(value))


def _texts(headers: Headers) -> dict[str, str]:
    return {name: (content or b"").decode() for name, content in headers}


def _pretty(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


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
