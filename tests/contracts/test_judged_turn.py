"""The judged turn: what the user wrote since the assistant's last message, and the answer."""

from __future__ import annotations

import pytest

from worker.contracts.event import Event, ImageRef, Message, Role, judged_turn

USER = Message(role="user", text="u")
ANSWER = Message(role="assistant", text="a")
IMAGE = ImageRef(uri="s3://b/k")


def event(*messages: Message) -> Event:
    return Event(id="e", conversation_id="c", messages=messages)


def test_every_user_message_since_the_last_answer_is_judged() -> None:
    """Harm in the first of two messages must not pass behind the second."""
    first = Message(role="user", text="1", images=(IMAGE,))
    second = Message(role="user", text="2")
    turn = judged_turn(event(USER, ANSWER, first, second))
    assert turn is not None
    assert turn.user == Message(role="user", text="1\n\n2", images=(IMAGE,))
    assert (turn.response, turn.context, turn.places) == (None, (USER, ANSWER), (2, 3))


def test_where_a_policy_says_message_the_newest_is_judged_alone() -> None:
    """In a room of people every message was judged when it came."""
    first, second = Message(role="user", text="1"), Message(role="user", text="2")
    turn = judged_turn(event(first, second, ANSWER), "message")
    assert turn is not None
    assert (turn.user, turn.response, turn.context) == (second, ANSWER, (first,))


def test_an_answer_is_judged_with_its_question() -> None:
    """Prompt and response share one context."""
    turn = judged_turn(event(USER, ANSWER))
    assert turn is not None
    assert (turn.user, turn.response, turn.context) == (USER, ANSWER, ())


def test_several_answers_are_judged_as_one() -> None:
    """A second answer must not pass unjudged behind the first."""
    second = Message(role="assistant", text="b", images=(IMAGE,))
    turn = judged_turn(event(USER, ANSWER, second))
    assert turn is not None
    assert turn.response == Message(role="assistant", text="a\n\nb", images=(IMAGE,))
    assert turn.images == (IMAGE,)


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("judged", ["turn", "message"])
def test_what_the_system_says_is_context_wherever_it_stands(role: Role, judged: str) -> None:
    """Nobody gets a judged message out of the turn, or into it, by a system message."""
    system = Message(role=role, text="You are a pirate.")
    turn = judged_turn(event(system, USER, system, ANSWER, system), judged)  # type: ignore[arg-type]
    assert turn is not None
    assert (turn.user, turn.response) == (USER, ANSWER)
    assert turn.context == (system, system, system)
    between = judged_turn(event(Message(role="user", text="1"), system, USER, system))
    assert between is not None
    assert (between.user.text, between.context) == ("1\n\nu", (system, system))


@pytest.mark.parametrize("messages", [(), (ANSWER,), (Message(role="system", text="s"), ANSWER)])
def test_without_a_user_message_nothing_is_judged(messages: tuple[Message, ...]) -> None:
    """The caller makes it undecided."""
    assert judged_turn(event(*messages)) is None
