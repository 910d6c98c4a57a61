"""One record through the pipeline: whatever goes wrong on the way, it ends in one place."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.judgements import policy
from tests.support.measured import Measured, measured
from tests.support.records import event_document, input_record
from worker.clock import ManualClock
from worker.codes import DeadLetterCode, UndecidedReason
from worker.contracts.dead_letter import RecordReference, parse_dead_letter
from worker.contracts.decode import Decoded
from worker.contracts.encode import QuarantineRecord, verdict_output
from worker.contracts.event import ImageRef
from worker.contracts.verdict import Action, Verdict
from worker.errors import Undecided
from worker.images import FetchedImage
from worker.judge.scripted import ScriptedJudge
from worker.judgement import Judgement, JudgeRequest
from worker.log.base import Delivery
from worker.policy.model import Actions, Candidate, CustomPass, Policy
from worker.policy.parse import load_policy
from worker.policy.passes import passes
from worker.processing.evaluator import Evaluator
from worker.processing.processor import OutputTopics, Pipeline, PipelineLimits, Processed
from worker.processing.shadow import MOST, WAITING, sampled
from worker.records import Output, Record
from worker.telemetry.names import Metric

LIVE = policy(candidate=Candidate(version=2, file="next.yaml", sample=1.0))


class NoStore:
    @asynccontextmanager
    async def fetch(self, refs: Sequence[ImageRef]) -> AsyncIterator[tuple[FetchedImage, ...]]:
        yield ()


class Policies:
    """One live policy, and a candidate that a reload may change."""

    def __init__(self) -> None:
        self.next: Policy | None = None

    def select(self, topic: str) -> Policy | None:
        return LIVE

    def candidate(self, policy: Policy) -> Policy | None:
        return self.next


class Reloading(ScriptedJudge):
    """Policies are reloaded while it judges."""

    def __init__(self, policies: Policies) -> None:
        super().__init__()
        self._policies = policies

    async def judge(self, request: JudgeRequest) -> Judgement:
        self._policies.next = policy(version=3)
        return await super().judge(request)


def pipeline(policies: Policies, judge: ScriptedJudge, finished: list[Processed]) -> Pipeline:
    clock = ManualClock()
    return Pipeline(
        Evaluator(judge, NoStore(), clock),
        policies,
        OutputTopics(verdicts="v", quarantine="q", dead_letter="d", shadow="s"),
        PipelineLimits(max_event_bytes=10**6, max_output_bytes=10**6, max_images=4),
        clock,
        build="test",
        group="g",
        record=finished.append,
    )


def as_read(output: Output) -> Record:
    return Record(
        topic=output.topic,
        partition=0,
        offset=0,
        timestamp=0,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )


@pytest.mark.parametrize("poison", [False, True])
async def test_a_bug_in_reading_a_record_dead_letters_it(
    monkeypatch: pytest.MonkeyPatch, poison: bool
) -> None:
    """Ending the process would read it again in the next one, and in the next, for ever."""

    def broken(record: Record, *_: object, **__: object) -> Decoded:
        raise RuntimeError(str(record.value))

    monkeypatch.setattr("worker.processing.processor.decode_event", broken)
    finished: list[Processed] = []
    process = pipeline(Policies(), ScriptedJudge(), finished)
    record = input_record(event_document(id="secret"))
    outputs = await process(Delivery(record=record, poison=poison))
    (letter,) = [parse_dead_letter(as_read(output)) for output in outputs]
    assert (letter.code, letter.detail) == (DeadLetterCode.INTERNAL_ERROR, "RuntimeError")
    assert outputs[0].value == record.value
    assert [each.unreadable is not None for each in finished] == [True]


async def test_a_reload_while_an_event_is_judged_does_not_change_its_candidate() -> None:
    """The policies of an event are those of the moment it was begun."""
    policies = Policies()
    process = pipeline(policies, Reloading(policies), [])
    outputs = await process(Delivery(record=input_record(event_document())))
    assert [output.topic for output in outputs] == ["v"]
    assert policies.next is not None


class Slow(ScriptedJudge):
    """Answers candidates, whose phrase is ``slow``, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    async def judge(self, request: JudgeRequest) -> Judgement:
        if request.rubric == SLOW_RUBRIC:
            await self.release.wait()
        return await super().judge(request)


