"""Fields of an event that the contract does not know, and what their sender may have meant.

They are ignored on the wire, so that producers may carry more than is read. But a misspelt `images`
is a picture that nobody looks at, so they are named to whoever asks (``schema decode``), refused by
the strict schema, and counted. Names are the sender's words: no label, verdict or dead letter holds
one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from worker.contracts.event import Event, ImageRef, Message

UnknownKind = Literal["near_miss", "known_synonym", "other"]

MOST = 64
"""Unknown fields that are named of one event; a million keys are no reason to compare them all."""
_CUTOFF = 0.75
"""Similarity from which a name is taken for a misspelt one of ours (difflib's ratio)."""

_EVENT: Final = {
    **dict.fromkeys(("event_id", "uuid", "message_id"), "id"),
    **dict.fromkeys(
        ("conversation", "thread", "thread_id", "session", "session_id", "chat_id", "room_id"),
        "conversation_id",
    ),
    **dict.fromkeys(("timestamp", "ts", "created", "created_at", "date"), "time"),
    **dict.fromkeys(("tenant_id", "org", "organization", "customer", "community"), "tenant"),
    **dict.fromkeys(("lang", "language"), "locale"),
    **dict.fromkeys(("turns", "history", "dialog", "dialogue", "chat", "input"), "messages"),
    **dict.fromkeys(("text", "content", "prompt", "body", "query"), "messages[].text"),
    **dict.fromkeys(("response", "completion", "answer", "output", "reply"), "messages[].text"),
    **dict.fromkeys(("image", "images", "image_url", "attachments", "media"), "messages[].images"),
    **dict.fromkeys(("meta", "extra", "attributes", "properties", "context"), "metadata"),
}
_MESSAGE: Final = {
    **dict.fromkeys(("author", "sender", "from", "speaker", "type"), "role"),
    **dict.fromkeys(("content", "body", "message", "value", "parts", "markdown"), "text"),
    **dict.fromkeys(
        ("image", "image_url", "image_urls", "picture", "pictures", "photo", "photos", "media"),
        "images",
    ),
    **dict.fromkeys(("attachment", "attachments", "file", "files", "input_image"), "images"),
}
_IMAGE: Final = {
    **dict.fromkeys(("url", "href", "src", "link", "location", "path", "key", "s3"), "uri"),
    **dict.fromkeys(("image_url", "bucket", "object", "file"), "uri"),
    **dict.fromkeys(("version", "versionId", "generation", "etag"), "version_id"),
    **dict.fromkeys(("digest", "hash", "checksum", "sha", "sha_256"), "sha256"),
}
_PLACES: Final = {
    "event": (Event.__struct_fields__, _EVENT),
    "message": (Message.__struct_fields__, _MESSAGE),
    "image": (ImageRef.__struct_fields__, _IMAGE),
}


class UnknownField(NamedTuple):
    """A field that is not read: its path, and where it was meant to be, if that can be guessed."""

    path: str
    kind: UnknownKind
    meant: str | None = None

    @property
    def hint(self) -> str:
        """What to write instead; empty where nothing is near."""
        return f"Did you mean `{self.meant}`?" if self.meant else ""


def unknown_fields(raw: dict[str, Any], path: str = "") -> tuple[UnknownField, ...]:
    """The first ``MOST`` fields of a parsed event that are none of the contract's.

    ``metadata`` is the sender's own and not looked into; so is what surrounds the event.
    """
    found: list[UnknownField] = []
    for each in _fields(raw, path):
        found.append(each)
        if len(found) == MOST:
            break
    return tuple(found)


def _fields(raw: dict[str, Any], path: str) -> Iterator[UnknownField]:
    yield from _of("event", raw, path)
    messages = raw.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else ()):
        if not isinstance(message, dict):
            continue
        here = f"{path}messages[{index}]."
        yield from _of("message", message, here)
        images = message.get("images")
        for number, image in enumerate(images if isinstance(images, list) else ()):
            if isinstance(image, dict):
                yield from _of("image", image, f"{here}images[{number}].")


def _of(place: str, raw: dict[str, Any], path: str) -> Iterator[UnknownField]:
    known, _ = _PLACES[place]
    for name in raw:
        if name not in known:
            kind, meant = _meaning(place, name[:64])
            yield UnknownField(f"{path}{name}", kind, f"{path}{meant}" if meant else None)


@lru_cache(maxsize=4096)
def _meaning(place: str, name: str) -> tuple[UnknownKind, str | None]:
    known, synonyms = _PLACES[place]
    plain = _plain(name)
    for each in known:  # another case or spelling of the words: conversationId, Messages
        if _plain(each) == plain:
            return "near_miss", each
    for synonym, meant in synonyms.items():
        if _plain(synonym) == plain:
            return "known_synonym", meant
    near = difflib.get_close_matches(plain, [_plain(each) for each in known], n=1, cutoff=_CUTOFF)
    if near:
        return "near_miss", next(each for each in known if _plain(each) == near[0])
    return "other", None


def _plain(name: str) -> str:
    return "".join(each for each in name.casefold() if each.isalnum())
