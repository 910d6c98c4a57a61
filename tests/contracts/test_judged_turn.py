"""The judged turn is the last user message and everything answered to it."""

from __future__ import annotations

from worker.contracts.event import Event, ImageRef, Message, judged_turn

USER = Message(role="user", text="u")
ANSWER = Message(role="assistant", text="a")


def event(*messages: Message) -> Event:
    return Event(id="e", conversation_id="c", messages=messages)


def test_the_last_user_message_is_judged_and_earlier_ones_are_context() -> None:
    """Two user turns in a row are fine: the newer one is judged."""
    first, second = Message(role="user", text="1"), Message(role="user", text="2")
    turn = judged_turn(event(first, ANSWER, second))
    assert turn is not None
    assert (turn.user, turn.response, turn.context) == (second, None, (first, ANSWER))


def test_an_answer_is_judged_with_its_question() -> None:
    """Prompt and response share one context."""
    turn = judged_turn(event(USER, ANSWER))
    assert turn is not None
    assert turn.response == ANSWER


def test_several_answers_are_judged_as_one() -> None:
    """A second answer must not pass unjudged behind the first."""
    image = ImageRef(uri="s3://b/k")
    second = Message(role="assistant", text="b", images=(image,))
    turn = judged_turn(event(USER, ANSWER, second))
    assert turn is not None
    assert turn.response == Message(role="assistant", text="a\n\nb", images=(image,))
    assert turn.images == (image,)


def test_without_a_user_message_nothing_is_judged() -> None:
    """The caller makes it undecided."""
    assert judged_turn(event(ANSWER)) is None
