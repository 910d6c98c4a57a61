"""The remote judge: requests prepared in threads, questions put to one server, traces beside."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import NamedTuple, TypeVar

import msgspec

from worker.clock import Clock, SystemClock
from worker.codes import SkippedReasoning, UndecidedReason
from worker.contracts.verdict import ContextUse, ModelRef
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided, WorkerError
from worker.guard.taxonomy import FLOOR
from worker.judge.local.requests import ScoreResult
from worker.judge.remote.answer import (
    Answer,
    Bound,
    Line,
    Sides,
    answered_from,
    bound,
    decode_answer,
    places,
    read_line,
    read_sides,
)
from worker.judge.remote.body import Question, answer_budget, messages, template_kwargs
from worker.judge.remote.caller import Caller
from worker.judge.remote.client import Client
from worker.judge.remote.prepare import BYTES_A_TOKEN, Prepared, Preparer
from worker.judge.remote.server import Opened, Vocabulary, open_server, probe_body, read_probe
from worker.judge.think import ThinkBudget, concluded, skipped, usable, wanted
from worker.judgement import Judgement, JudgeRequest, Rubric, Thought
from worker.policy.floor import FLOOR_THRESHOLD
from worker.settings import JudgeSettings
from worker.settings.sections import RemoteSettings
from worker.telemetry import instruments
from worker.telemetry.names import Attribute

# One pass over one conversation: the answer, and what has to be asked again to know the floor.
#
# ::
#
#     1  as it is                              labels, scores, the line where a side is written
#     unsafe
#     2  with `unsafe` preferred, just so far  the line, where a score counts that was written safe
#     3  with the floor's next token preferred the floor's share, where alternatives leave it open
#
# A preference (``logit_bias``) is as large as the gap in log-probability that it must close, so
# what
# the server writes behind it is the model's own. Log-probabilities are those before any preference
# (vLLM's default); a server that lists them after it makes a floor likelier, never less likely.

MARGIN = 0.05
"""How far a preferred token is lifted above the one it replaces, in log-probability."""
MORE_QUESTIONS = 6
"""Most questions about the floor of one event; one token of its name a question."""

Put = Callable[[Mapping[int, float], Callable[[Answer], object]], Awaitable[Answer]]
"""Puts the question with these preferences; an answer the reader refuses is a failed one."""


@dataclass(frozen=True)
class _Floor:
    """The floor's share of the line: the most it can be, and whether that is all that is known."""

    share: float
    known: bool


