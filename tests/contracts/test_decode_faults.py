"""An event whose ids can be read gets a verdict; what is wrong with the rest is named in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.records import event_document, input_record
from worker.codes import UndecidedReason as Reason
from worker.contracts import limits
from worker.contracts.decode import Decoded, decode_event
from worker.contracts.encode import encode
from worker.errors import Undecided

MAX_BYTES = 10 * 1024 * 1024


def decoded(value: object, max_images: int = 16) -> Decoded:
    return decode_event(input_record(value), MAX_BYTES, max_images=max_images)


def fault(value: object, max_images: int = 16) -> Undecided:
    found = decoded(value, max_images).fault
    assert found is not None
    return found


def user(text: object = "hello", **more: object) -> dict[str, Any]:
    return {"role": "user", "text": text, **more}


def image(**changes: object) -> dict[str, Any]:
    return {"uri": "s3://b/k.png", **changes}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"messages": None}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [user()] * 1001}, "messages"),
        ({"messages": [user(), "hello"]}, "messages[1]"),
        ({"messages": [{"text": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "text": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "User", "text": "hello"}]}, "messages[0].role"),
        ({"messages": [{"role": 1, "text": "hello"}]}, "messages[0].role"),
        ({"messages": [user(), user(7)]}, "messages[1].text"),
        ({"messages": [user(["hello"])]}, "messages[0].text"),
        ({"messages": [user("a" * (limits.MAX_TEXT_CHARS + 1))]}, "messages[0].text"),
        ({"messages": [user("\ud83d")]}, "messages[0].text"),
        ({"messages": [user(images="s3://b/k")]}, "messages[0].images"),
        ({"messages": [user(images={})]}, "messages[0].images"),
        ({"messages": [user(images=["s3://b/k"])]}, "messages[0].images[0]"),
        ({"messages": [user(images=[{}])]}, "messages[0].images[0].uri"),
        (
            {"messages": [user(), user(), user(images=[image(uri=5)])]},
            "messages[2].images[0].uri",
        ),
        ({"messages": [user(images=[image(), image(uri="")])]}, "messages[0].images[1].uri"),
        (
            {"messages": [user(images=[image(uri="s3://" + "a" * 4096)])]},
            "messages[0].images[0].uri",
        ),
        ({"messages": [user(images=[image(sha256=1)])]}, "messages[0].images[0].sha256"),
        ({"messages": [user(images=[image(version_id=[])])]}, "messages[0].images[0].version_id"),
        ({"time": 1700000000}, "time"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-02-30T00:00:00Z"}, "time"),
        ({"tenant": 5}, "tenant"),
        ({"tenant": "t" * 257}, "tenant"),
        ({"tenant": "a\x00b"}, "tenant"),
        ({"locale": ["en"]}, "locale"),
        ({"locale": "e" * 65}, "locale"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": {"a": "x" * 65536}}, "metadata"),
        ({"metadata": {"a": "\udc00"}}, "metadata"),
    ],
)
def test_a_wrong_field_makes_the_event_undecided_and_is_named(
    changes: dict[str, object], field: str
) -> None:
    """The path says which message and which image, from 0."""
    found = fault(event_document(**changes))
    assert (found.reason, found.field) == (Reason.INVALID_FIELD, field)
    assert found.detail


@pytest.mark.parametrize(
    "messages", [[], [{"role": "assistant", "text": "hi"}]], ids=["no messages", "assistant only"]
)
def test_an_event_without_a_user_turn_is_undecided(messages: list[object]) -> None:
    """There is nothing to judge a response against."""
    assert fault(event_document(messages=messages)).reason == Reason.NO_USER_TURN


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([user("")], "messages[0]"),
        ([user(" \n\t")], "messages[0]"),
        ([user(None)], "messages[0]"),
        ([user("hi"), {"role": "assistant"}], "messages[1]"),
    ],
)
def test_an_empty_judged_message_is_undecided(messages: list[object], field: str) -> None:
    """Nothing was seen, so nothing can be called safe."""
    found = fault(event_document(messages=messages))
    assert (found.reason, found.field) == (Reason.EMPTY_MESSAGE, field)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([user(""), user("hi")], id="empty context"),
        pytest.param([user("", images=[image()])], id="an image without text"),
        pytest.param([user("a"), user("b")], id="two user turns in a row"),
        pytest.param([{"role": "system", "text": ""}, user("b")], id="an empty system message"),
        pytest.param([user(None, images=[image()])], id="null text beside an image"),
        pytest.param([user("a", images=None)], id="null images"),
    ],
)
def test_messages_that_can_be_judged_are_no_fault(messages: list[object]) -> None:
    """Only the judged turn has to say something, in words or in an image."""
    assert decoded(event_document(messages=messages)).fault is None


def test_more_images_than_allowed_make_the_event_undecided() -> None:
    """The bound holds for the judged turn, user and response together."""
    answer = {"role": "assistant", "text": "see", "images": [image()]}
    messages = [user(images=[image()] * 16), answer]
    assert fault(event_document(messages=messages)).reason == Reason.TOO_MANY_IMAGES
    assert decoded(event_document(messages=messages), max_images=17).fault is None


def test_images_of_earlier_turns_do_not_count_towards_the_bound() -> None:
    """They are context, and context images are not fetched."""
    answer = {"role": "assistant", "text": "seen"}
    messages = [user(images=[image()] * 100), answer, user("hello")]
    assert decoded(event_document(messages=messages)).fault is None


def test_images_of_one_turn_count_together() -> None:
    """What is shown in the message before is judged with the newest, and not where it alone is."""
    record = input_record(event_document(messages=[user(images=[image()] * 100), user("hello")]))
    found = decode_event(record, MAX_BYTES, max_images=16).fault
    assert found is not None
    assert found.reason == Reason.TOO_MANY_IMAGES
    assert decode_event(record, MAX_BYTES, max_images=16, judged="message").fault is None


def test_beside_a_message_of_a_strange_role_the_others_are_read() -> None:
    """The event is undecided, and what can be judged of it is there to be looked at."""
    strange = {"role": "tool", "text": "result"}
    found = decoded(event_document(messages=[user("a"), strange, user("b")]))
    assert found.fault is not None
    assert found.fault.field == "messages[1].role"
    assert [each.text for each in found.event.messages] == ["a", "b"]


def test_a_thousand_and_one_images_are_too_many_wherever_they_are() -> None:
    """Even in context there is a bound."""
    spread = [user(images=[image()] * 501), user(images=[image()] * 500), user("hello")]
    assert fault(event_document(messages=spread)).reason == Reason.TOO_MANY_IMAGES
    heap = [user(images=[image()] * 1001)]
    assert fault(event_document(messages=heap), 2000).reason == Reason.TOO_MANY_IMAGES


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ('"messages": [{"role": "user", "text": "kind", "text": "vile"}]', "messages[0].text"),
        ('"messages": [{"role": "user", "text": "a"}], "messages": []', "messages"),
        ('"messages": [{"role": "user", "text": "a"}], "metadata": {"k": 1, "k": 2}', "metadata"),
        ('"messages": [{"role": "user", "text": "a"}], "metadata": {"k": 1e999}', "metadata"),
        ('"messages": [{"role": "user", "text": "a"}], "other": 1, "other": 2', ""),
    ],
)
def test_a_field_given_twice_makes_the_event_undecided(raw: str, field: str) -> None:
    """One reader would take the first and another the last: neither reading is judged."""
    found = fault(f'{{"id": "e-1", "conversation_id": "c-1", {raw}}}'.encode())
    assert (found.reason, found.field) == (Reason.INVALID_FIELD, field)


def test_unknown_fields_are_ignored_everywhere() -> None:
    """Producers may say more than the contract knows."""
    document = event_document(
        messages=[user(extra=1, images=[image(width=3)])], extra={"deep": [1, {"x": None}]}
    )
    assert decoded(document).fault is None


def test_the_first_fault_is_named_and_good_fields_are_kept() -> None:
    """The event that goes on holds what could be read, and nothing that could not."""
    messages = [user("one"), user(5), 7, {"role": "robot", "text": "two"}]
    result = decoded(event_document(messages=messages, tenant=6, locale="en"))
    assert result.fault is not None
    assert result.fault.field == "messages[1].text"
    assert [(each.role, each.text) for each in result.event.messages] == [
        ("user", "one"),
        ("user", ""),
    ]
    assert (result.event.tenant, result.event.locale) == (None, "en")


@pytest.mark.parametrize(
    ("fields", "content"),
    [
        ({"time": "yesterday"}, False),
        ({"locale": "e\u0000n"}, False),
        ({"tenant": 5}, False),
        ({"metadata": {"note": "x" * 70_000}}, False),
        ({"messages": [user("hello"), {"role": "assistant"}]}, False),
        ({"messages": [user(5)]}, True),
        ({"messages": [user("x", images=[{"uri": "s3://b/k", "sha256": "0" * 300}])]}, True),
        ({"messages": [user("x", images=[{"uri": "s3://b/k"}] * 17)]}, True),
        ({"time": "yesterday", "messages": [user(5)]}, True),
    ],
)
def test_a_fault_says_whether_anything_a_person_sees_went_unread(
    fields: dict[str, object], content: bool
) -> None:
    """What is no content may be let through by a policy; what nobody read may not."""
    result = decoded(event_document(**fields))
    assert result.fault is not None
    assert result.fault.content is content


def test_what_can_be_read_beside_a_fault_is_left_to_be_judged() -> None:
    """The text beside too many images with the first of them, and images beside a broken one."""
    uris = [{"uri": f"s3://b/{number}"} for number in range(20)]
    (message,) = decoded(event_document(messages=[user("x", images=uris)])).event.messages
    assert (message.text, len(message.images)) == ("x", 16)
    pinned = [{"uri": "s3://b/1", "sha256": 5}, {"uri": "s3://b/2", "version_id": ""}]
    (message,) = decoded(event_document(messages=[user("x", images=pinned)])).event.messages
    assert [each.uri for each in message.images] == ["s3://b/2"]


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:60.5+14:00"])
def test_a_clock_far_off_changes_nothing(time: str) -> None:
    """The producer's time is carried along and no decision looks at it."""
    result = decoded(event_document(time=time))
    assert (result.fault, result.event.time) == (None, time)


