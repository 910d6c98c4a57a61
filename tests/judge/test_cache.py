"""Equal requests are judged once; nothing else is ever answered from memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.judgements import judgement, policy, thought
from worker.codes import SkippedReasoning, UndecidedReason
from worker.contracts.verdict import ModelRef
from worker.errors import DependencyUnavailable, Undecided, WorkerError
from worker.images import JudgeImage
from worker.judge.cache import CachingJudge, RequestKeys
from worker.judge.scripted import ScriptedJudge
from worker.judgement import Judgement, JudgeRequest, Rubric, ThinkPlan
from worker.outcome.decide import decide
from worker.outcome.passes import PassResult
from worker.policy.floor import FLOOR_THRESHOLD
from worker.policy.passes import builtin_rubric

RUBRIC = builtin_rubric(())
KEYS = RequestKeys()


def ask(user: str = "hello", **fields: object) -> JudgeRequest:
    base: dict[str, object] = {"user": user, "response": None, "rubric": RUBRIC}
    return JudgeRequest(**(base | fields))  # type: ignore[arg-type]


class CountingJudge(ScriptedJudge):
    """Counts what reaches it; ``gate`` holds answers back, ``answer`` replaces them."""

    def __init__(self, answer: Callable[[JudgeRequest], Judgement] | None = None) -> None:
        super().__init__()
        self.asked: list[JudgeRequest] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.revision = "r1"
        self._answer = answer

    def model(self, adapter: str | None = None) -> ModelRef:
        return msgspec.structs.replace(super().model(adapter), revision=self.revision)

    async def judge(self, request: JudgeRequest) -> Judgement:
        self.asked.append(request)
        await self.gate.wait()
        return self._answer(request) if self._answer else await super().judge(request)


@asynccontextmanager
async def remembering(
    inner: CountingJudge, max_bytes: int = 1 << 20
) -> AsyncIterator[CachingJudge]:
    judge = CachingJudge(inner, max_bytes)
    await judge.start()
    yield judge
    await judge.stop()


async def test_an_equal_request_is_answered_without_the_judge_and_says_so() -> None:
    """The same answer, with no time spent and no token read for it."""
    inner = CountingJudge()
    async with remembering(inner) as judge:
        first, second = [await judge.judge(ask("a grenade")) for _ in range(2)]
    assert len(inner.asked) == 1
    assert not first.cached
    assert second.cached
    assert (second.input_tokens, second.judge_ms) == (0, 0.0)
    spent = {"cached": False, "input_tokens": first.input_tokens, "output_tokens": 4}
    assert msgspec.structs.replace(second, **spent) == first


async def test_a_thousand_equal_requests_at_once_are_one_forward() -> None:
    """A spam wave comes faster than the first answer."""
    inner = CountingJudge()
    inner.gate.clear()
    async with remembering(inner) as judge:
        wave = [asyncio.ensure_future(judge.judge(ask("buy now"))) for _ in range(1000)]
        await asyncio.sleep(0)
        inner.gate.set()
        answers = await asyncio.gather(*wave)
        assert judge.figures().shared == 999
    assert len(inner.asked) == 1
    assert [each.cached for each in answers].count(False) == 1


async def test_a_request_that_is_given_up_takes_no_other_with_it() -> None:
    """The first of a wave is cancelled while it is judged: the next one is judged in its place."""
    inner = CountingJudge()
    inner.gate.clear()
    async with remembering(inner) as judge:
        wave = [asyncio.ensure_future(judge.judge(ask())) for _ in range(5)]
        await asyncio.sleep(0)
        wave[0].cancel()
        wave[3].cancel()
        await asyncio.sleep(0)
        inner.gate.set()
        answers = await asyncio.gather(*wave, return_exceptions=True)
    assert [isinstance(each, Judgement) for each in answers] == [False, True, True, False, True]
    assert len(inner.asked) == 2


@pytest.mark.parametrize(
    "error",
    [Undecided(UndecidedReason.OUT_OF_MEMORY), Undecided(UndecidedReason.MALFORMED_OUTPUT)],
)
async def test_an_undecided_answer_is_neither_kept_nor_shared(error: WorkerError) -> None:
    """The fault may have been that request's alone: everybody else gets a try of their own."""
    failing = [error]

    def answer(request: JudgeRequest) -> Judgement:
        if failing:
            raise failing.pop()
        return judgement()

    inner = CountingJudge(answer)
    inner.gate.clear()
    async with remembering(inner) as judge:
        wave = [asyncio.ensure_future(judge.judge(ask())) for _ in range(3)]
        await asyncio.sleep(0)
        inner.gate.set()
        answers = await asyncio.gather(*wave, return_exceptions=True)
    assert answers[0] is error
    assert all(isinstance(each, Judgement) for each in answers[1:])


