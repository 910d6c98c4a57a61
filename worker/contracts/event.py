"""Event v1: one conversation to judge, as producers write it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["user", "assistant"]


class ImageRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image a message shows: ``s3://bucket/key``, optionally pinned by version and digest."""

    uri: str
    version_id: str | None = None
    sha256: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of the conversation, oldest first."""

    role: Role
    text: str = ""
    images: tuple[ImageRef, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation whose last exchange is judged; earlier messages are context.

    ``time`` is RFC 3339; ``metadata`` travels untouched into the quarantine record.
    """

    id: str
    conversation_id: str
    time: str | None = None
    tenant: str | None = None
    locale: str | None = None
    messages: tuple[Message, ...] = ()
    metadata: dict[str, Any] = {}


class JudgedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged: the last user message and the assistant message that follows it, if any."""

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
                response=after[0] if after else None,
                context=event.messages[:index],
            )
    return None
