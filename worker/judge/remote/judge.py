"""The remote judge: requests prepared in threads, questions put to one server, traces beside."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePath
from typing import NamedTuple

import msgspec

from worker.clock import Clock, SystemClock
from worker.codes import SkippedReasoning, UndecidedReason
from worker.concurrency import together
from worker.contracts.verdict import ContextUse, ModelRef
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided, WorkerError
from worker.guard.base import Conversation, GuardModel, SideName
from worker.judge.local.requests import ScoreResult
from worker.judge.remote.answer import (
    Answer,
    Bound,
    Labelled,
    Line,
    answered_from,
    bound,
    decode_answer,
    places,
    read_labels,
    read_line,
    unsafe_end,
)
from worker.judge.remote.body import Question, messages
from worker.judge.remote.caller import Caller
from worker.judge.remote.client import GONE, Client, Failure
from worker.judge.remote.prepare import BYTES_A_TOKEN, Prepared, Preparer
from worker.judge.remote.server import (
    Opened,
    ServerWatch,
    Vocabulary,
    open_server,
    probe_body,
    read_probe,
)
from worker.judge.think import ThinkBudget, concluded, skipped, usable, wanted
from worker.judgement import CategoryScore, Judgement, JudgeRequest, Rubric, Side, Thought
from worker.policy.floor import FLOOR_THRESHOLD
from worker.settings import JudgeSettings
from worker.settings.sections import RemoteSettings
from worker.telemetry import instruments
from worker.telemetry.names import Attribute

# One prompt and its answers: the first one, and what has to be asked again to know the floor.
#
# ::
#
#     1  as it is                              labels, scores, the line where a side is unsafe
#     2  with `unsafe` preferred, just so far  the line, where a score counts that was written safe
#     3  with the line preferred               the line, where an unsafe answer has none
#     4  with the floor's next token preferred the floor's share, where alternatives leave it open
#
# A preference (``logit_bias``) is as large as the gap in log-probability that it must close, so
# what the server writes behind it is the model's own. Log-probabilities are those before any
# preference (vLLM's default); a server that lists them after it makes a floor likelier, never less
# likely.

MARGIN = 0.05
"""How far a preferred token is lifted above the one it replaces, in log-probability."""
MORE_QUESTIONS = 6
"""Most questions about the floor of one event; one token of its name a question."""

Send = Callable[[Mapping[int, float], Callable[[Answer], object]], Awaitable[Answer]]
"""Sends the question with these preferences; an answer the reader refuses is a failed one."""


class _Floor(NamedTuple):
    """The floor's share of the line: the most it can be, and whether that is all that is known."""

    share: float
    known: bool


class Part(NamedTuple):
    """What the answers to one prompt say; ``floor_asked`` as in ``Judgement``."""

    sides: Mapping[SideName, Side]
    categories: tuple[CategoryScore, ...] = ()
    categories_complete: bool = True
    floor_score: float = 0.0
    floor_asked: bool = True