async def test_an_outage_is_everybodys_and_is_not_kept() -> None:
    """Whoever waits pauses too, instead of asking the judge that is away once each."""
    away = [DependencyUnavailable("judge", "gone")]

    def answer(request: JudgeRequest) -> Judgement:
        if away:
            raise away.pop()
        return judgement()

    inner = CountingJudge(answer)
    inner.gate.clear()
    async with remembering(inner) as judge:
        wave = [asyncio.ensure_future(judge.judge(ask())) for _ in range(3)]
        await asyncio.sleep(0)
        inner.gate.set()
        answers = await asyncio.gather(*wave, return_exceptions=True)
        assert [isinstance(each, DependencyUnavailable) for each in answers] == [True] * 3
        assert len(inner.asked) == 1
        assert not (await judge.judge(ask())).cached


@pytest.mark.parametrize("skipped", [None, *SkippedReasoning])
async def test_an_answer_whose_trace_load_or_failure_took_is_not_kept(
    skipped: SkippedReasoning | None,
) -> None:
    """When the load is gone the next copy gets its trace; what the content did, it does again."""
    lasting = skipped in (None, SkippedReasoning.EMPTY, SkippedReasoning.UNCLOSED)
    inner = CountingJudge(lambda _: judgement(thought=thought(0.1, skipped=skipped)))
    async with remembering(inner) as judge:
        await judge.judge(ask())
        assert (await judge.judge(ask())).cached == lasting


async def test_a_request_that_forbids_it_is_always_judged() -> None:
    """``cache: false`` of a policy: neither taken from memory nor laid into it."""
    inner = CountingJudge()
    async with remembering(inner) as judge:
        await judge.judge(ask())
        assert not (await judge.judge(ask(cache=False))).cached
        await judge.judge(ask("other", cache=False))
        assert not (await judge.judge(ask("other"))).cached


async def test_another_model_never_answers_for_this_one() -> None:
    """A checkpoint that was exchanged under a running cache is asked anew."""
    inner = CountingJudge()
    async with remembering(inner) as judge:
        await judge.judge(ask())
        inner.revision = "r2"
        assert not (await judge.judge(ask())).cached


async def test_memory_stays_within_the_bound_and_the_least_recently_used_goes_first() -> None:
    """10,000 different answers in 100 kB: measured by the interpreter, not by our own sum."""
    inner = CountingJudge(lambda _: judgement(0.9, "Violence"))
    bound = 100_000
    async with remembering(inner, bound) as judge:
        await judge.judge(ask("first"))
        inner.asked.clear()
        tracemalloc.start()
        for number in range(10_000):
            await judge.judge(ask(f"text {number}"))
            inner.asked.clear()
            if number < 100:
                await judge.judge(ask("first"))
        held = sum(
            each.size
            for each in tracemalloc.take_snapshot().statistics("filename")
            if each.traceback[0].filename.endswith(("worker/judge/cache.py", "request_key.py"))
        )
        tracemalloc.stop()
        figures = judge.figures()
        assert figures.entries > 100
        assert figures.bytes <= bound
        assert held <= bound * 1.1
        assert not (await judge.judge(ask("first"))).cached
        assert (await judge.judge(ask("text 9999"))).cached


async def test_what_was_used_lately_stays() -> None:
    """A wave that goes on keeps its answer, whatever else passes by."""
    async with remembering(CountingJudge(), 20_000) as judge:
        for number in range(500):
            await judge.judge(ask("the wave"))
            await judge.judge(ask(f"text {number}"))
        assert judge.figures().hits == 499


async def test_no_content_is_kept() -> None:
    """Neither the key nor the entry holds what was said; keys differ from process to process."""
    async with remembering(CountingJudge()) as judge:
        await judge.judge(ask("a very secret message", response="a very secret answer"))
        kept = b"".join(key + value for key, value in judge._kept.items())
    assert b"secret" not in kept
    model = ScriptedJudge().model()
    assert RequestKeys().key(ask(), model) != RequestKeys().key(ask(), model)


@pytest.mark.parametrize("score", [0.0, FLOOR_THRESHOLD, 0.4])
async def test_a_cached_answer_meets_the_floor_again(score: float) -> None:
    """What lies past the floor is unsafe the second time too, under whatever policy asks."""
    async with remembering(CountingJudge(lambda _: judgement(0.2, floor=score))) as judge:
        answers = [await judge.judge(ask()) for _ in range(2)]
    strict, lenient = policy(), policy(on_undecided="pass")
    decisions = [
        decide(under, [PassResult(source="builtin", judgement=each)], ())
        for each in answers
        for under in (strict, lenient)
    ]
    expected = "unsafe" if score >= FLOOR_THRESHOLD else "safe"
    assert {each.outcome for each in decisions} == {expected}
    assert [each.cached for each in decisions] == [False, False, True, True]
    by = ("judge", "cache") if expected == "safe" else ("floor", "floor")
    assert (decisions[0].decided_by, decisions[2].decided_by) == by


