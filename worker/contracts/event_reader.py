"""A parsed document to an Event: every field by hand, so that each fault names its own path.

Paths hold names of the contract and indices only, details hold types and lengths only: both are
published, and neither may carry what a user wrote.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast, get_args

import msgspec

from worker.codes import UndecidedReason
from worker.contracts import limits
from worker.contracts.event import Event, ImageRef, Judged, Message, Role, judged_turn
from worker.contracts.strict_json import Flaw
from worker.contracts.timestamps import is_rfc3339
from worker.errors import Undecided

ROLES: Final = frozenset(get_args(Role))
CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, and lone surrogates, which are no characters at all."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_TYPES: Final = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def given(value: object, wanted: str) -> str:
    """Why ``value`` is not what is wanted, without saying what it is."""
    if isinstance(value, Flaw):
        return value.problem
    return f"is {_TYPES.get(type(value), 'unknown')}, not {wanted}"


class EventReader:
    """Reads the fields of one event; the first fault is kept, fields at fault keep their default.

    ``path`` stands in front of every field name. ``surrogates``: strings may hold lone surrogates.
    """

    __slots__ = ("_judged", "_max_images", "_path", "_surrogates", "fault")

    def __init__(self, path: str, *, surrogates: bool, max_images: int, judged: Judged) -> None:
        self._path = path
        self._surrogates = surrogates
        self._max_images = max_images
        self._judged = judged
        self.fault: Undecided | None = None

    def read(
        self,
        raw: dict[str, Any],
        event_id: str,
        conversation_id: str,
        time: object,
    ) -> Event:
        """The event of ``raw``, whose identity and time were read already. Sets ``fault``."""
        messages = self._messages(raw)
        event = Event(
            id=event_id,
            conversation_id=conversation_id,
            time=self._time(raw.get("time"), time),
            tenant=self._short(raw, "tenant", limits.MAX_TENANT_CHARS),
            locale=self._short(raw, "locale", limits.MAX_LOCALE_CHARS),
            messages=messages,
            metadata=self._metadata(raw),
        )
        unjudgeable = (
            turn_fault(event, self._max_images, self._judged) if self.fault is None else None
        )
        if unjudgeable is not None:
            reason, field, detail = unjudgeable
            self.blame(field, detail, reason)
        return event

    def blame(
        self, field: str, detail: str, reason: UndecidedReason = UndecidedReason.INVALID_FIELD
    ) -> None:
        """Keep the first fault found."""
        if self.fault is None:
            self.fault = Undecided(reason, field=self._path + field, detail=detail)

    def _time(self, own: object, attribute: object) -> str | None:
        time = attribute if own is None else own
        if time is None:
            return None
        if isinstance(time, str) and len(time) <= limits.MAX_TIME_CHARS and is_rfc3339(time):
            return time
        self.blame("time", "is not RFC 3339" if isinstance(time, str) else given(time, "a string"))
        return None

    def _short(self, raw: dict[str, Any], name: str, most: int) -> str | None:
        text = raw.get(name)
        if text is None:
            return None
        if not isinstance(text, str):
            self.blame(name, given(text, "a string"))
        elif len(text) > most:
            self.blame(name, f"has {len(text)} characters, at most {most} are allowed")
        elif CONTROL.search(text):
            self.blame(name, "holds a control character")
        else:
            return text
        return None

    def _metadata(self, raw: dict[str, Any]) -> dict[str, Any]:
        metadata = raw.get("metadata")
        if not metadata and (metadata is None or type(metadata) is dict):
            return {}
        if type(metadata) is not dict:
            self.blame("metadata", given(metadata, "an object"))
            return {}
        try:
            size = len(msgspec.json.encode(metadata))
        except UnicodeEncodeError:
            self.blame("metadata", "holds half a surrogate pair")
        except TypeError:  # a Flaw is inside
            self.blame("metadata", "holds a value that is given twice or out of range")
        else:
            if size <= limits.MAX_METADATA_BYTES:
                return cast(dict[str, Any], metadata)
            most = limits.MAX_METADATA_BYTES
            self.blame("metadata", f"has {size} bytes, at most {most} are allowed")
        return {}

    def _messages(self, raw: dict[str, Any]) -> tuple[Message, ...]:
        messages = raw.get("messages")
        if type(messages) is not list:
            missing = messages is None
            self.blame("messages", "is missing" if missing else given(messages, "an array"))
            return ()
        if len(messages) > limits.MAX_MESSAGES:
            most = limits.MAX_MESSAGES
            self.blame("messages", f"has {len(messages)} messages, at most {most} are allowed")
            return ()
        read = [self._message(each, index) for index, each in enumerate(messages)]
        # Messages are read first: a fault is theirs. Beside a strange role the others are readable.
        if self.fault is not None and not self.fault.field.endswith(".role"):
            return ()
        return tuple([each for each in read if type(each.role) is str and each.role in ROLES])

    def _message(self, raw: object, index: int) -> Message:
        if type(raw) is not dict:
            self.blame(f"messages[{index}]", given(raw, "an object"))
            return Message(role="user")
        role = raw.get("role")
        if type(role) is not str or role not in ROLES:
            if role is None:
                detail = "is missing"
            elif type(role) is str:
                detail = "is none of user, assistant, system and developer"
            else:
                detail = given(role, "a string")
            self.blame(f"messages[{index}].role", detail)
        text = raw.get("text")
        if text is None:
            text = ""
        elif type(text) is not str:
            self.blame(f"messages[{index}].text", given(text, "a string"))
        elif len(text) > limits.MAX_TEXT_CHARS:
            most = limits.MAX_TEXT_CHARS
            detail = f"has {len(text)} characters, at most {most} are allowed"
            self.blame(f"messages[{index}].text", detail)
        elif self._surrogates and _SURROGATE.search(text):
            self.blame(f"messages[{index}].text", "holds half a surrogate pair")
        images = raw.get("images")
        if not images and (images is None or type(images) is list):
            return Message(role=cast(Role, role), text=text)
        if type(images) is not list:
            self.blame(f"messages[{index}].images", given(images, "an array"))
            return Message(role="user")
        if len(images) > limits.MAX_IMAGES:
            self._too_many(len(images), limits.MAX_IMAGES, f"messages[{index}].images")
            return Message(role="user")
        refs = tuple([self._image(each, index, number) for number, each in enumerate(images)])
        return Message(role=cast(Role, role), text=text, images=refs)

    def _image(self, raw: object, index: int, number: int) -> ImageRef:
        if type(raw) is not dict:
            self.blame(f"messages[{index}].images[{number}]", given(raw, "an object"))
            return ImageRef(uri="")
        uri = self._reference(raw, "uri", limits.MAX_URI_CHARS, index, number)
        if not uri:
            missing = raw.get("uri") is None
            detail = "is missing" if missing else "is empty"
            self.blame(f"messages[{index}].images[{number}].uri", detail)
        return ImageRef(
            uri=uri or "",
            version_id=self._reference(
                raw, "version_id", limits.MAX_VERSION_ID_CHARS, index, number
            ),
            sha256=self._reference(raw, "sha256", limits.MAX_SHA256_CHARS, index, number),
        )

    def _reference(
        self, raw: dict[str, Any], name: str, most: int, index: int, number: int
    ) -> str | None:
        text = raw.get(name)
        if text is None:
            return None
        if type(text) is not str:
            detail = given(text, "a string")
        elif len(text) > most:
            detail = f"has {len(text)} characters, at most {most} are allowed"
        elif self._surrogates and _SURROGATE.search(text):
            detail = "holds half a surrogate pair"
        else:
            return text
        self.blame(f"messages[{index}].images[{number}].{name}", detail)
        return None

    def _too_many(self, count: int, most: int, field: str) -> None:
        self.blame(field, _many(count, most), UndecidedReason.TOO_MANY_IMAGES)


def turn_fault(
    event: Event, max_images: int, judged: Judged
) -> tuple[UndecidedReason, str, str] | None:
    """Why there is nothing to judge, or too much: reason, field and detail."""
    turn = judged_turn(event, judged)
    if turn is None:
        return UndecidedReason.NO_USER_TURN, "messages", "holds no user message"
    total = sum([len(message.images) for message in event.messages])
    if total:
        shown = len(turn.images)
        if shown > max_images:
            return UndecidedReason.TOO_MANY_IMAGES, "messages", _many(shown, max_images)
        if total > limits.MAX_IMAGES:
            return UndecidedReason.TOO_MANY_IMAGES, "messages", _many(total, limits.MAX_IMAGES)
    newest = max([place for place in turn.places if event.messages[place].role == "user"])
    for index in turn.places:
        message = event.messages[index]
        if index < newest:  # an older message of the turn that says nothing leaves nothing out
            continue
        if not message.images and (not message.text or message.text.isspace()):
            detail = "is judged, and has neither text nor an image"
            return UndecidedReason.EMPTY_MESSAGE, f"messages[{index}]", detail
    return None


def _many(count: int, most: int) -> str:
    return f"refers to {count} images, at most {most} are allowed"
