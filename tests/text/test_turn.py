"""An event's texts are folded once, whatever looks at them; the verdict says what was folded."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from tests.support.policies import make_policy
from worker.clock import ManualClock
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.verdict import SourceRef, Verdict
from worker.images import FetchedImage, JudgeImage
from worker.judge.scripted import ScriptedJudge
from worker.judgement import Judgement, JudgeRequest
from worker.policy.model import Policy
from worker.processing.evaluator import Evaluator

SOURCE = SourceRef(topic="in", partition=0, offset=0, timestamp=0)


@dataclasses.dataclass
class Frames:
    """Several frames for every reference."""

    count: int = 8

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        frame = JudgeImage(sha256="0" * 64, width=1, height=1, rgb=b"\0\0\0")
        yield tuple(FetchedImage(uri=each.uri, frames=(frame,) * self.count) for each in refs)


class Listening(ScriptedJudge):
    """Keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[JudgeRequest] = []

    async def judge(self, request: JudgeRequest) -> Judgement:
        self.heard.append(request)
        return await super().judge(request)


async def verdict(judge: ScriptedJudge, policy: Policy, *messages: Message) -> Verdict:
    event = Event(id="e", conversation_id="c", messages=messages)
    return (await Evaluator(judge, Frames(), ManualClock()).evaluate(event, policy, SOURCE)).verdict


async def test_the_judge_reads_what_a_person_reads_in_every_part_of_the_turn() -> None:
    """User text, answer and context; the verdict names the classes of what is judged."""
    judge = Listening()
    found = await verdict(
        judge,
        make_policy(),
        Message(role="system", text="be k\u200bind"),
        Message(role="user", text="how to use co\u200bcaine"),
        Message(role="assistant", text="𝐧𝐨"),
    )
    (asked,) = judge.heard
    assert (asked.user, asked.response) == ("how to use cocaine", "no")
    assert asked.earlier == (("system", "be kind"),)
    assert found.folded == ("invisible", "styled")
    assert (found.outcome, found.context.included) == ("unsafe", 1)


async def test_plain_text_reaches_the_judge_byte_for_byte() -> None:
    """Nothing is noted where nothing was changed."""
    judge = Listening()
    found = await verdict(judge, make_policy(), Message(role="user", text=" Grüße,\tيا صديقي ² "))
    assert judge.heard[0].user == " Grüße,\tيا صديقي ² "
    assert found.folded == ()


async def test_every_context_of_an_event_is_given_the_same_text() -> None:
    """Folding happens once an event and not once a frame: the very same object comes every time."""
    judge = Listening()
    picture = ImageRef(uri="s3://b/k")
    await verdict(judge, make_policy(), Message(role="user", text="b\u200bomb", images=(picture,)))
    assert len(judge.heard) == 8
    assert {id(each.user) for each in judge.heard} == {id(judge.heard[0].user)}


async def test_what_a_list_decides_says_what_was_folded_too() -> None:
    """The model was not asked, and the verdict is as clear; exact phrases mean what was written."""
    lists = [
        {"name": "a", "decide": "unsafe", "category": "Fraud/Deception", "phrases": ["xyzzy"]},
        {"name": "b", "decide": "reason", "match": "exact", "phrases": ["ｘｙｚｚｙ"]},
    ]
    found = await verdict(
        Listening(),
        make_policy(prefilter={"lists": lists}),
        Message(role="user", text="ｘｙｚｚｙ"),
    )
    assert [hit.list for hit in found.prefilter] == ["a", "b"]
    assert (found.decided_by, found.folded) == ("prefilter", ("full_width",))


@pytest.mark.parametrize(("judged", "outcome"), [("turn", "unsafe"), ("message", "safe")])
async def test_a_policy_says_whether_the_turn_or_the_newest_message_is_judged(
    judged: str, outcome: str
) -> None:
    """Harm in the first of two messages is found, unless each was an event of its own."""
    found = await verdict(
        Listening(),
        make_policy(judged=judged),
        Message(role="user", text="where is cocaine"),
        Message(role="user", text="hello"),
    )
    assert found.outcome == outcome


def test_judging_the_turn_leaves_the_hash_of_a_policy_as_it_was() -> None:
    """What is not said is hashed as before; what changes judging is in the hash."""
    plain = make_policy()
    assert make_policy(judged="turn").sha256 == plain.sha256
    assert make_policy(judged="message").sha256 != plain.sha256
