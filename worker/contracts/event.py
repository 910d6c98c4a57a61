"""Event v1: one conversation to judge, as producers write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from worker.contracts import limits

Role = Literal["user", "assistant", "system", "developer"]
Judged = Literal["turn", "message"]
"""What of the user is judged: everything since the assistant's last message, or the newest message
alone (rooms of people, where every message comes as an event of its own)."""
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
    """Who wrote it. What ``system`` and ``developer`` say is context and never judged."""
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
    """What is judged: what the user wrote since the assistant's last message, and the answer to it.

    Several messages of one side are judged as one, so that none goes unjudged behind the other.
    ``places`` are the indexes of the judged messages in the event; all others are context.
    """

    user: Message
    response: Message | None
    context: tuple[Message, ...]
    places: tuple[int, ...] = ()

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """Every image of the judged turn, user's first."""
        return self.user.images + (self.response.images if self.response else ())


def judged_turn(event: Event, judged: Judged = "turn") -> JudgedTurn | None:
    """The judged turn of an event, or None where no user message is.

    The response is the trailing run of assistant messages; the turn is the run of user messages in
    front of it, or its newest alone. Messages of other roles stand between without ending a run.
    """
    messages = event.messages
    said = [i for i, each in enumerate(messages) if each.role in ("user", "assistant")]
    end = len(said)
    while end and messages[said[end - 1]].role == "assistant":
        end -= 1
    start = end
    while start and messages[said[start - 1]].role == "user":
        start -= 1
    if start == end:
        return None
    if judged == "message":
        start = end - 1
    places = said[start:]
    judged_ones = frozenset(places)
    user, response = said[start:end], said[end:]
    return JudgedTurn(
        user=_as_one([messages[place] for place in user]),
        response=_as_one([messages[place] for place in response]) if response else None,
        context=tuple([each for i, each in enumerate(messages) if i not in judged_ones]),
        places=tuple(places),
    )


def _as_one(messages: Sequence[Message]) -> Message:
    if len(messages) == 1:
        return messages[0]
    return Message(
        role=messages[0].role,
        text="\n\n".join([message.text for message in messages if message.text]),
        images=tuple([image for message in messages for image in message.images]),
    )
