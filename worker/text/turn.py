"""The judged turn as a person reads it: folded once an event, whatever looks at it afterwards."""

from __future__ import annotations

import asyncio

import msgspec

from worker.contracts.event import JudgedTurn, Message
from worker.text.fold import fold

LONG_TEXT = 4_096
"""Characters from which texts are folded and searched in a thread: the loop has other work."""


async def as_read(turn: JudgedTurn) -> tuple[JudgedTurn, tuple[str, ...]]:
    """The turn with every text folded, and the classes by which words of the judged ones changed.

    Earlier messages are folded too, but are not judged and leave no class.
    """
    texts = [turn.user, *(turn.context), *([turn.response] if turn.response else [])]
    long = sum(len(each.text) for each in texts if not each.text.isascii()) > LONG_TEXT
    return await asyncio.to_thread(_folded, turn) if long else _folded(turn)


def _folded(turn: JudgedTurn) -> tuple[JudgedTurn, tuple[str, ...]]:
    user, classes = _message(turn.user)
    response, more = _message(turn.response) if turn.response else (None, frozenset[str]())
    context = tuple([_message(each)[0] for each in turn.context])
    folded = msgspec.structs.replace(turn, user=user, response=response, context=context)
    return folded, tuple(sorted(classes | more))


def _message(message: Message) -> tuple[Message, frozenset[str]]:
    text, classes = fold(message.text)
    if text == message.text:
        return message, frozenset()
    return msgspec.structs.replace(message, text=text), frozenset(classes)
