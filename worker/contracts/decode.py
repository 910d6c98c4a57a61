"""One record to one event, or to the reason why it is none.

A record whose event id and conversation id can be read is an event, whatever else is wrong with
it: its verdict names the fault. Only a record without them is a dead letter.
"""

from __future__ import annotations

from typing import Any

import msgspec

from worker.codes import DeadLetterCode
from worker.contracts import limits
from worker.contracts.cloudevents import Envelope, open_envelope
from worker.contracts.event import Event, Judged
from worker.contracts.event_reader import CONTROL, EventReader, given
from worker.contracts.strict_json import TWICE
from worker.contracts.unknown_fields import UnknownField, unknown_fields
from worker.errors import Undecided, UnreadableRecord
from worker.records import Record

_ENVELOPE = frozenset({"content-type", "ce_specversion"})
"""Headers by which a record may be a CloudEvent, whose key may be another one."""
_FRAMED_BYTES = 5
"""Schema-registry framing: 0x00 and a schema id of four bytes, big-endian, before the payload."""


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """An event, and why it cannot be judged if it cannot.

    With a ``fault``, what could not be read is left out: a message that is nobody's, an image that
    another one may be meant by, images beyond those that are looked at; other fields have their
    defaults. What is left is judged beside the fault. ``unknown`` are fields that were ignored.
    """

    event: Event
    fault: Undecided | None = None
    unknown: tuple[UnknownField, ...] = ()


def decode_event(
    record: Record,
    max_bytes: int,
    *,
    max_images: int = limits.MAX_IMAGES,
    judged: Judged = "turn",
) -> Decoded:
    """Read a record as plain JSON or as a CloudEvent, binary or structured.

    Args:
        record: as it came from the log.
        max_bytes: largest value that is parsed (``stream.max_event_bytes``).
        max_images: most images of the judged turn (``store.max_images``).
        judged: what of the user is judged, as the policy says.

    Raises:
        UnreadableRecord: the code, and the field at fault where there is one.
    """
    envelope = open_envelope(record, _payload(record, max_bytes))
    raw = envelope.event
    if type(raw) is not dict:
        raise _wrong_type(raw, envelope.path.rstrip("."), "an object")
    event_id = _identity(envelope, raw, "id", "id", envelope.id)
    conversation_id = _identity(
        envelope, raw, "conversation_id", "partitionkey", envelope.partition_key
    )
    reader = EventReader(
        envelope.path,
        surrogates=envelope.document.escaped_surrogates,
        max_images=max_images,
        judged=judged,
    )
    event = reader.read(raw, event_id, conversation_id, envelope.time)
    fault = reader.fault
    if envelope.document.flawed and fault is None:
        # The flaw stands in a field that is ignored here, but perhaps not by the next reader.
        outside = "a field outside the contract is given twice or out of range"
        reader.blame("", outside, content=False)
        fault = reader.fault
    return Decoded(event=event, fault=fault, unknown=unknown_fields(raw, envelope.path))


class _Conversation(msgspec.Struct):
    conversation_id: str


_conversations = msgspec.json.Decoder(_Conversation)


def conversation_of(record: Record, max_bytes: int) -> str | None:
    """Whose event a record is, at a glance; None where only ``decode_event`` can say.

    What it says of an event is what ``decode_event`` says of it. What it says of a record that is
    none does not matter to anybody.
    """
    value = record.value
    if not value or len(value) > max_bytes:
        return None
    if record.headers and any(name.lower() in _ENVELOPE for name, _ in record.headers):
        return None
    try:
        return _conversations.decode(value).conversation_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _payload(record: Record, max_bytes: int) -> bytes:
    value = record.value
    if value is None:
        raise UnreadableRecord(DeadLetterCode.TOMBSTONE, detail="the value is null")
    if len(value) > max_bytes:
        raise UnreadableRecord(
            DeadLetterCode.TOO_LARGE,
            detail=f"the value has {len(value)} bytes, at most {max_bytes} are read",
        )
    if not value:
        raise UnreadableRecord(DeadLetterCode.NOT_JSON, detail="the value is empty")
    if value[0] == 0 and len(value) >= _FRAMED_BYTES:
        schema = int.from_bytes(value[1:_FRAMED_BYTES], "big")
        raise UnreadableRecord(
            DeadLetterCode.SCHEMA_REGISTRY_FRAMED,
            detail=f"framed for schema {schema} of a registry; send the JSON without framing",
        )
    return value


def _identity(
    envelope: Envelope, raw: dict[str, Any], name: str, attribute: str, stand_in: object
) -> str:
    """An id of the event, else the CloudEvents attribute that stands in for it."""
    value, field = raw.get(name), envelope.path + name
    if value is None:
        if stand_in is None:
            raise UnreadableRecord(DeadLetterCode.MISSING_FIELD, field=field, detail="is missing")
        value, field = stand_in, envelope.attributes + attribute
    if isinstance(value, str):
        if 0 < len(value) <= limits.MAX_ID_CHARS and not CONTROL.search(value):
            return value
        raise UnreadableRecord(DeadLetterCode.INVALID_FIELD, field=field, detail=_broken(value))
    raise _wrong_type(value, field, "a string")


def _wrong_type(value: object, field: str, wanted: str) -> UnreadableRecord:
    code = DeadLetterCode.DUPLICATE_KEY if value is TWICE else DeadLetterCode.WRONG_TYPE
    return UnreadableRecord(code, field=field, detail=given(value, wanted))


def _broken(text: str) -> str:
    if not text:
        return "is empty"
    if len(text) > limits.MAX_ID_CHARS:
        return f"has {len(text)} characters, at most {limits.MAX_ID_CHARS} are allowed"
    return "holds a control character or half a surrogate pair"