class Session:
    """The questions about one prompt. ``answers`` are all that came, the first one first."""

    def __init__(
        self,
        send: Send,
        guard: GuardModel,
        vocabulary: Vocabulary | None,
        *,
        labels: Sequence[SideName],
        rubric: Rubric,
        threshold: float,
    ) -> None:
        self._send, self._guard, self._vocabulary = send, guard, vocabulary
        self._labels, self._rubric, self._threshold = labels, rubric, threshold
        self.answers: list[Answer] = []

    async def part(self, answer: Answer | None = None) -> Part:
        """Everything that is read of one prompt; ``answer`` is the first one, if it is there.

        Raises:
            Undecided: the answer cannot be read, or it is called safe and whether it breaks the
                floor cannot be found out.
        """
        answer = answer or await self.ask({}, self._labelled)
        found = self._labelled(answer)
        counted = found.written_unsafe or found.chance >= self._threshold
        if not counted and found.chance < FLOOR_THRESHOLD:
            return Part(found.sides)
        line, bias = found.line, dict[int, float]()
        if not found.written_unsafe:
            bias = self._preferring(self._threshold if counted else FLOOR_THRESHOLD)
            answer, line = await self._preferred(answer, bias)
        if line is None:
            answer, line, bias = await self._line_behind(answer, bias)
        if line is None:
            if not counted:
                raise _unchecked()
            # Unsafe without a category is never cleared, and a person looks: nobody could ask.
            return Part(found.sides, categories_complete=False, floor_asked=False)
        # As the local judge: of a safe event only the first name is asked for.
        looked_at = line if counted else replace(line, ends=())
        floor = await self._floor(answer, looked_at, bias, found.chance)
        if not counted and not floor.known:
            raise _unchecked()
        return Part(
            found.sides,
            categories=line.categories if counted else (),
            categories_complete=not counted or (line.complete and floor.known),
            floor_score=found.chance * floor.share,
            floor_asked=floor.known,
        )

    def _labelled(self, answer: Answer) -> Labelled:
        return read_labels(answer, self._guard, self._labels, self._rubric)

    def _line_of(self, answer: Answer) -> Line | None:
        return read_line(answer, self._guard, self._labels, self._rubric)

    async def ask(self, bias: Mapping[int, float], check: Callable[[Answer], object]) -> Answer:
        """One answer; where ``check`` refuses it, the question has failed."""
        answer = await self._send(bias, check)
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
            return answer, self._line_of(answer)
        except Undecided:  # the labels of the first answer stand all the same
            return first, None

    async def _line_behind(
        self, answer: Answer, bias: dict[int, float]
    ) -> tuple[Answer, Line | None, dict[int, float]]:
        """The line of an answer that has labels and stops there: its first token is preferred.

        The server writes it only where the token is among the alternatives to the end.
        """
        words = self._vocabulary
        end = unsafe_end(answer, self._guard, self._labels, self._rubric)
        if words is None or end is None:
            return answer, None, bias
        ending = next((each for each in answer.tokens if each.start == end), None)
        listed = dict(ending.others) if ending is not None else {}
        begins = words.line[0] if words.line else b""
        if ending is None or begins not in listed:
            return answer, None, bias
        token = words.ids[begins]
        preferred = bias | {token: bias.get(token, 0.0) + ending.logprob - listed[begins] + MARGIN}
        try:
            longer = await self.ask(preferred, lambda _: None)
        except Undecided:
            return answer, None, bias
        return longer, self._line_of(longer), preferred

    async def _floor(
        self, answer: Answer, line: Line, bias: Mapping[int, float], chance: float
    ) -> _Floor:
        words, guard = self._vocabulary, self._guard
        named = [each.score or 0.0 for each in line.categories if guard.is_floor(each.name)]
        first, further = (words.first, words.further) if words else ((), ())
        asked = 0
        most, known = max(named, default=0.0), True
        for place in places(line.start, line.ends, guard, first, further):
            found, preferred, current = bound(answer, place), dict(bias), answer
            while chance * found.most >= FLOOR_THRESHOLD > chance * found.spelled:
                if words is None or found.open is None or asked == MORE_QUESTIONS:
                    break
                token = words.ids.get(found.open.token)
                if token is None:
                    break
                asked += 1
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
        """Whether a token can only be the floor's name; a separator may stand before any other."""
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


def merged(parts: Sequence[Part]) -> ScoreResult:
    """One event's reading from the parts that its prompts gave: each label stands once, the worst
    of everything else counts."""
    sides = {name: side for part in parts for name, side in part.sides.items()}
    categories: dict[str, CategoryScore] = {}
    for each in (named for part in parts for named in part.categories):
        known = categories.get(each.name)
        if known is None or (each.score or 0.0) > (known.score or 0.0):
            categories[each.name] = each
    return ScoreResult(
        user=sides["user"],
        response=sides.get("response"),
        categories=tuple(categories.values()),
        categories_complete=all(part.categories_complete for part in parts),
        floor_score=max(part.floor_score for part in parts),
        floor_asked=all(part.floor_asked for part in parts),
    )


# A reasoning trace in an answer that was asked to think, wherever the server put it.