SLOW = policy(version=2, sha256="1" * 64, custom=CustomPass(disallowed=("slow",)))
SLOW_RUBRIC = passes(SLOW)[-1].rubric


def shadowed(judge: ScriptedJudge, candidate: Policy) -> Pipeline:
    policies = Policies()
    policies.next = candidate
    return pipeline(policies, judge, [])


async def test_a_candidate_that_is_ready_is_published_with_its_event() -> None:
    """Judged in one batch, the two verdicts stand in one transaction."""
    process = shadowed(ScriptedJudge(), policy(version=2))
    outputs = await process(Delivery(record=input_record(event_document())))
    assert [output.topic for output in outputs] == ["v", "s"]
    live, shadow = (msgspec.json.decode(each.value or b"", type=Verdict) for each in outputs)
    assert live.shadow_of is None
    assert shadow.shadow_of in (live.verdict_id, f"{LIVE.name}@{LIVE.version}")
    await process.stop()


async def test_a_slow_candidate_never_holds_up_the_live_verdict() -> None:
    """It is published with a later event instead, once."""
    judge = Slow()
    process = shadowed(judge, SLOW)
    delivery = Delivery(record=input_record(event_document()))
    async with asyncio.timeout(10):
        first = await process(delivery)
        assert [output.topic for output in first] == ["v"]
        judge.release.set()
        topics = [output.topic for output in await process(delivery)]
        while "s" not in topics:
            topics += [output.topic for output in await process(delivery)]
    assert topics[0] == "v"
    await process.stop()


def counted(found: Measured, result: str) -> float:
    return found.total(Metric.SHADOW, moderation_result=result)


async def test_a_burst_is_sampled_as_a_trickle_is() -> None:
    """The sample does not depend on load: what finds no room waits, and is judged later."""
    judge = Slow()
    process = shadowed(judge, SLOW)
    burst = 4 * MOST
    with measured() as found:
        for _ in range(burst):
            await process(Delivery(record=input_record(event_document())))
        judge.release.set()
        published = 0
        async with asyncio.timeout(30):
            while published < burst:
                again = Delivery(record=input_record(event_document()), poison=True)
                published += sum(output.topic == "s" for output in await process(again))
                await asyncio.sleep(0)
        counts = {each: counted(found, each) for each in ("sampled", "judged", "missed")}
    assert counts == {"sampled": burst, "judged": burst, "missed": 0}
    await process.stop()


async def test_candidates_that_pile_up_without_end_are_missed_and_counted() -> None:
    """A candidate whose judge hangs holds a bounded number of events; nobody has to guess."""
    process = shadowed(Slow(), SLOW)
    with measured() as found:
        for _ in range(MOST + WAITING + 5):
            await process(Delivery(record=input_record(event_document())))
        assert counted(found, "missed") == 5
        await process.stop()
        await asyncio.sleep(0)
        assert counted(found, "missed") == MOST + WAITING + 5


async def test_a_shadow_verdict_has_an_id_of_its_own_and_names_the_one_that_counts() -> None:
    """Joined by it; and two candidates of one event are two verdicts."""
    ids = set()
    for candidate in (SLOW, msgspec.structs.replace(SLOW, sha256="2" * 64)):
        judge = Slow()
        judge.release.set()
        process = shadowed(judge, candidate)
        outputs: list[Output] = []
        async with asyncio.timeout(10):
            while not any(output.topic == "s" for output in outputs):
                outputs += await process(Delivery(record=input_record(event_document())))
        found = {
            each.topic: msgspec.json.decode(each.value or b"", type=Verdict) for each in outputs
        }
        live, shadow = found["v"], found["s"]
        assert (shadow.shadow_of, shadow.kind) == (live.verdict_id, "shadow")
        assert (live.shadow_of, live.kind) == (None, "automatic")
        ids |= {live.verdict_id, shadow.verdict_id}
        await process.stop()
    assert len(ids) == 3