def test_details_never_repeat_what_the_event_says() -> None:
    """Details are published in verdicts and logs; field names of the producer count as content."""
    secret = "correct-horse"
    documents: list[object] = [
        event_document(messages=[{"role": secret, "text": secret}]),
        event_document(messages=[user({secret: secret})]),
        event_document(time=secret, tenant=secret * 99),
        event_document(metadata={secret: "\ud800"}),
        json.dumps(event_document())[:-1].encode() + f', "{secret}": 1, "{secret}": 2}}'.encode(),
    ]
    for document in documents:
        found = fault(document)
        assert secret not in f"{found} {found.field} {found.detail}"


def test_an_event_at_fault_can_still_be_written_out() -> None:
    """Quarantine writes it: half a surrogate pair must not get that far."""
    result = decoded(event_document(messages=[user("\ud800")], metadata={"a": "\udfff"}))
    assert b"e-1" in encode(result.event)


def test_a_surrogate_pair_written_as_escapes_is_one_character() -> None:
    """Most JSON writers escape emoji so."""
    raw = json.dumps(event_document(messages=[user("\U0001f600")])).encode()
    assert b"\\ud83d" in raw
    result = decoded(raw)
    assert (result.fault, result.event.messages[0].text) == (None, "\U0001f600")


def test_a_utf8_byte_order_mark_is_passed_over() -> None:
    """RFC 8259 §8.1 lets a reader do so, and some editors write one."""
    raw = b"\xef\xbb\xbf" + json.dumps(event_document()).encode()
    assert decoded(raw).fault is None
