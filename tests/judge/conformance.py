"""What every judge promises. A judge's test module subclasses ``JudgeConformance``."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from worker.codes import SkippedReasoning, UndecidedReason
from worker.errors import DependencyUnavailable, Undecided
from worker.guard.nemotron35 import FLOOR, custom_policy, custom_taxonomy
from worker.images import JudgeImage
from worker.judge.base import Judge
from worker.judgement import Judgement, JudgeRequest, ThinkPlan
from worker.policy.passes import builtin_rubric, make_rubric

STOCK = builtin_rubric(())
RUBRICS = (
    STOCK,
    builtin_rubric(("Profanity", "Violence")),
    make_rubric("taxonomy", custom_taxonomy([("Secrets", "")]), ("Secrets", FLOOR)),
    make_rubric("policy", custom_policy("P", "D", ["bank of money"], []), ("bank of money", FLOOR)),
)
IMAGE = JudgeImage(sha256="ab" * 32, width=32, height=16, rgb=bytes(32 * 16 * 3))


def request(user: str = "How do I bake bread?", **fields: object) -> JudgeRequest:
    values: dict[str, object] = {"user": user, "response": None, "rubric": STOCK}
    return JudgeRequest(**(values | fields))  # type: ignore[arg-type]


def check(judgement: Judgement, asked: JudgeRequest) -> None:
    """A judgement that keeps the contract's own rules."""
    answered = asked.response is not None and bool(asked.response.strip())
    assert (judgement.response is not None) == answered
    for side in (judgement.user, judgement.response):
        if side is not None:
            assert 0.0 <= side.score <= 1.0
            assert (side.label == "unsafe") == (side.score >= 0.5)
    assert 0.0 <= judgement.floor_score <= 1.0
    for category in judgement.categories:
        assert category.name
        assert category.score is None or 0.0 <= category.score <= 1.0
    counted = judgement.context.included + judgement.context.omitted
    assert counted == len(asked.earlier)
    assert judgement.input_tokens > 0
    assert judgement.queue_ms >= 0.0
    assert judgement.judge_ms >= 0.0
    if asked.think.when == "never":
        assert judgement.thought is None


class JudgeConformance(ABC):
    """Promises of ``worker.judge.base.Judge``."""

    @abstractmethod
    def make(self) -> Judge:
        """An unstarted judge of its own."""

    @pytest_asyncio.fixture
    async def judge(self) -> AsyncIterator[Judge]:
        judge = self.make()
        await judge.start()
        yield judge
        await judge.stop()

    async def test_every_kind_of_request_is_judged_within_the_contract(self, judge: Judge) -> None:
        for rubric in RUBRICS:
            for fields in (
                {},
                {"response": "Mix flour and water."},
                {"image": IMAGE},
                {"image": IMAGE, "response": "A picture."},
                {"earlier": (("user", "hi"), ("assistant", "hello"))},
            ):
                asked = request(rubric=rubric, **fields)
                check(await judge.judge(asked), asked)

    async def test_equal_requests_get_equal_answers(self, judge: Judge) -> None:
        first, second = [await judge.judge(request("the same")) for _ in range(2)]
        assert first.user.label == second.user.label
        assert first.user.score == pytest.approx(second.user.score, abs=1e-4)

    async def test_many_concurrent_requests_each_get_their_own_answer(self, judge: Judge) -> None:
        """What is asked alone is answered the same among sixty others."""
        asked = [request(f"number {n} " * (n % 9 + 1), rubric=RUBRICS[n % 4]) for n in range(60)]
        together = await asyncio.gather(*(judge.judge(each) for each in asked))
        for index in (0, 17, 59):
            alone = await judge.judge(asked[index])
            assert together[index].user.score == pytest.approx(alone.user.score, abs=1e-4)

    async def test_neither_text_nor_image_is_undecided(self, judge: Judge) -> None:
        with pytest.raises(Undecided) as caught:
            await judge.judge(request("   "))
        assert caught.value.reason is UndecidedReason.EMPTY_MESSAGE

    async def test_an_image_needs_no_text(self, judge: Judge) -> None:
        asked = request("", image=IMAGE)
        check(await judge.judge(asked), asked)

    async def test_a_blank_response_is_no_response(self, judge: Judge) -> None:
        assert (await judge.judge(request(response=" \n"))).response is None

    async def test_thinking_stands_beside_the_answer_and_never_over_it(self, judge: Judge) -> None:
        """With ``always`` there is a thought or the reason for none; the answer is the same."""
        plain = await judge.judge(request())
        plan = ThinkPlan(when="always", max_tokens=24, deadline_s=60.0)
        thought = await judge.judge(request(think=plan))
        assert thought.user.label == plain.user.label
        assert thought.user.score == pytest.approx(plain.user.score, abs=1e-4)
        assert thought.thought is not None
        if thought.thought.skipped is None:
            assert thought.thought.trace
            assert thought.thought.user is not None
        else:
            assert thought.thought.skipped in set(SkippedReasoning)

    async def test_thinking_only_happens_where_the_score_asks_for_it(self, judge: Judge) -> None:
        never = ThinkPlan(when="unsafe", threshold=1.1)
        assert (await judge.judge(request(think=never))).thought is None
        outside = ThinkPlan(when="uncertain", band=(2.0, 3.0))
        assert (await judge.judge(request(think=outside))).thought is None

    async def test_a_cancelled_request_harms_no_other(self, judge: Judge) -> None:
        asked = [asyncio.ensure_future(judge.judge(request(f"case {n}"))) for n in range(8)]
        await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(result, Judgement) for result in results[1::2])

    async def test_the_model_is_named_the_same_every_time(self, judge: Judge) -> None:
        ref = judge.model()
        assert ref == judge.model()
        assert ref.id
        assert ref.revision
        assert ref.numerics
        assert len(ref.template_sha256) == 64

    async def test_an_idle_judge_is_not_stalled(self, judge: Judge) -> None:
        await judge.judge(request())
        assert judge.stalled_s() == 0.0

    async def test_a_stopped_judge_refuses_and_blames_no_event(self) -> None:
        judge = self.make()
        await judge.start()
        await judge.stop()
        with pytest.raises(DependencyUnavailable):
            await judge.judge(request())
