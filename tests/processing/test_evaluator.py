"""One event's passes: judged together, ended together, signed with the model that answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.support.judgements import judgement, policy
from worker.clock import ManualClock
from worker.codes import UndecidedReason
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.verdict import ModelRef, SourceRef
from worker.errors import DependencyUnavailable, Undecided
from worker.images import FetchedImage
from worker.judge.scripted import ScriptedJudge
from worker.judgement import Judgement, JudgeRequest
from worker.policy.model import Actions, BuiltinPass, CustomPass, Policy, Prefilter, PrefilterList
from worker.policy.passes import passes
from worker.processing.evaluator import Evaluator
from worker.processing.windows import OVERLAP, Window, cut, windows

SOURCE = SourceRef(topic="in", partition=0, offset=0, timestamp=0)
EVENT = Event(id="e", conversation_id="c", messages=(Message(role="user", text="hello"),))


class NoImages:
    """Images that were fetched, and have nothing to see."""

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        yield tuple(FetchedImage(uri=ref.uri) for ref in refs)


class HalfAwayJudge(ScriptedJudge):
    """Finds itself away in the built-in pass while the custom one is still being judged."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0

    async def judge(self, request: JudgeRequest) -> Judgement:
        if request.rubric.mode == "builtin":
            await asyncio.sleep(0)
            raise DependencyUnavailable("judge")
        self.under_way += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.under_way -= 1
        return judgement()


class NamedModels(ScriptedJudge):
    """Says which adapters it was asked to identify."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[str | None] = []

    def model(self, adapter: str | None = None) -> ModelRef:
        self.named.append(adapter)
        return super().model(adapter)

    async def judge(self, request: JudgeRequest) -> Judgement:
        self.named.append(request.adapter)
        return await super().judge(request)


def evaluator(judge: ScriptedJudge) -> Evaluator:
    return Evaluator(judge, NoImages(), ManualClock())


async def test_a_pass_that_finds_the_judge_away_ends_its_siblings() -> None:
    """The event is retried from the start: nothing of the first try may go on beside it."""
    judge = HalfAwayJudge()
    both: Policy = policy(custom=CustomPass(disallowed=("Gossip",)))
    with pytest.raises(DependencyUnavailable):
        await evaluator(judge).evaluate(EVENT, both, SOURCE)
    assert judge.under_way == 0


async def test_a_verdict_names_the_adapter_that_judged(tmp_path: Path) -> None:
    """An adapter lies beside its policy's file, wherever the worker was started."""
    judge = NamedModels()
    file = str(tmp_path / "policy.yaml")
    await evaluator(judge).evaluate(EVENT, policy(adapter="own", file=file), SOURCE)
    # The floor's own pass is on the weights as they were shipped: an adapter has an author too.
    assert set(judge.named) == {str(tmp_path / "own"), None}


async def test_an_image_that_no_pass_has_seen_is_never_safe() -> None:
    """Fetched without an error and without anything to look at: that is a fault of ours."""
    images = (ImageRef(uri="s3://bucket/key"),)
    event = Event(
        id="e", conversation_id="c", messages=(Message(role="user", text="hi", images=images),)
    )
    verdict = (await evaluator(ScriptedJudge()).evaluate(event, policy(), SOURCE)).verdict
    assert verdict.outcome == "undecided"
    assert verdict.undecided_reason == UndecidedReason.INTERNAL_ERROR
    assert verdict.undecided_detail == "images[0]: no pass has seen it"


class Counting(ScriptedJudge):
    """Says what each answer took."""

    async def judge(self, request: JudgeRequest) -> Judgement:
        answer = await super().judge(request)
        return msgspec.structs.replace(answer, input_tokens=70, output_tokens=3)


async def test_the_tokens_of_an_event_are_those_of_all_its_passes() -> None:
    """Read and written, built-in and custom: what capacity is planned by."""
    two = policy(custom=CustomPass(disallowed=("Gossip",)))
    evaluation = await evaluator(Counting()).evaluate(EVENT, two, SOURCE)
    assert evaluation.tokens == len(passes(two)) * 73 == 146