class Inquiry:
    """Questions about one conversation. ``answers`` are all that came, the first one first."""

    def __init__(
        self,
        put: Put,
        vocabulary: Vocabulary | None,
        *,
        response: bool,
        rubric: Rubric,
        threshold: float,
    ) -> None:
        self._put, self._vocabulary = put, vocabulary
        self._response, self._rubric, self._threshold = response, rubric, threshold
        self.answers: list[Answer] = []

    async def reading(self, answer: Answer | None = None) -> ScoreResult:
        """Everything that is read from one context; ``answer`` is the first one, if it is there.

        Raises:
            Undecided: the answer cannot be read, or it is called safe and whether it breaks the
                floor cannot be found out.
        """
        answer = answer or await self.ask({}, self._sides)
        sides = self._sides(answer)
        scores = [sides.user.score, sides.response.score if sides.response else 0.0]
        counted = sides.written_unsafe or max(scores) >= self._threshold
        reading = ScoreResult(user=sides.user, response=sides.response)
        if not counted and max(scores) < FLOOR_THRESHOLD:
            return reading
        line, bias = sides.line, dict[int, float]()
        if not sides.written_unsafe:
            bias = self._preferring(self._threshold if counted else FLOOR_THRESHOLD)
            answer, line = await self._preferred(answer, bias)
        if line is None:
            return self._without_line(reading, counted)
        # As the local judge: of a safe event only the first name is asked for.
        looked_at = line if counted else replace(line, ends=())
        floor = await self._floor(answer, looked_at, bias, sides.chance)
        if not counted and not floor.known:
            raise _unchecked()
        return ScoreResult(
            user=sides.user,
            response=sides.response,
            categories=line.categories if counted else (),
            categories_complete=not counted or (line.complete and floor.known),
            floor_score=sides.chance * floor.share,
            floor_asked=floor.known,
        )

    def _sides(self, answer: Answer) -> Sides:
        return read_sides(answer, response=self._response, rubric=self._rubric)

    async def ask(self, bias: Mapping[int, float], check: Callable[[Answer], object]) -> Answer:
        """One answer; where ``check`` refuses it, the question has failed."""
        answer = await self._put(bias, check)
        self.answers.append(answer)
        return answer

    def _preferring(self, score: float) -> dict[int, float]:
        """The preference under which every side with this score or more is written unsafe."""
        if self._vocabulary is None:
            return {}
        score = max(score, 1e-6)
        return {self._vocabulary.unsafe: max(0.0, math.log((1.0 - score) / score)) + MARGIN}

    async def _preferred(self, first: Answer, bias: dict[int, float]) -> tuple[Answer, Line | None]:
        if not bias:
            return first, None
        try:
            answer = await self.ask(bias, lambda _: None)
            return answer, read_line(answer, response=self._response, rubric=self._rubric)
        except Undecided:  # the labels of the first answer stand all the same
            return first, None

    def _without_line(self, reading: ScoreResult, counted: bool) -> ScoreResult:
        """Unsafe without a category is never cleared, and says that the floor was not asked; safe
        without a look at the floor is none."""
        if not counted:
            raise _unchecked()
        return msgspec.structs.replace(reading, categories_complete=False, floor_asked=False)

    async def _floor(
        self, answer: Answer, line: Line, bias: Mapping[int, float], chance: float
    ) -> _Floor:
        words = self._vocabulary
        spelled = max((c.score or 0.0 for c in line.categories if c.name == FLOOR), default=0.0)
        first, further = (words.first, words.further) if words else ((), ())
        asked = 0
        most, known = spelled, True
        for place in places(line.start, line.ends, first, further):
            found, preferred, current = bound(answer, place), dict(bias), answer
            while chance * found.most >= FLOOR_THRESHOLD > chance * found.spelled:
                if words is None or found.open is None or asked == MORE_QUESTIONS:
                    break
                asked += 1
                token = words.ids[found.open.token]
                preferred[token] = preferred.get(token, 0.0) + found.open.gap + MARGIN
                further_answer = await self._again(preferred, current, found)
                if further_answer is None:
                    break
                current = further_answer
                found = bound(current, place)
            settled = chance * found.most < FLOOR_THRESHOLD or found.spelled > 0.0
            if settled or (found.open is not None and self._names_floor(found.open.token)):
                most = max(most, found.most)
            else:
                most, known = max(most, found.spelled), False
        return _Floor(most, known or chance * most >= FLOOR_THRESHOLD)

    def _names_floor(self, token: bytes) -> bool:
        """Whether a token can only be the floor's name; a comma may stand before any other."""
        return self._vocabulary is not None and token in self._vocabulary.first

    async def _again(
        self, preferred: Mapping[int, float], current: Answer, found: Bound
    ) -> Answer | None:
        """The answer that goes on with the open token at its place; None where it does not."""
        assert found.open is not None
        at, token = found.open.at, found.open.token
        try:
            answer = await self.ask(preferred, lambda _: None)
        except Undecided:
            return None
        same = answer.spelled[:at] == current.spelled[:at]
        written = any(each.start == at and each.text == token for each in answer.tokens)
        return answer if same and written else None


def _unchecked() -> Undecided:
    return Undecided(
        UndecidedReason.FLOOR_UNCHECKED, detail="the server cannot be asked about the floor"
    )


# A reasoning trace in an answer that was asked to think, wherever the server put it.