def test_the_sample_is_by_conversation() -> None:
    """All events of one conversation or none, about as many conversations as asked for."""
    names = [f"conversation-{number}" for number in range(20_000)]
    share = sum(sampled("p", name, 0.1) for name in names) / len(names)
    assert 0.09 < share < 0.11
    assert all(sampled("p", name, 1.0) for name in names[:100])
    assert not any(sampled("p", name, 0.0) for name in names[:100])


async def test_fields_that_are_ignored_are_counted_by_kind_and_never_named() -> None:
    """A misspelt field is a picture that nobody looks at."""

    message = {"role": "user", "text": "x", "image": "s3://b/k", "imagess": [], "mood": 1}
    kinds = ("near_miss", "known_synonym", "other")
    with measured() as found:
        await pipeline(Policies(), ScriptedJudge(), [])(
            Delivery(record=input_record(event_document(messages=[message])))
        )
        counts = [found.total(Metric.UNKNOWN_FIELDS, moderation_kind=kind) for kind in kinds]
    assert counts == [1, 1, 1]


async def test_an_untouchable_record_is_referred_to_and_nothing_of_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading it, as an event or for its trace, is what may have ended the worker."""

    def deadly(*_: object, **__: object) -> Decoded:
        raise AssertionError("it was read")

    monkeypatch.setattr("worker.processing.processor.decode_event", deadly)
    monkeypatch.setattr("worker.processing.processor.event_span", deadly)
    finished: list[Processed] = []
    process = pipeline(Policies(), ScriptedJudge(), finished)
    record = input_record(event_document(), headers=(("h", b"x"),))
    delivery = Delivery(record=record, poison=True, untouchable=True, attempts=7)
    (output,) = await process(delivery)
    letter = parse_dead_letter(as_read(output))
    assert (letter.code, letter.by_reference) == (DeadLetterCode.POISON, True)
    assert letter.detail == "it ended the worker 6 times"
    reference = msgspec.json.decode(output.value or b"", type=RecordReference)
    assert (reference.source.topic, reference.source.partition, reference.source.offset) == (
        record.topic,
        record.partition,
        record.offset,
    )
    assert reference.sha256 == hashlib.sha256(record.value or b"").hexdigest()
    assert (reference.size, output.key) == (len(record.value or b""), None)
    assert len(finished) == 1


@pytest.mark.parametrize("always", [False, True])
async def test_a_verdict_that_cannot_be_written_ends_somewhere_else(
    monkeypatch: pytest.MonkeyPatch, always: bool
) -> None:
    """As an undecided one, and where that fails too, as a reference in the dead letters."""
    calls = 0

    def broken(*args: Any, **more: Any) -> Output:
        nonlocal calls
        calls += 1
        if always or calls == 1:
            raise RuntimeError("a bug")
        return verdict_output(*args, **more)

    monkeypatch.setattr("worker.processing.processor.verdict_output", broken)
    process = pipeline(Policies(), ScriptedJudge(), [])
    outputs = await process(Delivery(record=input_record(event_document())))
    if always:
        letter = parse_dead_letter(as_read(outputs[0]))
        assert (letter.code, letter.by_reference) == (DeadLetterCode.INTERNAL_ERROR, True)
    else:
        verdict = msgspec.json.decode(outputs[0].value or b"", type=Verdict)
        assert verdict.undecided_reason == "internal_error"


@pytest.mark.parametrize(
    ("action", "review"), [("allow", None), ("flag", None), ("hold", True), ("block", False)]
)
async def test_held_and_blocked_content_is_kept_beside_its_verdict(
    monkeypatch: pytest.MonkeyPatch, action: Action, review: bool | None
) -> None:
    """Held for a person, blocked as evidence; both outputs go out together."""
    acting = policy(actions=Actions(default=action))
    policies = Policies()
    monkeypatch.setattr(policies, "select", lambda _: acting)
    event = event_document(messages=[{"role": "user", "text": "a grenade"}])
    process = pipeline(policies, ScriptedJudge(), [])
    with measured() as found:
        first, *more = await process(Delivery(record=input_record(event)))
        held = found.total(Metric.QUARANTINED, moderation_action=action)
    verdict = msgspec.json.decode(first.value or b"", type=Verdict)
    assert (first.topic, verdict.action) == ("v", action)
    assert held == (0 if review is None else 1), "what is held is counted by what was done"
    kept = [msgspec.json.decode(each.value or b"", type=QuarantineRecord) for each in more]
    assert [each.needs_review for each in kept] == ([] if review is None else [review])
    assert all(each.verdict == verdict for each in kept)


@pytest.mark.parametrize("timestamp", [-1, 0, 253_402_300_800_000, 2**63 - 1])
async def test_a_record_whose_clock_is_far_off_is_judged_as_any_other(timestamp: int) -> None:
    """Producers set what they like; -1 is Kafka's word for none. The verdict repeats it."""
    record = msgspec.structs.replace(input_record(event_document()), timestamp=timestamp)
    (output,) = await pipeline(Policies(), ScriptedJudge(), [])(Delivery(record=record))
    verdict = msgspec.json.decode(output.value or b"", type=Verdict)
    assert (verdict.outcome, verdict.source.timestamp) == ("safe", timestamp)
    unreadable = msgspec.structs.replace(record, value=b"no event")
    (output,) = await pipeline(Policies(), ScriptedJudge(), [])(Delivery(record=unreadable))
    assert parse_dead_letter(as_read(output)).source.timestamp == timestamp


