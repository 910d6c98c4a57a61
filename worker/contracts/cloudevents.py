"""CloudEvents 1.0 on Kafka: which mode a record is in, its attributes, and those of our outputs.

Binary mode: attributes in ``ce_*`` headers, the event is the value. Structured mode: content type
``application/cloudevents+json``, or a document that has ``specversion``; the event is its ``data``.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from typing import Any

import msgspec

from worker.codes import DeadLetterCode
from worker.contracts.strict_json import Document, Flaw, read_json
from worker.errors import UnreadableRecord
from worker.records import Headers, Record

CONTENT_TYPE = "content-type"
JSON_CONTENT_TYPE = "application/json"
PREFIX = "ce_"
SPEC_VERSION = "1.0"
_STRUCTURED = "application/cloudevents"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What surrounds an event: the document it is in, and the attributes that stand in for fields.

    ``path`` is where the event stands in the document: empty, or ``data.``. ``id``, ``time`` and
    ``partition_key`` are None outside CloudEvents; they are as given, of any JSON type.
    """

    document: Document
    event: Any
    path: str = ""
    attributes: str = ""
    id: Any = None
    time: Any = None
    partition_key: Any = None


def open_envelope(record: Record, value: bytes) -> Envelope:
    """Parse ``value`` and take the event out of its CloudEvents envelope, if it has one.

    Raises:
        UnreadableRecord: no JSON, or ``unsupported_cloudevent`` with the attribute at fault.
    """
    attributes: dict[str, bytes | None] = {}
    for name, content in record.headers:
        attributes[name.lower()] = content  # names may repeat: the last one counts
    content_type = _text(attributes, CONTENT_TYPE).lower() if CONTENT_TYPE in attributes else ""
    if content_type.startswith(_STRUCTURED):
        if not content_type.startswith(_STRUCTURED + "+json"):
            raise _unsupported(CONTENT_TYPE, "of CloudEvents only the JSON format is read")
        return _structured(read_json(value), record)
    if PREFIX + "specversion" in attributes:
        if _text(attributes, PREFIX + "specversion") != SPEC_VERSION:
            raise _unsupported(PREFIX + "specversion", f"is not {SPEC_VERSION}")
        if content_type and not _is_json(content_type):
            raise _unsupported(CONTENT_TYPE, "is not JSON")
        document = read_json(value)
        return Envelope(
            document=document,
            event=document.root,
            attributes=PREFIX,
            id=_optional(attributes, PREFIX + "id"),
            time=_optional(attributes, PREFIX + "time"),
            partition_key=_optional(attributes, PREFIX + "partitionkey") or _key(record),
        )
    document = read_json(value)
    if isinstance(document.root, dict) and "specversion" in document.root:
        return _structured(document, record)
    return Envelope(document=document, event=document.root)


def _structured(document: Document, record: Record) -> Envelope:
    root = document.root
    if not isinstance(root, dict):
        raise _unsupported("", "a structured CloudEvent is a JSON object")
    if root.get("specversion") != SPEC_VERSION:
        raise _unsupported("specversion", f"is not {SPEC_VERSION}")
    data_type = root.get("datacontenttype")
    if data_type is not None and not (isinstance(data_type, str) and _is_json(data_type.lower())):
        raise _unsupported("datacontenttype", "is not JSON")
    path = "data."
    if root.get("data_base64") is not None:
        if "data" in root:
            raise _unsupported("data_base64", "stands beside data; only one may be given")
        inner = _decoded(root["data_base64"])
        document = Document(
            inner.root,
            document.flawed or inner.flawed,
            document.escaped_surrogates or inner.escaped_surrogates,
        )
        event, path = inner.root, "data_base64."
    elif "data" in root:
        event = root["data"]
    else:
        raise UnreadableRecord(DeadLetterCode.MISSING_FIELD, field="data", detail="is missing")
    key = root.get("partitionkey")
    return Envelope(
        document=document,
        event=event,
        path=path,
        id=root.get("id"),
        time=root.get("time"),
        partition_key=_key(record) if key is None else key,
    )


def _decoded(encoded: object) -> Document:
    if isinstance(encoded, Flaw):
        raise _unsupported("data_base64", encoded.problem)
    try:
        data = base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else None
    except (binascii.Error, ValueError):
        data = None
    if data is None:
        raise _unsupported("data_base64", "is not base64")
    return read_json(data)


def _is_json(content_type: str) -> bool:
    media_type = content_type.split(";", 1)[0].strip()
    return media_type in ("application/json", "text/json") or media_type.endswith("+json")


def _text(attributes: dict[str, bytes | None], name: str) -> str:
    try:
        return (attributes[name] or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise _unsupported(name, "is not UTF-8") from None


def _optional(attributes: dict[str, bytes | None], name: str) -> str | None:
    return _text(attributes, name) if name in attributes else None


def _key(record: Record) -> str | None:
    """The record key, which the binding makes of ``partitionkey``; None where it is no text."""
    try:
        return record.key.decode("utf-8") if record.key else None
    except UnicodeDecodeError:
        return None


def _unsupported(field: str, detail: str) -> UnreadableRecord:
    return UnreadableRecord(DeadLetterCode.UNSUPPORTED_CLOUDEVENT, field=field, detail=detail)


def output_headers(
    *,
    kind: str,
    event_id: str,
    source: str,
    subject: str,
    time: str,
    partition_key: str,
) -> Headers:
    """Binary-mode attributes of one of our outputs; ``kind`` is ``verdict`` or ``quarantine``."""
    return (
        *_constant_headers(kind, source),
        ("ce_id", event_id.encode()),
        ("ce_time", time.encode()),
        ("ce_subject", subject.encode()),
        ("ce_partitionkey", partition_key.encode()),
    )


@lru_cache(maxsize=1024)
def _constant_headers(kind: str, source: str) -> Headers:
    return (
        (CONTENT_TYPE, JSON_CONTENT_TYPE.encode()),
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_type", f"moderation.{kind}.v1".encode()),
        ("ce_dataschema", f"urn:moderation-worker:schema:{kind}:v1".encode()),
        ("ce_source", f"/moderation-worker/{kind}/{source}".encode()),
    )
