"""JSON Schema 2020-12 of the contracts, made from the types and their docstrings.

What comes in is described tolerantly: unknown fields are allowed and optional ones may be null.
What goes out is described strictly: every field is there and no other is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from worker.contracts.dead_letter import DeadLetter, RecordReference
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.failure import Failure
from worker.contracts.field_docs import field_docs
from worker.contracts.records import Original, QuarantineRecord
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


def json_schema(name: str) -> dict[str, Any]:
    """The schema of one contract, complete in itself."""
    kind = CONTRACTS[name]
    (reference,), definitions = msgspec.json.schema_components([kind])
    kinds = {each.__name__: each for each in (*_TOLERANT, *_STRICT)}
    for title, definition in definitions.items():
        _complete(definition, kinds[title])
    if name == "event":
        _require_messages(definitions["Event"])
    return {
        "$schema": DIALECT,
        "$id": f"urn:moderation-worker:schema:{name}:v1",
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
