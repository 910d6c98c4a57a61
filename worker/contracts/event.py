"""Event v1: one conversation to judge, as producers write it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from worker.contracts import limits

Role = Literal["user", "assistant"]
Id = Annotated[str, Meta(min_length=1, max_length=limits.MAX_ID_CHARS)]


class ImageRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image a message shows, optionally pinned by version and digest."""

    uri: Annotated[str, Meta(min_length=1, max_length=limits.MAX_URI_CHARS)]
    """``s3://bucket/key``. Anything else makes the event undecided."""
    version_id: Annotated[str, Meta(max_length=limits.MAX_VERSION_ID_CHARS)] | None = None
    """Version of the object, for buckets that keep versions."""
    sha256: Annotated[str, Meta(max_length=limits.MAX_SHA256_CHARS)] | None = None
    """Digest the object must have, 64 hexadecimal digits."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of the conversation."""

    role: Role
    """Who wrote it. No other role is known."""
    text: Annotated[str, Meta(max_length=limits.MAX_TEXT_CHARS)] = ""
    """What was written, as the other side sees it."""
    images: Annotated[tuple[ImageRef, ...], Meta(max_length=limits.MAX_IMAGES)] = ()
    """What was shown, in order."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation whose last exchange is judged; earlier messages are context.

    Fields that are not named here are ignored. Optional fields may be left out or null.
    """

    id: Id
    """Names the event; comes back as ``event_id`` of its verdict. No control characters."""
    conversation_id: Id
    """Names the conversation; the key of the verdict. No control characters."""
    time: Annotated[str, Meta(max_length=limits.MAX_TIME_CHARS)] | None = None
    """When it was said, RFC 3339. Kept as given and used for no decision."""
    tenant: Annotated[str, Meta(max_length=limits.MAX_TENANT_CHARS)] | None = None
    """Whose platform or community it is; comes back in the verdict."""
    locale: Annotated[str, Meta(max_length=limits.MAX_LOCALE_CHARS)] | None = None
    """Language of the conversation, a BCP 47 tag."""
    messages: Annotated[tuple[Message, ...], Meta(max_length=limits.MAX_MESSAGES)] = ()
    """The conversation, oldest first. At least one is the user's."""
    metadata: dict[str, Any] = {}
    """Anything of yours, at most 64 KiB; travels into the quarantine record untouched."""


class JudgedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged: the last user message and what the assistant answered, if anything.

    Several assistant messages after the last user message are judged as one response, so that
    nothing that was answered goes unjudged.
    """

    user: Message
    response: Message | None
    context: tuple[Message, ...]

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Every image of the judged turn, user's first."""
        return self.user.images + (self.response.images if self.response else ())


def judged_turn(event: Event) -> JudgedTurn | None:
    """The judged turn of an event, or None where no user message is."""
    for index in range(len(event.messages) - 1, -1, -1):
        if event.messages[index].role == "user":
            after = event.messages[index + 1 :]
            return JudgedTurn(
                user=event.messages[index],
                response=_one_response(after),
                context=event.messages[:index],
            )
    return None


def _one_response(messages: tuple[Message, ...]) -> Message | None:
    if len(messages) <= 1:
        return messages[0] if messages else None
    return Message(
        role="assistant",
        text="\n\n".join(message.text for message in messages if message.text),
        images=tuple(image for message in messages for image in message.images),
    )