IMAGE = JudgeImage(sha256="aa", width=2, height=2, rgb=bytes(12))
OTHER: dict[type[msgspec.Struct], dict[str, object]] = {
    JudgeRequest: {
        "user": "other",
        "response": "other",
        "earlier": (("user", "other"),),
        "image": None,
        "rubric": builtin_rubric(("Malware",)),
        "adapter": "other",
        "think": ThinkPlan(when="always"),
        "cache": True,  # False never comes to a key
    },
    Rubric: {"mode": "policy", "text": "other", "categories": ("other",), "sha256": "other"},
    ThinkPlan: {
        "when": "always",
        "threshold": 0.4,
        "band": (0.1, 0.2),
        "max_tokens": 7,
        "deadline_s": 0.7,
    },
    JudgeImage: {"sha256": "bb", "width": 3, "height": 3, "rgb": IMAGE.rgb},
    ModelRef: {
        "id": "other",
        "revision": "other",
        "adapter": "other",
        "template_sha256": "other",
        "numerics": "other",
    },
}


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (kind, field)
        for kind in OTHER
        for field in kind.__struct_fields__
        if field not in ("cache", "rgb")  # pixels follow from digest and size
    ],
)
def test_each_field_alone_changes_the_key(kind: type[msgspec.Struct], field: str) -> None:
    """A field that is added to a request without a line above fails here."""
    request, model = ask(image=IMAGE), ScriptedJudge().model()
    parts: dict[type[msgspec.Struct], msgspec.Struct] = {
        JudgeRequest: request,
        Rubric: request.rubric,
        ThinkPlan: request.think,
        JudgeImage: IMAGE,
        ModelRef: model,
    }
    changed = msgspec.structs.replace(parts[kind], **{field: OTHER[kind][field]})
    other, of = request, model
    if isinstance(changed, ModelRef):
        of = changed
    elif isinstance(changed, JudgeRequest):
        other = changed
    else:
        place = {Rubric: "rubric", ThinkPlan: "think", JudgeImage: "image"}[kind]
        other = msgspec.structs.replace(request, **{place: changed})
    assert KEYS.key(request, model) != KEYS.key(other, of)


_Struct = TypeVar("_Struct", bound=msgspec.Struct)
texts = st.text(st.characters(codec=None), max_size=8)
unit = st.floats(0, 1)
rubrics = st.builds(
    Rubric,
    mode=st.sampled_from(["builtin", "taxonomy", "policy"]),
    text=st.none() | st.text(max_size=4),
    categories=st.lists(st.text(max_size=3), max_size=3).map(tuple),
    sha256=st.text(max_size=4),
)
plans = st.builds(
    ThinkPlan,
    when=st.sampled_from(["never", "always", "unsafe", "uncertain"]),
    threshold=unit,
    band=st.tuples(unit, unit),
    max_tokens=st.integers(0, 99),
    deadline_s=unit,
)
# The pixels follow from the digest and the size.
images = st.builds(
    JudgeImage,
    sha256=st.text("ab", max_size=3),
    width=st.integers(1, 3),
    height=st.integers(1, 3),
    rgb=st.just(b""),
)
requests = st.builds(
    JudgeRequest,
    user=texts,
    response=st.none() | texts,
    earlier=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    image=st.none() | images,
    rubric=rubrics,
    adapter=st.none() | st.text(max_size=3),
    think=plans,
    cache=st.just(True),
)
models = st.builds(
    ModelRef,
    id=st.text(max_size=3),
    revision=st.text(max_size=3),
    adapter=st.none() | st.text(max_size=3),
    template_sha256=st.text(max_size=3),
    numerics=st.text(max_size=3),
)


@given(requests, models, requests, models, st.data())
def test_requests_have_one_key_only_if_everything_about_them_is_equal(
    request: JudgeRequest, model: ModelRef, other: JudgeRequest, of: ModelRef, data: st.DataObject
) -> None:
    """Any field of any part that changes changes the key: no answer of another policy or model."""
    mixed_request, mixed_model = _mixed(data, request, other), _mixed(data, model, of)
    rubric = _mixed(data, request.rubric, mixed_request.rubric)
    think = _mixed(data, request.think, mixed_request.think)
    mixed_request = msgspec.structs.replace(mixed_request, rubric=rubric, think=think)
    equal = (mixed_request, mixed_model) == (request, model)
    assert (KEYS.key(request, model) == KEYS.key(mixed_request, mixed_model)) == equal


def _some(data: st.DataObject, kind: type[msgspec.Struct]) -> list[str]:
    return data.draw(st.lists(st.sampled_from(kind.__struct_fields__), max_size=2))


def _mixed(data: st.DataObject, mine: _Struct, theirs: _Struct) -> _Struct:
    taken = {name: getattr(theirs, name) for name in _some(data, type(mine))}
    return msgspec.structs.replace(mine, **taken)
