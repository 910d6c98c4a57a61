"""What a hit saves: no image is fetched and no model is asked where a list has decided."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.images import encoded, noise
from tests.support.policies import make_policy
from worker.clock import ManualClock
from worker.codes import UndecidedReason
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.verdict import PrefilterHit, SourceRef, Verdict
from worker.errors import Undecided
from worker.images import FetchedImage
from worker.judge.cache import CachingJudge
from worker.judge.scripted import ScriptedJudge
from worker.judgement import Judgement, JudgeRequest
from worker.media.decode import DecodeLimits, decode
from worker.policy.model import Policy
from worker.processing.evaluator import Evaluator
from worker.processing.examples import ExampleRunner

SOURCE = SourceRef(topic="in", partition=0, offset=0, timestamp=0)
PICTURE = encoded(noise(48, 48))
DIGEST = hashlib.sha256(PICTURE).hexdigest()
PHRASES = {"name": "scams", "decide": "unsafe", "category": "Fraud/Deception", "phrases": ["xyzzy"]}
PICTURES = {"name": "known", "decide": "unsafe", "category": "Sexual", "images": [DIGEST]}
NOTES = {"name": "rivals", "decide": "reason", "phrases": ["wanderlust"]}


class Asked(ScriptedJudge):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def judge(self, request: JudgeRequest) -> Judgement:
        self.count += 1
        return await super().judge(request)


class Fetches:
    """Gives every reference the same picture, and counts them; ``fault`` fails the event."""

    def __init__(self, fault: Undecided | None = None) -> None:
        self.count = 0
        self._fault = fault

    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        self.count += len(refs)
        if self._fault is not None:
            raise self._fault
        frames = decode(PICTURE, DecodeLimits(max_pixels=10_000, max_frames=1))
        yield tuple(FetchedImage(uri=ref.uri, sha256=DIGEST, frames=frames) for ref in refs)


class House:
    """An evaluator whose judge and fetcher are counted."""

    def __init__(self, fault: Undecided | None = None) -> None:
        self.asked, self.fetches = Asked(), Fetches(fault)
        self.evaluator = Evaluator(self.asked, self.fetches, ManualClock())

    async def verdict(self, event: Event, policy: Policy) -> Verdict:
        return (await self.evaluator.evaluate(event, policy, SOURCE)).verdict


def said(text: str, *, images: int = 0, response: str | None = None, earlier: str = "") -> Event:
    refs = tuple(ImageRef(uri=f"s3://b/{number}") for number in range(images))
    messages = [Message(role="user", text=text, images=refs)]
    if earlier:
        messages[:0] = [Message(role="user", text=earlier), Message(role="assistant", text="ok")]
    if response is not None:
        messages.append(Message(role="assistant", text=response))
    return Event(id="e", conversation_id="c", messages=tuple(messages))


def policy(*lists: Mapping[str, object], **fields: object) -> Policy:
    """A policy that blocks: a list settles what is blocked, and nothing milder."""
    prefilter = {"lists": [dict(each) for each in lists], **fields}
    return make_policy(prefilter=prefilter, actions={"default": "block"})


async def test_a_phrase_decides_before_anything_is_fetched_or_judged() -> None:
    """The verdict says what it rests on, and names the list and not the phrase."""
    house = House()
    verdict = await house.verdict(said("so X.Y.Z. XYZZY", images=2), policy(PHRASES))
    assert (house.asked.count, house.fetches.count) == (0, 0)
    assert (verdict.outcome, verdict.decided_by, verdict.action) == ("unsafe", "prefilter", "block")
    assert verdict.prefilter == (
        PrefilterHit(
            list="scams", decide="unsafe", category="Fraud/Deception", found_in="user", image=None
        ),
    )
    assert (verdict.user, verdict.response, verdict.cached) == (None, None, False)
    assert [image.sha256 for image in verdict.images] == [None, None]


@pytest.mark.parametrize("listed", [[DIGEST], ["0" * 16], ["f" * 64]])
async def test_an_image_decides_once_it_was_seen(listed: list[str]) -> None:
    """Its place is in the verdict; the model is not asked about it."""
    house = House()
    verdict = await house.verdict(said("look", images=2), policy({**PICTURES, "images": listed}))
    hit = listed == [DIGEST]
    assert house.fetches.count == 2
    assert house.asked.count == (0 if hit else 2)
    assert [(each.found_in, each.image) for each in verdict.prefilter] == (
        [("image", 0), ("image", 1)] if hit else []
    )
    assert verdict.outcome == ("unsafe" if hit else "safe")
    assert [image.sha256 for image in verdict.images] == [DIGEST, DIGEST]


async def test_the_response_is_searched_and_earlier_turns_are_not() -> None:
    """What is judged is what is searched."""
    house = House()
    answered = await house.verdict(said("hi", response="take xyzzy"), policy(PHRASES))
    assert [each.found_in for each in answered.prefilter] == ["response"]
    before = await house.verdict(said("hi", earlier="xyzzy"), policy(PHRASES))
    assert (before.prefilter, before.outcome) == ((), "safe")


async def test_with_judge_too_the_model_is_asked_as_well() -> None:
    """Nothing is saved, and everything is known."""
    house = House()
    verdict = await house.verdict(said("xyzzy grenade"), policy(PHRASES, judge_too=True))
    assert house.asked.count == 1
    assert verdict.decided_by == "judge"
    assert [each.name for each in verdict.categories] == [
        "Guns and Illegal Weapons",
        "Fraud/Deception",
    ]


async def test_a_note_stands_in_the_verdict_and_the_model_decides() -> None:
    """Safe and unsafe alike."""
    house = House()
    for text, outcome in (("wanderlust", "safe"), ("wanderlust grenade", "unsafe")):
        verdict = await house.verdict(said(text), policy(NOTES))
        assert (verdict.outcome, verdict.decided_by) == (outcome, "judge")
        assert [(each.list, each.decide) for each in verdict.prefilter] == [("rivals", "reason")]


async def test_a_note_does_not_get_lost_with_an_event_that_fails() -> None:
    """Undecided stays undecided, and says what was found in it."""
    house = House(Undecided(UndecidedReason.TOO_MANY_IMAGES, field="images"))
    verdict = await house.verdict(said("wanderlust", images=1), policy(NOTES))
    assert (verdict.outcome, verdict.undecided_reason) == ("undecided", "too_many_images")
    assert len(verdict.prefilter) == 1


async def test_an_allowed_phrase_leaves_the_word_to_the_model() -> None:
    """It takes a hit back and says nothing about the event."""
    house = House()
    rules = policy(PHRASES, allow=["xyzzy museum"])
    safe = await house.verdict(said("the XYZZY museum"), rules)
    unsafe = await house.verdict(said("a zibblefant in the xyzzy museum"), rules)
    assert (safe.outcome, unsafe.outcome, unsafe.action) == ("safe", "unsafe", "block")
    assert house.asked.count == 2


async def test_a_long_text_is_searched_to_its_end() -> None:
    """In a thread, and as thoroughly."""
    house = House()
    verdict = await house.verdict(said("word " * 30_000 + "xyzzy"), policy(PHRASES))
    assert verdict.decided_by == "prefilter"


async def test_examples_of_a_policy_meet_its_prefilter(tmp_path: Path) -> None:
    """What a policy lists it can show to work."""
    house = House()
    rules = make_policy(
        prefilter={"lists": [PHRASES], "allow": ["xyzzy museum"]},
        examples=[
            {"text": "xyzzy!", "expect": "unsafe", "categories": ["Fraud/Deception"]},
            {"text": "the xyzzy museum", "expect": "safe"},
        ],
    )
    results = await ExampleRunner(house.evaluator, house.asked.model()).check(rules)
    assert [each.status for each in results] == ["held", "held"]


async def test_a_policy_can_have_every_event_judged_anew() -> None:
    """``cache: false``: a second look costs a second forward."""
    asked = Asked()
    judge = CachingJudge(asked, 1 << 20)
    await judge.start()
    evaluator = Evaluator(judge, Fetches(), ManualClock())
    for rules, expected in ((make_policy(cache=False), 2), (make_policy(), 3)):
        verdicts = [
            (await evaluator.evaluate(said("grenade"), rules, SOURCE)).verdict for _ in range(2)
        ]
        assert asked.count == expected
        assert [each.cached for each in verdicts] == [False, rules.cache]
        assert verdicts[1].decided_by == ("cache" if rules.cache else "judge")
    await judge.stop()


async def test_an_event_is_cached_only_if_all_of_it_was() -> None:
    """Two rubrics, one of them new: something was judged for it."""
    asked = Asked()
    judge = CachingJudge(asked, 1 << 20)
    await judge.start()
    evaluator = Evaluator(judge, Fetches(), ManualClock())
    both = make_policy(custom={"disallowed": ["Gossip"]})
    await evaluator.evaluate(said("grenade"), make_policy(), SOURCE)
    half = (await evaluator.evaluate(said("grenade"), both, SOURCE)).verdict
    whole = (await evaluator.evaluate(said("grenade"), both, SOURCE)).verdict
    assert (half.cached, half.decided_by) == (False, "judge")
    assert (whole.cached, whole.decided_by) == (True, "cache")
    assert whole.categories == half.categories
    await judge.stop()
