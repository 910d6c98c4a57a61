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


class _Broken(str):
    """Stands for a part of a reference that could not be read. An empty string may be given."""


_BROKEN: Final = _Broken()
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
    """Reads the fields of one event. Fields at fault keep their default, and what else can be read
    is: it is judged beside the fault. Of several faults the first is kept, one of content before
    one of anything else.

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
        unjudgeable = None
        if self._judgeable():
            unjudgeable = turn_fault(event, self._max_images, self._judged)
        if unjudgeable is not None:
            reason, field, detail = unjudgeable
            # A message with nothing in it leaves nothing out.
            self.blame(field, detail, reason, content=reason is not UndecidedReason.EMPTY_MESSAGE)
        return _within(event, self._max_images, self._judged)

    def blame(
        self,
        field: str,
        detail: str,
        reason: UndecidedReason = UndecidedReason.INVALID_FIELD,
        *,
        content: bool = True,
    ) -> None:
        """Keep a fault. ``content``: something that a person sees or reads went unread by it."""
        if self.fault is None or (content and not self.fault.content):
            self.fault = Undecided(reason, field=self._path + field, detail=detail, content=content)

    def _judgeable(self) -> bool:
        """Whether no fault of the messages is known that would be named before their turn's."""
        return self.fault is None or not self.fault.content

    def _time(self, own: object, attribute: object) -> str | None:
        time = attribute if own is None else own
        if time is None:
            return None
        if isinstance(time, str) and len(time) <= limits.MAX_TIME_CHARS and is_rfc3339(time):
            return time
        detail = "is not RFC 3339" if isinstance(time, str) else given(time, "a string")
        self.blame("time", detail, content=False)
        return None

    def _short(self, raw: dict[str, Any], name: str, most: int) -> str | None:
        text = raw.get(name)
        if text is None:
            return None
        if not isinstance(text, str):
            detail = given(text, "a string")
        elif len(text) > most:
            detail = f"has {len(text)} characters, at most {most} are allowed"
        elif CONTROL.search(text):
            detail = "holds a control character"
        else:
            return text
        self.blame(name, detail, content=False)
        return None

    def _metadata(self, raw: dict[str, Any]) -> dict[str, Any]:
        metadata = raw.get("metadata")
        if not metadata and (metadata is None or type(metadata) is dict):
            return {}
        if type(metadata) is not dict:
            self.blame("metadata", given(metadata, "an object"), content=False)
            return {}
        try:
            size = len(msgspec.json.encode(metadata))
        except UnicodeEncodeError:
            detail = "holds half a surrogate pair"
        except TypeError:  # a Flaw is inside
            detail = "holds a value that is given twice or out of range"
        else:
            if size <= limits.MAX_METADATA_BYTES:
                return cast(dict[str, Any], metadata)
            detail = f"has {size} bytes, at most {limits.MAX_METADATA_BYTES} are allowed"
        self.blame("metadata", detail, content=False)
        return {}

    def _messages(self, raw: dict[str, Any]) -> tuple[Message, ...]:
        messages = raw.get("messages")
        if type(messages) is not list:
            missing = messages is None
            self.blame("messages", "is missing" if missing else given(messages, "an array"))
            return ()
        first = max(0, len(messages) - limits.MAX_MESSAGES)
        if first:
            most = limits.MAX_MESSAGES
            self.blame("messages", f"has {len(messages)} messages, at most {most} are allowed")
        read = [self._message(messages[index], index) for index in range(first, len(messages))]
        return tuple([message for message in read if message is not None])

    def _message(self, raw: object, index: int) -> Message | None:
        """What can be read of a message; None where it is nobody's."""
        if type(raw) is not dict:
            self.blame(f"messages[{index}]", given(raw, "an object"))
            return None
        role = raw.get("role")
        if type(role) is not str or role not in ROLES:
            if role is None:
                detail = "is missing"
            elif type(role) is str:
                detail = "is none of user, assistant, system and developer"
            else:
                detail = given(role, "a string")
            self.blame(f"messages[{index}].role", detail)
            role = None
        text = self._text(raw.get("text"), index)
        images = raw.get("images")
        if not images and (images is None or type(images) is list):
            return Message(role=cast(Role, role), text=text) if role is not None else None
        if type(images) is not list:
            self.blame(f"messages[{index}].images", given(images, "an array"))
            images = []
        if len(images) > limits.MAX_IMAGES:
            self._too_many(len(images), limits.MAX_IMAGES, f"messages[{index}].images")
            images = images[: limits.MAX_IMAGES]
        read = [self._image(each, index, number) for number, each in enumerate(images)]
        refs = tuple([image for image in read if image is not None])
        return Message(role=cast(Role, role), text=text, images=refs) if role is not None else None

    def _text(self, text: object, index: int) -> str:
        if text is None:
            return ""
        field, most = f"messages[{index}].text", limits.MAX_TEXT_CHARS
        if type(text) is not str:
            self.blame(field, given(text, "a string"))
            return ""
        if len(text) > most:
            self.blame(field, f"has {len(text)} characters, at most {most} are allowed")
            text = text[:most]
        if self._surrogates and _SURROGATE.search(text):
            self.blame(field, "holds half a surrogate pair")
            text = _SURROGATE.sub("\ufffd", text)
        return text

    def _image(self, raw: object, index: int, number: int) -> ImageRef | None:
        """A reference; None where any part of it is at fault: another image may be meant."""
        field = f"messages[{index}].images[{number}]"
        if type(raw) is not dict:
            self.blame(field, given(raw, "an object"))
            return None
        uri = self._reference(raw, "uri", limits.MAX_URI_CHARS, index, number)
        if not uri:
            missing = raw.get("uri") is None
            self.blame(f"{field}.uri", "is missing" if missing else "is empty")
        version = self._reference(raw, "version_id", limits.MAX_VERSION_ID_CHARS, index, number)
        sha256 = self._reference(raw, "sha256", limits.MAX_SHA256_CHARS, index, number)
        if not uri or version is _BROKEN or sha256 is _BROKEN:
            return None
        return ImageRef(uri=uri, version_id=version, sha256=sha256)

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
        return _BROKEN

    def _too_many(self, count: int, most: int, field: str) -> None:
        self.blame(field, _many(count, most), UndecidedReason.TOO_MANY_IMAGES)


def _within(event: Event, max_images: int, judged: Judged) -> Event:
    """The event with no more images in its judged turn than are looked at: the first ones."""
    turn = judged_turn(event, judged)
    if turn is None or len(turn.images) <= max_images:
        return event
    kept, left = list(event.messages), max_images
    for place in turn.places:
        images = kept[place].images[:left]
        left -= len(images)
        kept[place] = msgspec.structs.replace(kept[place], images=images)
    return msgspec.structs.replace(event, messages=tuple(kept))


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