class ShortJudge(ScriptedJudge):
    """Takes so many characters of text in one context, and keeps what it was asked."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.asked: list[JudgeRequest] = []

    async def judge(self, request: JudgeRequest) -> Judgement:
        if len(request.user) + len(request.response or "") > self.room:
            raise Undecided(UndecidedReason.CONTEXT_TOO_LONG, detail="too long")
        self.asked.append(request)
        return await super().judge(request)


def saying(user: str, response: str | None = None, images: tuple[ImageRef, ...] = ()) -> Event:
    messages = [Message(role="user", text=user, images=images)]
    if response is not None:
        messages.append(Message(role="assistant", text=response))
    return Event(id="e", conversation_id="c", messages=tuple(messages))


FILLER = "all is well here. " * 1_000
PLAIN = policy(sha256="1" * 64)
LENIENT = policy(on_undecided="pass", actions=Actions(default="allow"), sha256="2" * 64)


@pytest.mark.parametrize("at", [0, 9_000, 9_990, 17_500])
@pytest.mark.parametrize("side", ["user", "response"])
async def test_a_text_too_long_for_one_context_is_judged_in_windows(at: int, side: str) -> None:
    """Harm is found wherever it stands, on the line between two windows too."""
    harm = FILLER[:at] + " zibblefant " + FILLER[at:]
    for text, outcome in ((harm, "unsafe"), (FILLER, "safe")):
        event = saying(text) if side == "user" else saying("Go on.", text)
        verdict = (await evaluator(ShortJudge(5_000)).evaluate(event, PLAIN, SOURCE)).verdict
        assert (verdict.outcome, verdict.undecided_reason) == (outcome, None)


async def test_what_the_windows_leave_over_is_undecided_and_never_let_through() -> None:
    """What fits is judged; beyond the budget nobody knows, so the event is held, or worse."""
    judge = ShortJudge(5_000)
    for text, expected in (
        (FILLER * 5, ("undecided", "hold")),
        ("a zibblefant. " + FILLER * 5, ("unsafe", "block")),
    ):
        judge.asked.clear()
        verdict = (await evaluator(judge).evaluate(saying(text), LENIENT, SOURCE)).verdict
        assert (verdict.outcome, verdict.action) == expected
        assert verdict.undecided_reason == UndecidedReason.CONTEXT_TOO_LONG
        assert len(judge.asked) == 8


async def test_a_response_is_judged_behind_head_and_tail_of_a_long_message() -> None:
    """It is an answer, and read as one; the message has windows of its own."""
    judge = ShortJudge(5_000)
    await evaluator(judge).evaluate(saying(FILLER + "the end", FILLER), PLAIN, SOURCE)
    answered = [each for each in judge.asked if each.response is not None]
    assert answered
    assert all(each.user.startswith(FILLER[:300]) for each in answered)
    assert all(each.user.endswith("the end") for each in answered)


def test_neighbouring_windows_share_their_ends() -> None:
    """Nothing is left out, and nothing shorter than what they share is cut in two."""
    text = "".join(chr(0x4E00 + number) for number in range(9_000))
    parts = cut(text, 3_000)
    assert all(len(part) <= 3_000 for part in parts)
    for start in range(len(text) - OVERLAP):
        assert any(text[start : start + OVERLAP] in part for part in parts), start
    assert windows(Window("hi", None), 3_000) == [Window("hi", None)]


@pytest.mark.parametrize("text", ["a zibblefant", "hello"])
@pytest.mark.parametrize("content", [True, False])
async def test_beside_a_fault_of_the_event_the_rest_is_judged(text: str, content: bool) -> None:
    """A malformed time hides nothing; what went unread is not let through."""
    fault = Undecided(UndecidedReason.INVALID_FIELD, field="time", content=content)
    verdict = (
        await evaluator(ScriptedJudge()).evaluate(saying(text), LENIENT, SOURCE, fault=fault)
    ).verdict
    held = "hold" if content else "allow"
    expected = ("unsafe", "block") if "zibble" in text else ("undecided", held)
    assert (verdict.outcome, verdict.action) == expected
    assert (verdict.undecided_reason, verdict.undecided_detail) == ("invalid_field", "time")


async def test_what_is_given_up_is_not_looked_at() -> None:
    """It has ended the worker before."""
    judge = ShortJudge(5_000)
    poison = Undecided(UndecidedReason.POISON)
    verdict = (
        await evaluator(judge).evaluate(saying("hello"), LENIENT, SOURCE, given_up=poison)
    ).verdict
    assert (verdict.undecided_reason, verdict.action, judge.asked) == ("poison", "hold", [])


class NoneAtAll:
    """A fetch that fails for all images together."""

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        raise Undecided(UndecidedReason.IMAGE_TOO_LARGE, field="images")
        yield ()


async def test_the_text_beside_images_that_cannot_be_had_is_judged() -> None:
    """Whatever is wrong with them, what was said is still there."""
    event = saying("a zibblefant", images=(ImageRef(uri="s3://bucket/key"),))
    judging = Evaluator(ScriptedJudge(), NoneAtAll(), ManualClock())
    verdict = (await judging.evaluate(event, LENIENT, SOURCE)).verdict
    assert (verdict.outcome, verdict.action) == ("unsafe", "block")
    assert verdict.undecided_reason == "image_too_large"


DROWNING = policy(
    sha256="3" * 64,
    builtin=BuiltinPass(enabled=False),
    custom=CustomPass(disallowed=("Gossip",)),
    actions=Actions(default="allow"),
)


class BlindJudge(ScriptedJudge):
    """Under a policy's own text it finds nothing at all."""

    async def judge(self, request: JudgeRequest) -> Judgement:
        if request.rubric.mode == "policy":
            return judgement(0.01)
        return await super().judge(request)