def trace_of(answer: Answer, guard: GuardModel, max_tokens: int) -> str | Thought:
    """The trace, or the Thought that says why there is none.

    It stands in the text between its tags, or, where the server has a parser for it, in a field of
    its own. One longer than ``max_tokens`` counts as unclosed, as it would be where writing stops
    there.
    """
    opening, closing = guard.trace_tags
    if answer.trace is not None and answer.trace.strip():
        trace = answer.trace.strip().removeprefix(opening).removesuffix(closing).strip()
        if not answer.text and answer.cut:
            return skipped(SkippedReasoning.UNCLOSED, trace)
        start = answer.start
    else:
        found = usable(answer.text, guard)
        if isinstance(found, Thought):
            return found
        trace, start = found, answer.place(answered_from(answer, guard))
    if sum(1 for token in answer.tokens if token.end <= start) > max_tokens:
        return skipped(SkippedReasoning.UNCLOSED, trace)
    return trace or skipped(SkippedReasoning.EMPTY)


# One request on its way through the server: the verdict's questions, then the trace's.

MAX_IN_LOOP_BYTES = 256 * 1024
"""Longest body that is decoded on the event loop; a longer one takes a thread."""


class SessionContext(NamedTuple):
    """What all requests share: the way to the server, its limits, threads for what takes time."""

    settings: RemoteSettings
    guard: GuardModel
    client: Client
    caller: Caller
    watch: ServerWatch
    vocabulary: Vocabulary | None
    verdicts: asyncio.Semaphore
    traces: asyncio.Semaphore
    in_thread: Callable[[Callable[[], object]], Awaitable[object]]


class Run:
    """``verdict`` first, then ``thought``. ``waited`` is in seconds, for a place in the lane.

    ``used`` says which earlier turns were in front of the model.
    """

    def __init__(
        self, context: SessionContext, request: JudgeRequest, prepared: Prepared, model: str
    ) -> None:
        self._context, self._request, self._prepared = context, request, prepared
        self._model = model
        self._prompts: list[tuple[Conversation, msgspec.Raw]] = []
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
        await self._encode(self._prepared.earlier)
        try:
            return await self._read()
        except Undecided as error:
            if error.reason is not UndecidedReason.CONTEXT_TOO_LONG or not self.used.included:
                raise
        self.used = ContextUse(omitted=self.used.included + self.used.omitted)
        await self._encode(())
        return await self._read()

    async def thought(self) -> Thought:
        """The trace, and the verdict behind it.

        Raises:
            Undecided, DependencyUnavailable: none was written.
        """
        plan, guard = self._request.think, self._context.guard
        ((conversation, messages),) = self._prompts  # a family that reasons has one prompt an event
        session = self._session(conversation, messages, think=True)
        answer = await session.ask({}, lambda _: None)
        self.answers.append(answer)
        trace = trace_of(answer, guard, plan.max_tokens)
        if isinstance(trace, Thought):
            return trace
        try:
            reading = merged([await session.part(answer)])
        except Undecided:
            return skipped(SkippedReasoning.FAILED, trace)
        return concluded(trace, reading)

    async def _read(self) -> ScoreResult:
        sessions = [self._session(*prompt, think=False) for prompt in self._prompts]
        try:
            return merged(await together(each.part() for each in sessions))
        finally:
            for each in sessions:
                self.answers += each.answers

    async def _encode(self, earlier: Sequence[tuple[str, str]]) -> None:
        prepared = self._prepared
        conversations = self._context.guard.conversations(prepared.user, prepared.response, earlier)

        def encode() -> list[bytes]:
            return [msgspec.json.encode(messages(each, prepared.image)) for each in conversations]

        found = await self._context.in_thread(encode)
        assert isinstance(found, list)
        self._prompts = [
            (each, msgspec.Raw(body)) for each, body in zip(conversations, found, strict=True)
        ]

    def _session(
        self, conversation: Conversation, messages: msgspec.Raw, *, think: bool
    ) -> Session:
        context, request, rubric = self._context, self._request, self._request.rubric
        guard = context.guard
        room = request.think.max_tokens if think else 0
        own = guard.template_kwargs(rubric.mode, rubric.text, think=think)
        question = Question(
            model=self._model,
            messages=messages,
            kwargs={**context.settings.template_kwargs, **own},
            budget=room + guard.answer_tokens(rubric.mode),
            top_logprobs=context.settings.top_logprobs,
        )
        lane = context.traces if think else context.verdicts
        attempts = 1 if think else context.settings.attempts

        async def send(bias: Mapping[int, float], check: Callable[[Answer], object]) -> Answer:
            async def once() -> Answer:
                path, timeout_s = "chat/completions", context.settings.timeout_s
                try:
                    body = await context.client.post(path, question.body(bias), timeout_s)
                except Failure as failure:
                    if failure.kind in GONE:
                        context.watch.failed()
                    raise
                answer = await self._decoded(body)
                check(answer)
                return answer

            answer, waited = await context.caller.ask(
                once, lane, attempts=attempts, subject=self._subject
            )
            context.watch.answered(question.model, answer)
            self.waited += 0.0 if think else waited
            return answer

        return Session(
            send,
            guard,
            context.vocabulary,
            labels=conversation.labels,
            rubric=rubric,
            threshold=request.think.threshold,
        )

    async def _decoded(self, body: bytes) -> Answer:
        if len(body) <= MAX_IN_LOOP_BYTES:
            return decode_answer(body)
        return await asyncio.to_thread(decode_answer, body)