def trace_of(answer: Answer, max_tokens: int) -> str | Thought:
    """The trace, or the Thought that says why there is none.

    It stands in the text between ``<think>`` and ``</think>``, or, where the server has a parser
    for it, in a field of its own. One longer than ``max_tokens`` counts as unclosed, as it would
    be where writing stops there.
    """
    if answer.trace is not None and answer.trace.strip():
        trace = answer.trace.strip().removeprefix("<think>").removesuffix("</think>").strip()
        if not answer.text and answer.cut:
            return skipped(SkippedReasoning.UNCLOSED, trace)
        start = answer.start
    else:
        found = usable(answer.text)
        if isinstance(found, Thought):
            return found
        trace, start = found, answer.place(answered_from(answer))
    if sum(1 for token in answer.tokens if token.end <= start) > max_tokens:
        return skipped(SkippedReasoning.UNCLOSED, trace)
    return trace or skipped(SkippedReasoning.EMPTY)


# One request on its way through the server: the verdict's questions, then the trace's.

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
        image = request.image.sha256 if request.image else None
        said = (request.user, request.response, request.earlier, image)
        self._subject = hash((said, request.rubric.sha256))
        self.answers: list[Answer] = []
        self.waited = 0.0
        self.used = prepared.used

    async def verdict(self) -> ScoreResult:
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

    async def _read(self) -> ScoreResult:
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

            answer, waited = await ways.caller.ask(
                send, lane, attempts=attempts, subject=self._subject
            )
            self.waited += 0.0 if think else waited
            return answer

        return Inquiry(
            put,
            ways.vocabulary,
            response=self._prepared.response is not None,
            rubric=rubric,
            threshold=request.think.threshold,
        )


_PREPARING = 2
"""Threads that defuse texts and encode images."""
PROBE_TIMEOUT_S = 10.0
"""Longest wait for the answer to a probe."""


