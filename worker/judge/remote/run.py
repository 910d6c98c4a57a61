"""One request on its way through the server: the verdict's questions, then the trace's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from worker.contracts.codes import SkippedReasoning, UndecidedReason
from worker.contracts.verdict import ContextUse
from worker.errors import Undecided
from worker.judge.base import JudgeRequest, Thought
from worker.judge.reading import Reading
from worker.judge.remote.answer import Answer, decode_answer
from worker.judge.remote.body import Question, answer_budget, messages, template_kwargs
from worker.judge.remote.caller import Caller
from worker.judge.remote.client import Client
from worker.judge.remote.inquiry import Inquiry
from worker.judge.remote.prepare import Prepared
from worker.judge.remote.trace import trace_of
from worker.judge.remote.vocabulary import Vocabulary
from worker.judge.think import concluded, skipped
from worker.settings_remote import RemoteSettings

T = TypeVar("T")


class Ways(NamedTuple):
    """What every run shares: the way to the server, its limits, and threads for what takes time."""

    settings: RemoteSettings
    client: Client
    caller: Caller
    vocabulary: Vocabulary | None
    verdicts: asyncio.Semaphore
    traces: asyncio.Semaphore
    in_thread: Callable[[Callable[[], object]], Awaitable[object]]


class Run:
    """``verdict`` first, then ``thought``. ``waited`` is in seconds, for a place in the lane.

    ``used`` says which earlier turns were in front of the model.
    """

    def __init__(self, ways: Ways, request: JudgeRequest, prepared: Prepared, model: str) -> None:
        self._ways, self._request, self._prepared = ways, request, prepared
        self._model = model
        self._messages = msgspec.Raw()
        self.answers: list[Answer] = []
        self.waited = 0.0
        self.used = prepared.used

    async def verdict(self) -> Reading:
        """The reading without a trace. Earlier turns are left out where the server has no room.

        Raises:
            Undecided: this event cannot be judged. DependencyUnavailable: the server is away.
        """
        await self._encode(earlier=True)
        try:
            return await self._read()
        except Undecided as error:
            if error.reason is not UndecidedReason.CONTEXT_TOO_LONG or not self.used.included:
                raise
        self.used = ContextUse(omitted=self.used.included + self.used.omitted)
        await self._encode(earlier=False)
        return await self._read()

    async def thought(self) -> Thought:
        """The trace, and the verdict behind it.

        Raises:
            Undecided, DependencyUnavailable: none was written.
        """
        plan = self._request.think
        inquiry = self._inquiry(think=True)
        answer = await inquiry.ask({}, lambda _: None)
        self.answers.append(answer)
        trace = trace_of(answer, plan.max_tokens)
        if isinstance(trace, Thought):
            return trace
        try:
            reading = await inquiry.reading(answer)
        except Undecided:
            return skipped(SkippedReasoning.FAILED, trace)
        return concluded(trace, reading)

    async def _read(self) -> Reading:
        inquiry = self._inquiry(think=False)
        try:
            return await inquiry.reading()
        finally:
            self.answers += inquiry.answers

    async def _encode(self, *, earlier: bool) -> None:
        found = await self._ways.in_thread(
            lambda: msgspec.json.encode(messages(self._prepared, earlier=earlier))
        )
        assert isinstance(found, bytes)
        self._messages = msgspec.Raw(found)

    def _inquiry(self, *, think: bool) -> Inquiry:
        ways, request, rubric = self._ways, self._request, self._request.rubric
        room = request.think.max_tokens if think else 0
        question = Question(
            model=self._model,
            messages=self._messages,
            kwargs=template_kwargs(rubric, think=think, further=ways.settings.template_kwargs),
            budget=room + answer_budget(rubric),
            top_logprobs=ways.settings.top_logprobs,
        )
        lane = ways.traces if think else ways.verdicts
        attempts = 1 if think else ways.settings.attempts

        async def put(bias: Mapping[int, float], check: Callable[[Answer], object]) -> Answer:
            async def send() -> Answer:
                body = question.body(bias)
                path, timeout_s = "chat/completions", ways.settings.timeout_s
                answer = decode_answer(await ways.client.post(path, body, timeout_s))
                check(answer)
                return answer

            answer, waited = await ways.caller.ask(send, lane, attempts=attempts)
            self.waited += 0.0 if think else waited
            return answer

        return Inquiry(
            put,
            ways.vocabulary,
            response=self._prepared.response is not None,
            rubric=rubric,
            threshold=request.think.threshold,
        )