async def test_accounts_that_fail_lose_no_verdict() -> None:
    """What is counted and logged must not decide about events."""

    def broken(_: Processed) -> None:
        raise RuntimeError("a bug")

    process = pipeline(Policies(), ScriptedJudge(), [])
    process._record = broken
    outputs = await process(Delivery(record=input_record(event_document())))
    assert [output.topic for output in outputs] == ["v"]


def pass_through() -> Policy:
    """The shipped policy that lets undecided events pass."""
    shipped = load_policy(Path(__file__).parents[2] / "policies" / "developer-tools.yaml")
    assert shipped.on_undecided == "pass"
    return shipped


def beside_a_fault(text: str) -> dict[str, bytes]:
    """One event a kind of fault; the last three are faults of no content."""
    user = {"role": "user", "text": text}
    many = [{"uri": f"s3://b/{number}"} for number in range(17)]
    pinned = [{"uri": "s3://b/k", "sha256": "0" * 300}]

    def document(**fields: object) -> bytes:
        return json.dumps(event_document(**{"messages": [user], **fields})).encode()

    return {
        "too many images": document(messages=[{**user, "images": many}]),
        "an over-long digest": document(messages=[{**user, "images": pinned}]),
        "another role behind it": document(messages=[user, {"role": "robot", "text": "hi"}]),
        "9,000 more words": document(messages=[{**user, "text": text + " and so on" * 9_000}]),
        "a malformed time": document(time="yesterday"),
        "a control character": document(locale="e\x00n"),
        "an unknown field twice": document()[:-1] + b', "x": 1, "x": 2}',
    }


@pytest.mark.parametrize("kind", list(beside_a_fault("")))
async def test_a_fault_beside_it_lets_nothing_past_the_floor(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Under the policy that passes what is undecided: the floor blocks, the unseen is held."""
    shipped = pass_through()
    monkeypatch.setattr(Policies, "select", lambda *_: shipped)
    monkeypatch.setattr(Policies, "candidate", lambda *_: None)
    no_content = kind in ("a malformed time", "a control character", "an unknown field twice")
    for text, expected in (
        ("a zibblefant", ("unsafe", "block")),
        ("hello there", ("undecided", "allow" if no_content else "hold")),
    ):
        finished: list[Processed] = []
        process = pipeline(Policies(), Crowded(), finished)
        await process(Delivery(record=input_record(beside_a_fault(text)[kind])))
        (done,) = finished
        assert done.evaluation is not None
        verdict = done.evaluation.verdict
        assert (verdict.outcome, verdict.action) == expected
        assert verdict.undecided_reason is not None


class Crowded(ScriptedJudge):
    """Its context takes 4,000 characters."""

    async def judge(self, request: JudgeRequest) -> Judgement:
        if len(request.user) > 4_000:
            raise Undecided(UndecidedReason.CONTEXT_TOO_LONG)
        return await super().judge(request)