class RemoteJudge:
    """Judges with a server that speaks the OpenAI chat API (implements ``base.Judge``)."""

    def __init__(self, settings: JudgeSettings, *, clock: Clock | None = None) -> None:
        self._settings, self._remote = settings, settings.remote
        self._clock = clock or SystemClock()
        self._preparer = Preparer(settings.context_budget)
        self._threads = ThreadPoolExecutor(_PREPARING, thread_name_prefix="judge-prepare")
        self._client: Client | None = None
        self._opened: Opened | None = None
        self._stopped = False
        self._refs: dict[str | None, ModelRef] = {}
        self._thinking = 0
        self._budget = ThinkBudget(settings.think_tokens_per_s, self._clock)
        self._caller = Caller(self._remote, self._clock, self._probe)

    def model(self, adapter: str | None = None) -> ModelRef:
        ref = self._refs.get(adapter)
        if ref is None:
            ref = self._started().ref
            if adapter is not None:
                ref = msgspec.structs.replace(ref, adapter=f"served:{self._name(adapter)}")
            self._refs[adapter] = ref
        return ref

    async def start(self) -> None:
        """Find the server, learn what it serves, and judge one case.

        Raises:
            ConfigurationError: what answers cannot judge, or is told to wrongly.
            DependencyUnavailable: nothing answered within ``judge.remote.start_timeout_s``.
        """
        self._verdicts = asyncio.Semaphore(self._remote.concurrency)
        self._traces = asyncio.Semaphore(self._settings.think_lane)
        self._client = Client(self._remote)
        try:
            self._opened = await open_server(self._client, self._settings, self._clock)
        except BaseException:
            await self.stop()
            raise

    async def load_adapter(self, adapter: str) -> None:
        """See that the server serves an adapter, under the name of its directory.

        Raises:
            ConfigurationError: it does not.
        """
        names, name = self._started().served.names, self._name(adapter)
        if name not in names:
            raise ConfigurationError(
                f"adapter {name}: the server serves {', '.join(sorted(names))}; serve it under the "
                "name of its directory"
            )

    async def prepare(self, rubric: Rubric, adapter: str | None = None) -> None:
        """The server keeps its own caches."""

    async def judge(self, request: JudgeRequest) -> Judgement:
        opened = self._started()
        if self._stopped:
            raise DependencyUnavailable("judge", "it is stopped")
        model = opened.served.model
        if request.adapter is not None:
            try:
                await self.load_adapter(request.adapter)
            except ConfigurationError as error:
                # The operator's fault, not the event's: it waits until the adapter is served.
                raise DependencyUnavailable("judge", str(error)) from error
            model = self._name(request.adapter)
        began = self._clock.monotonic()
        prepared = await self._in_thread(lambda: self._preparer.prepare(request))
        assert isinstance(prepared, Prepared)
        run = Run(self._ways(), request, prepared, model)
        reading = await run.verdict()
        thought = None
        if wanted(request.think, reading.user, reading.response):
            thought = await self._think(run, request)
        elapsed = self._clock.monotonic() - began
        instruments.queue_duration.record(run.waited, {Attribute.THINK: "no"})
        first = run.answers[0]
        estimate = len(prepared.user + (request.rubric.text or "")) // BYTES_A_TOKEN + 1
        return Judgement(
            user=reading.user,
            response=reading.response,
            categories=reading.categories,
            categories_complete=reading.categories_complete,
            floor_score=reading.floor_score,
            floor_asked=reading.floor_asked,
            thought=thought,
            neutralised=prepared.names,
            context=run.used,
            input_tokens=first.input_tokens or estimate,
            output_tokens=sum(answer.output_tokens for answer in run.answers),
            queue_ms=run.waited * 1e3,
            judge_ms=max(0.0, elapsed - run.waited) * 1e3,
        )

    def stalled_s(self) -> float:
        """Seconds of the oldest request in flight, which its own time-out ends."""
        return self._caller.stalled_s()

    async def stop(self) -> None:
        self._stopped = True
        await self._caller.stop()
        if self._client is not None:
            await self._client.close()
        self._threads.shutdown(wait=False)

    async def _think(self, run: Run, request: JudgeRequest) -> Thought:
        """A thought, whatever happens: the verdict already stands."""
        tokens = request.think.max_tokens
        if self._thinking >= self._settings.think_lane or not self._budget.take(tokens):
            return skipped(SkippedReasoning.OVERLOAD)
        self._thinking += 1
        before = len(run.answers)
        try:
            async with asyncio.timeout(request.think.deadline_s):
                thought = await run.thought()
                # Of one that was given up nobody knows what the server wrote.
                written = sum(answer.output_tokens for answer in run.answers[before:])
                self._budget.give_back(max(0, tokens - written))
                return thought
        except TimeoutError:
            return skipped(SkippedReasoning.DEADLINE)
        except (Undecided, DependencyUnavailable):
            return skipped(SkippedReasoning.FAILED)
        finally:
            self._thinking -= 1

    async def _probe(self) -> object:
        """A question of our own, outside every lane: does the server answer at all?"""
        opened = self._started()
        assert self._client is not None
        timeout_s = min(self._remote.timeout_s, PROBE_TIMEOUT_S)
        body = probe_body(opened.served.model, self._remote)
        return read_probe(await self._client.post("chat/completions", body, timeout_s))

    def _ways(self) -> Ways:
        assert self._client is not None
        return Ways(
            settings=self._remote,
            client=self._client,
            caller=self._caller,
            vocabulary=self._started().vocabulary,
            verdicts=self._verdicts,
            traces=self._traces,
            in_thread=self._in_thread,
        )

    async def _in_thread(self, work: Callable[[], object]) -> object:
        """Run what takes time off the event loop.

        Raises:
            Undecided: ``internal_error`` where it fails in a way nobody thought of.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except WorkerError:
            raise
        except Exception as error:  # an image that lies about its size
            raise Undecided(UndecidedReason.INTERNAL_ERROR, detail=type(error).__name__) from error

    def _name(self, adapter: str) -> str:
        return PurePath(adapter).name

    def _started(self) -> Opened:
        if self._opened is None:
            raise DependencyUnavailable("judge", "it is not started")
        return self._opened
