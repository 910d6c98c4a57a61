"""The local judge: prompts prepared in threads, contexts batched on the device, traces beside."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import torch

from worker.clock import Clock, SystemClock
from worker.codes import SkippedReasoning, UndecidedReason
from worker.contracts.verdict import ModelRef
from worker.digests import directory_digest
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided, WorkerError
from worker.judge.engine.device import EngineDevice
from worker.judge.local.device import Device
from worker.judge.local.label_scores import MIN_CONSTANT, Limits
from worker.judge.local.loading import Checkpoint, fit_device, load
from worker.judge.local.prompt import Prepared, Prompter, answer_budget
from worker.judge.local.requests import (
    NEVER,
    ReasoningRequest,
    ReasoningResult,
    ScoreRequest,
    ScoreResult,
)
from worker.judge.local.scheduler import LaneFull, Scheduler, Timed
from worker.judge.reference.device import PlainDevice
from worker.judge.statistics import Kept
from worker.judge.think import MIN_TRACE, ThinkBudget, concluded, skipped, usable, wanted
from worker.judgement import Judgement, JudgeRequest, Rubric, Thought
from worker.settings import JudgeSettings
from worker.telemetry.names import Span
from worker.telemetry.tracing import finished_span

logger = logging.getLogger(__name__)

_PREPARING = max(2, min(8, (os.cpu_count() or 2) // 2))
"""Threads that tokenise and preprocess images; both let go of the interpreter while they work."""


class LocalJudge:
    """Judges with a Gemma 3 checkpoint on this machine (implements ``base.Judge``).

    ``wrap`` puts something in front of the device (tests inject faults with it); ``min_constant``
    is the probability of the answer's constant text below which an answer is decoded instead of
    read. Who watches ``stalled_s`` ends a process whose device hangs (``judge.watchdog``).
    """

    def __init__(
        self,
        settings: JudgeSettings,
        *,
        clock: Clock | None = None,
        wrap: Callable[[Device], Device] = lambda device: device,
        min_constant: float = MIN_CONSTANT,
    ) -> None:
        self._settings, self._clock, self._wrap = settings, clock or SystemClock(), wrap
        self._min_constant = min_constant
        self._checkpoint: Checkpoint | None = None
        self._stopped = False
        self._loading = threading.Lock()
        self._threads = ThreadPoolExecutor(_PREPARING, thread_name_prefix="judge-prepare")
        self._refs: dict[str | None, ModelRef] = {}
        """Digest of each adapter that was loaded, by the directory it came from."""
        self._budget = ThinkBudget(settings.think_tokens_per_s, self._clock)

    @property
    def checkpoint(self) -> Checkpoint:
        """What was loaded; its ``differences`` are those of its template from the known one."""
        return self._loaded()

    def model(self, adapter: str | None = None) -> ModelRef:
        ref = self._refs.get(adapter)
        if ref is None:
            ref = self._loaded().ref
            if adapter is not None:
                digest = self._device.replicas.digests.get(adapter)
                if digest is None:  # nothing was judged with it yet, so nothing is kept of it
                    try:
                        digest = _adapter_digest(adapter)
                    except ConfigurationError as error:  # as ``judge``: until it is mended
                        raise DependencyUnavailable("judge", str(error)) from error
                    return msgspec.structs.replace(ref, adapter=f"sha256:{digest}")
                ref = msgspec.structs.replace(ref, adapter=f"sha256:{digest}")
            self._refs[adapter] = ref
        return ref

    async def start(self) -> None:
        """Load the checkpoint and judge one case.

        Raises:
            ConfigurationError: see ``loading.load`` and ``loading.fit_device``.
        """
        if self._settings.threads:
            torch.set_num_threads(self._settings.threads)
        began = self._clock.monotonic()
        self._settings = settings = await asyncio.to_thread(fit_device, self._settings)
        checkpoint = await asyncio.to_thread(load, settings)
        limits = Limits(settings.max_batch, settings.max_batch_tokens)
        self._device: EngineDevice | PlainDevice
        if settings.engine == "packed":
            self._device = await asyncio.to_thread(
                EngineDevice, checkpoint, settings, min_constant=self._min_constant
            )
        else:
            self._device = PlainDevice(checkpoint, limits, min_constant=self._min_constant)
        if settings.compile and isinstance(self._device, EngineDevice):
            # Before anything watches for batches that take too long: a compiler may.
            await asyncio.to_thread(self._device.compile_ahead, self._clock)
        self._prompter = Prompter(checkpoint, context_budget=settings.context_budget)
        self._scheduler = Scheduler(
            self._wrap(self._device),
            max_batch=settings.max_batch,
            max_batch_tokens=settings.max_batch_tokens,
            think_lane=settings.think_lane,
            clock=self._clock,
        )
        self._checkpoint = checkpoint
        self._scheduler.start()
        loaded = self._clock.monotonic()
        await self._warm_up()
        kept = self.kept()
        logger.info(
            "the judge is warm: loaded in %.1f s, %d graphs compiled in %.1f s, first case judged "
            "in %.1f s",
            loaded - began - kept.compile_s,
            kept.graphs,
            kept.compile_s,
            self._clock.monotonic() - loaded,
        )

    async def load_adapter(self, adapter: str) -> None:
        """Make an adapter ready before a policy that names it goes live.

        Raises:
            ConfigurationError: it is missing, incomplete, or was made for another base; or it is
                another one than was loaded from there.
        """
        await asyncio.get_running_loop().run_in_executor(self._threads, self._load_adapter, adapter)

    async def prepare(self, rubric: Rubric, adapter: str | None = None) -> None:
        run = asyncio.get_running_loop().run_in_executor
        ids = await run(self._threads, self._prompter.policy_ids, rubric)
        self._prompter.check_room(rubric, ids)
        if adapter is not None:
            await self.load_adapter(adapter)
        await self._scheduler.run(lambda: self._device.warm(adapter, ids))

    async def judge(self, request: JudgeRequest) -> Judgement:
        self._loaded()
        if self._stopped:
            raise DependencyUnavailable("judge", "it is stopped")
        run = asyncio.get_running_loop().run_in_executor
        try:
            if request.adapter is not None and request.adapter not in self._device.replicas:
                await self.load_adapter(request.adapter)
        except ConfigurationError as error:
            # The operator's fault, not the event's: it waits until the adapter is mended.
            raise DependencyUnavailable("judge", str(error)) from error
        prepared = await run(self._threads, self._prepare, request)
        queued_ns = int(self._clock.time() * 1e9)
        timed = await self._scheduler.read(
            _ask(prepared, request, prepared.context), request.adapter
        )
        finished_span(Span.QUEUE, queued_ns, queued_ns + int(timed.queue_ms * 1e6))
        reading: ScoreResult = timed.result
        thought: Thought | None = None
        device_ms, output = timed.device_ms, reading.tokens
        if wanted(request.think, reading.user, reading.response):
            started = self._clock.monotonic()
            thought, written = await self._think(prepared, request, reading.known)
            device_ms += (self._clock.monotonic() - started) * 1e3
            output += written
        return Judgement(
            user=reading.user,
            response=reading.response,
            categories=reading.categories,
            categories_complete=reading.categories_complete,
            floor_score=reading.floor_score,
            thought=thought,
            neutralised=prepared.names,
            context=prepared.used,
            input_tokens=len(prepared.context),
            output_tokens=output,
            queue_ms=timed.queue_ms,
            judge_ms=device_ms,
        )

    def stalled_s(self) -> float:
        return self._scheduler.stalled_s() if self._checkpoint is not None else 0.0

    def kept(self) -> Kept:
        """What the device keeps of policies and images; the plain model keeps nothing."""
        if self._checkpoint is None or not isinstance(self._device, EngineDevice):
            return Kept()
        return self._device.kept()

    def waiting(self) -> int:
        """Contexts that wait for the device, traces not counted."""
        return self._scheduler.waiting() if self._checkpoint is not None else 0

    async def stop(self) -> None:
        if self._checkpoint is None:
            return
        self._stopped = True
        await self._scheduler.stop()  # watched to its end: a hung device call must not hang a stop
        self._threads.shutdown(wait=False)

    async def _think(
        self, prepared: Prepared, request: JudgeRequest, known: object
    ) -> tuple[Thought, int]:
        """A thought, whatever happens: the verdict already stands. And the tokens written."""
        try:
            async with asyncio.timeout(request.think.deadline_s):
                return await self._trace(prepared, request, known)
        except TimeoutError:
            return skipped(SkippedReasoning.DEADLINE), 0
        except LaneFull:
            return skipped(SkippedReasoning.OVERLOAD), 0
        except (Undecided, DependencyUnavailable):
            return skipped(SkippedReasoning.FAILED), 0

    async def _trace(
        self, prepared: Prepared, request: JudgeRequest, known: object
    ) -> tuple[Thought, int]:
        run = asyncio.get_running_loop().run_in_executor
        context = await run(self._threads, self._prompter.thinking, prepared)
        room = self._prompter.trace_room(context, request.rubric)
        budget = min(request.think.max_tokens, room)
        if room < MIN_TRACE:
            return skipped(SkippedReasoning.FAILED), 0
        trace = await self._written(ReasoningRequest(context, budget, known), request.adapter)
        text = usable(trace.text)
        if isinstance(text, Thought):
            return text, len(trace.ids)
        try:
            behind = _ask(prepared, request, context.extended(trace.ids), trace.known)
            reading: ScoreResult = (await self._scheduler.read(behind, request.adapter)).result
        except Undecided:
            return skipped(SkippedReasoning.FAILED, text), len(trace.ids)
        return concluded(text, reading), len(trace.ids) + reading.tokens

    async def _written(self, ask: ReasoningRequest, adapter: str | None) -> ReasoningResult:
        """A trace, within the lane and the tokens a second."""
        if not self._budget.take(ask.budget):
            raise LaneFull
        unused = 0  # of one that was given up nobody knows
        try:
            timed: Timed = await self._scheduler.think(ask, adapter)
            trace: ReasoningResult = timed.result
            unused = ask.budget - len(trace.ids)
            return trace
        except LaneFull:
            unused = ask.budget
            raise
        finally:
            self._budget.give_back(unused)

    def _prepare(self, request: JudgeRequest) -> Prepared:
        try:
            return self._prompter.prepare(request)
        except WorkerError:
            raise
        except Exception as error:  # a lone surrogate, an image that lies about its size
            raise Undecided(UndecidedReason.INTERNAL_ERROR, detail=type(error).__name__) from error

    def _load_adapter(self, adapter: str) -> None:
        """Load it, or see that what was loaded from there is still what lies there."""
        with self._loading:
            loaded = self._device.replicas.digests.get(adapter)
            if loaded is None:
                self._device.replicas.add(adapter)
            elif loaded != _adapter_digest(adapter):
                raise ConfigurationError(
                    f"adapter {adapter}: it is another one than was loaded from there; give it a "
                    "directory of its own, or start the worker again"
                )

    async def _warm_up(self) -> None:
        rubric = Rubric(mode="builtin", text=None, categories=(), sha256="")
        request = JudgeRequest(user="How do I bake bread?", response="Mix flour.", rubric=rubric)
        try:
            await self.judge(request)
        except Undecided as error:
            await self.stop()
            what = (
                "does not answer in the judge's format"
                if error.reason is UndecidedReason.MALFORMED_OUTPUT
                else "cannot judge a harmless case"
            )
            raise ConfigurationError(
                f"judge.model: the checkpoint {what} ({error}); use a content safety checkpoint "
                "that fits the device"
            ) from error
        # Where even this cannot be read later on, the device is at fault and no event.
        prepared = await asyncio.to_thread(self._prepare, request)
        self._scheduler.trust(_ask(prepared, request, prepared.context), request.adapter)

    def _loaded(self) -> Checkpoint:
        if self._checkpoint is None:
            raise DependencyUnavailable("judge", "it is not started")
        return self._checkpoint


def _ask(
    prepared: Prepared, request: JudgeRequest, context: object, known: object = None
) -> ScoreRequest:
    return ScoreRequest(
        context=context,
        response=prepared.response is not None,
        rubric=request.rubric,
        threshold=request.think.threshold,
        category_budget=answer_budget(request.rubric),
        known=known,
        think=request.think if known is None else NEVER,
    )


def _adapter_digest(adapter: str) -> str:
    try:
        return directory_digest(Path(adapter))
    except OSError as error:
        raise ConfigurationError(
            f"adapter {adapter}: it is missing or cannot be read ({error.strerror}); name a "
            "directory saved by peft"
        ) from error
