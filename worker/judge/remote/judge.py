"""The remote judge: requests prepared in threads, questions put to one server, traces beside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath

import msgspec

from worker.clock import Clock, SystemClock
from worker.contracts.codes import SkippedReasoning, UndecidedReason
from worker.contracts.verdict import ModelRef
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided, WorkerError
from worker.judge.base import Judgement, JudgeRequest, Rubric, Thought
from worker.judge.remote.caller import Caller
from worker.judge.remote.client import Client
from worker.judge.remote.opening import Opened, open_server, probe_body, read_probe
from worker.judge.remote.prepare import BYTES_A_TOKEN, Prepared, Preparer
from worker.judge.remote.run import Run, Ways
from worker.judge.think import skipped, wanted
from worker.judge.think_budget import ThinkBudget
from worker.settings import JudgeSettings
from worker.telemetry import instruments
from worker.telemetry.names import Attribute

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
        instruments.queue_duration.record(run.waited, {Attribute.THINK: False})
        first = run.answers[0]
        estimate = len(prepared.user + (request.rubric.text or "")) // BYTES_A_TOKEN + 1
        return Judgement(
            user=reading.user,
            response=reading.response,
            categories=reading.categories,
            categories_complete=reading.categories_complete,
            floor_score=reading.floor_score,
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