_PREPARING = 2
"""Threads that defuse texts and encode images."""
PROBE_TIMEOUT_S = 10.0
"""Longest wait for the answer to a probe."""


class RemoteJudge:
    """Judges with a server that speaks the OpenAI chat API (implements ``base.Judge``)."""

    def __init__(self, settings: JudgeSettings, *, clock: Clock | None = None) -> None:
        self._settings, self._remote = settings, settings.remote
        self._clock = clock or SystemClock()
        self._guard = settings.guard
        self._preparer = Preparer(self._guard, settings.context_budget)
        self._threads = ThreadPoolExecutor(_PREPARING, thread_name_prefix="judge-prepare")
        self._client: Client | None = None
        self._opened: Opened | None = None
        self._watch: ServerWatch | None = None
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
            opened = await open_server(self._client, self._settings, self._clock)
            self._watch = ServerWatch(self._client, self._settings, self._clock, opened)
            self._opened = opened
        except BaseException:
            await self.stop()
            raise

    async def load_adapter(self, adapter: str) -> None:
        """See that the server serves an adapter, under the name of its directory.

        Raises:
            ConfigurationError: it does not.
        """
        names, name = self._watched().names, self._name(adapter)
        if name not in names:
            raise ConfigurationError(
                f"adapter {name}: the server serves {', '.join(sorted(names))}; serve it under the "
                "name of its directory"
            )

    async def prepare(self, rubric: Rubric, adapter: str | None = None) -> None:
        """See that the server's template can be told of a rubric; it keeps its own caches.

        Raises:
            ConfigurationError: a switch that the rubric needs has no effect there.
        """
        own = self._guard.template_kwargs(rubric.mode, rubric.text, think=False)
        if missing := sorted(self._started().deaf & own.keys()):
            raise ConfigurationError(
                f"judge.remote: {', '.join(missing)} in chat_template_kwargs has no effect, so the "
                "server cannot be told of this policy; serve the checkpoint with a template that "
                "has it"
            )

    async def judge(self, request: JudgeRequest) -> Judgement:
        opened = self._started()
        if self._stopped:
            raise DependencyUnavailable("judge", "it is stopped")
        watch = self._watched()
        await watch.admit()
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
        run = Run(self._context(watch), request, prepared, model)
        try:
            reading = await run.verdict()
        except DependencyUnavailable:
            if self._caller.breaker.is_open:
                watch.failed()
            raise
        await watch.confirm()
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
        if self._watch is not None:
            await self._watch.stop()
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
        body = probe_body(opened.served.model, self._settings)
        answer = await self._client.post("chat/completions", body, timeout_s)
        return read_probe(answer, self._guard)

    def _context(self, watch: ServerWatch) -> SessionContext:
        assert self._client is not None
        return SessionContext(
            settings=self._remote,
            guard=self._guard,
            client=self._client,
            caller=self._caller,
            watch=watch,
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

    def _watched(self) -> ServerWatch:
        if self._watch is None:
            raise DependencyUnavailable("judge", "it is not started")
        return self._watch

    def _started(self) -> Opened:
        if self._opened is None:
            raise DependencyUnavailable("judge", "it is not started")
        return self._opened