async def test_under_a_policys_own_text_the_floor_is_asked_in_a_text_of_ours() -> None:
    """Only the floor's score of that pass counts: the rest is for the policy to say."""
    judging = evaluator(BlindJudge())
    broken = (await judging.evaluate(saying("a zibblefant"), DROWNING, SOURCE)).verdict
    assert (broken.outcome, broken.action, broken.decided_by) == ("unsafe", "block", "floor")
    grenade = (await judging.evaluate(saying("a grenade"), DROWNING, SOURCE)).verdict
    assert (grenade.outcome, grenade.action, grenade.categories) == ("safe", "allow", ())
    assert grenade.user is not None
    assert grenade.user.score == 0.01


async def test_the_floors_own_pass_can_be_switched_off_by_the_operator() -> None:
    """The way back; no policy can."""
    judge = BlindJudge()
    judging = Evaluator(judge, NoImages(), ManualClock(), floor_pass=False)
    verdict = (await judging.evaluate(saying("a zibblefant"), DROWNING, SOURCE)).verdict
    assert verdict.outcome == "safe"


async def test_a_list_that_is_not_blocked_leaves_the_floor_to_the_judge() -> None:
    """A spam list must not be a way past it."""
    spam = PrefilterList(
        name="spam", decide="unsafe", category="Spam", severity="low", phrases=("cheap pills",)
    )
    lax = policy(
        prefilter=Prefilter(lists=(spam,)),
        actions=Actions(default="allow", severity={"low": "flag"}),
        sha256="5" * 64,
    )
    verdict = (
        await evaluator(ScriptedJudge()).evaluate(saying("zibblefant, cheap pills"), lax, SOURCE)
    ).verdict
    assert (verdict.outcome, verdict.action) == ("unsafe", "block")
    assert {each.name for each in verdict.categories} == {"Sexual (minor)", "Spam"}
