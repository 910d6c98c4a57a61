"""One event judged against one policy: images fetched, passes judged, outcome decided. No log here.

The worker, the ``judge`` command and the examples of policies all go through ``Evaluator``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache, partial
from itertools import chain
from typing import NamedTuple, Protocol

import msgspec

from worker.clock import Clock
from worker.codes import UndecidedReason
from worker.concurrency import together
from worker.contracts.event import Event, ImageRef, JudgedTurn, judged_turn
from worker.contracts.timestamps import rfc3339
from worker.contracts.verdict import Kind, PolicyRef, SourceRef, Timings, Verdict, verdict_id
from worker.errors import Undecided
from worker.images import FetchedImage, JudgeImage
from worker.judge.base import Judge
from worker.judgement import Judgement, JudgeRequest
from worker.outcome.actions import Fault
from worker.outcome.decide import Decision, decide
from worker.outcome.passes import PassResult
from worker.outcome.prefilter import settled, settles, with_hits
from worker.policy.model import Policy
from worker.policy.parse import adapter_path
from worker.policy.passes import PolicyPass, passes
from worker.policy.prefilter import prefilter_of
from worker.processing.windows import Window, excerpt, judge_windows, too_long
from worker.settings import JudgeSettings
from worker.telemetry import instruments
from worker.telemetry.names import Attribute, Span
from worker.telemetry.tracing import stage
from worker.text.turn import as_read


class Fetcher(Protocol):
    """What the evaluator needs of ``worker.media.fetch.ImageFetcher``."""

    def fetch(
        self, refs: Sequence[ImageRef]
    ) -> AbstractAsyncContextManager[tuple[FetchedImage, ...]]: ...


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one event, with the whole reasoning traces that only quarantine keeps."""

    verdict: Verdict
    decision: Decision
    tokens: int = 0


class _Look(NamedTuple):
    """What one event came to: decided, by which passes, after how long a fetch (ms)."""

    decision: Decision
    results: Sequence[PassResult] = ()
    fetch_ms: float = 0.0


class Evaluator:
    """Judges events. Safe to call concurrently; batching happens in the judge.

    ``max_windows`` are the contexts that a text too long for one is cut into, a pass; 0 leaves it
    undecided. ``floor_pass`` False leaves out the pass that asks about the floor alone.
    """

    def __init__(
        self,
        judge: Judge,
        fetcher: Fetcher,
        clock: Clock,
        *,
        max_windows: int = 8,
        floor_pass: bool = True,
    ) -> None:
        self._judge = judge
        self._fetcher = fetcher
        self._clock = clock
        self._max_windows = max_windows
        self._floor_pass = floor_pass

    async def evaluate(
        self,
        event: Event,
        policy: Policy,
        source: SourceRef,
        *,
        fault: Undecided | None = None,
        given_up: Undecided | None = None,
        attempts: int = 1,
        kind: Kind = "automatic",
    ) -> Evaluation:
        """Judge ``event`` under ``policy``.

        Beside a ``fault`` found while it was read, what could be read is judged all the same;
        an event that is ``given_up`` is not looked at.

        Raises:
            DependencyUnavailable: the store or the judge is away as a whole.
        """
        started = self._clock.monotonic()
        turn = judged_turn(event, policy.judged)
        folded: tuple[str, ...] = ()
        if fault is None and turn is None:
            fault = Undecided(UndecidedReason.NO_USER_TURN, field="messages")
        faults = [Fault.of(each) for each in (given_up, fault) if each is not None]
        if given_up is not None or turn is None:
            look = _Look(decide(policy, (), (), faults))
        else:
            read, folded = await as_read(turn)
            _count(turn, folded)
            look = await self._look(turn, read, policy, faults)
        decision, results, fetch_ms = look
        for listed, does in {(hit.list, hit.decide) for hit in decision.prefilter}:
            labels = {Attribute.POLICY: policy.name, Attribute.LIST: listed, Attribute.DECIDE: does}
            instruments.prefilter_hits.add(1, labels)
        queue_ms = judge_ms = 0.0
        tokens = 0
        for result in results:  # plain statements: this runs once an event
            judgement = result.judgement
            if judgement is not None:
                queue_ms = max(queue_ms, judgement.queue_ms)
                judge_ms = max(judge_ms, judgement.judge_ms)
                tokens += judgement.input_tokens + judgement.output_tokens
        total_ms = (self._clock.monotonic() - started) * 1e3
        timings = Timings(queue=queue_ms, fetch=fetch_ms, judge=judge_ms, total=total_ms)
        return Evaluation(
            verdict=self._verdict(event, policy, source, decision, folded, timings, attempts, kind),
            decision=decision,
            tokens=tokens,
        )

    async def _look(
        self, written: JudgedTurn, turn: JudgedTurn, policy: Policy, faults: Sequence[Fault]
    ) -> _Look:
        """Prefilter, images, passes: what costs least comes first, and may save what follows.

        ``turn`` is what was ``written``, as a person reads it.
        """
        prefilter = prefilter_of(policy)
        hits = await prefilter.in_text(written, turn) if prefilter is not None else ()
        if settles(policy, hits):
            return _Look(settled(policy, hits, unfetched=turn.images, faults=faults))
        if not turn.images:
            results = await self._judge_all(turn, policy, ())
            return _Look(with_hits(policy, _decide(policy, results, (), faults), hits), results)
        began, fetch_ms = self._clock.monotonic(), 0.0
        try:
            async with self._fetcher.fetch(turn.images) as images:
                fetch_ms = (self._clock.monotonic() - began) * 1e3
                if prefilter is not None:
                    hits += await prefilter.in_images(images)
                if settles(policy, hits):
                    decision = settled(policy, hits, images=images, faults=faults)
                    return _Look(decision, (), fetch_ms)
                results = await self._judge_all(turn, policy, images)
            decision = with_hits(policy, _decide(policy, results, images, faults), hits)
            return _Look(decision, results, fetch_ms)
        except Undecided as error:  # of the images all together: the text is judged without them
            results = await self._judge_all(turn, policy, ())
            faults = [*faults, Fault.of(error)]
            decision = with_hits(policy, _decide(policy, results, (), faults), hits)
            return _Look(decision, results, fetch_ms)

    async def _judge_all(
        self, turn: JudgedTurn, policy: Policy, images: Sequence[FetchedImage]
    ) -> Sequence[PassResult]:
        """Every pass over every frame; text alone where no image could be seen."""
        asked = passes(policy)
        if not self._floor_pass:
            asked = tuple(each for each in asked if each.source != "floor")
        frames = [(index, frame) for index, image in enumerate(images) for frame in image.frames]
        with stage(Span.JUDGE) as span:
            if not images and len(asked) == 1:  # the common case pays for no task
                results = await self._judge_pass(turn, asked[0], ())
            else:
                found = await together(self._judge_pass(turn, each, frames) for each in asked)
                results = list(chain.from_iterable(found))
            if span.is_recording():
                judged = [each.judgement for each in results if each.judgement is not None]
                span.set_attributes(
                    {
                        Attribute.GEN_AI_MODEL: self._judge.model(adapter_path(policy)).id,
                        Attribute.GEN_AI_INPUT_TOKENS: sum(each.input_tokens for each in judged),
                        Attribute.GEN_AI_OUTPUT_TOKENS: sum(each.output_tokens for each in judged),
                    }
                )
            return results

    async def _judge_pass(
        self, turn: JudgedTurn, each: PolicyPass, frames: Sequence[tuple[int, JudgeImage]]
    ) -> list[PassResult]:
        """One pass over every frame; where the text does not fit beside them, in windows."""
        whole = Window(turn.user.text, turn.response.text if turn.response else None)
        earlier = tuple([(message.role, message.text) for message in turn.context])
        one = partial(self._judge_one, each, earlier)
        if not frames:
            results = [await one(None, None, whole)]
        else:
            results = await together(one(index, frame, whole) for index, frame in frames)
        if not any(map(too_long, results)) or not self._max_windows:
            return results
        short = Window(excerpt(whole.user), whole.response and excerpt(whole.response))
        again = await together(
            one(index, frame, short)
            for (index, frame), result in zip(frames, results, strict=False)
            if too_long(result)
        )
        in_windows = partial(one, None, None)
        text = await judge_windows(in_windows, whole, self._max_windows, each.source)
        return [*(result for result in results if not too_long(result)), *again, *text]

    async def _judge_one(
        self,
        each: PolicyPass,
        earlier: tuple[tuple[str, str], ...],
        index: int | None,
        frame: JudgeImage | None,
        window: Window,
    ) -> PassResult:
        request = JudgeRequest(
            user=window.user,
            response=window.response,
            earlier=earlier,
            image=frame,
            rubric=each.rubric,
            adapter=each.adapter,
            think=each.think,
            cache=each.cache,
        )
        try:
            judgement = await self._judge.judge(request)
        except Undecided as error:
            fault = Fault.of(error)
            return PassResult(
                source=each.source, image=index, fault=fault.reason, detail=fault.detail
            )
        _record(judgement)
        return PassResult(source=each.source, image=index, judgement=judgement)

    def _verdict(
        self,
        event: Event,
        policy: Policy,
        source: SourceRef,
        decision: Decision,
        folded: tuple[str, ...],
        timings: Timings,
        attempts: int,
        kind: Kind,
    ) -> Verdict:
        return Verdict(
            verdict_id=verdict_id(source.topic, source.partition, source.offset, event.id, kind),
            event_id=event.id,
            conversation_id=event.conversation_id,
            tenant=event.tenant,
            source=source,
            kind=kind,
            outcome=decision.outcome,
            action=decision.action,
            user=decision.user,
            response=decision.response,
            categories=decision.categories,
            suppressed=decision.suppressed,
            images=decision.images,
            reasoning=decision.reasoning,
            prefilter=decision.prefilter,
            undecided_reason=decision.undecided_reason,
            undecided_detail=decision.undecided_detail,
            neutralised=decision.neutralised,
            folded=folded,
            context=decision.context,
            decided_by=decision.decided_by,
            cached=decision.cached,
            attempts=attempts,
            policy=_policy_ref(policy.name, policy.version, policy.sha256),
            model=self._judge.model(adapter_path(policy)),
            timings_ms=timings,
            judged_at=rfc3339(self._clock.time()),
        )


def open_evaluator(
    settings: JudgeSettings, judge: Judge, fetcher: Fetcher, clock: Clock
) -> Evaluator:
    """An evaluator as the settings say."""
    return Evaluator(
        judge,
        fetcher,
        clock,
        max_windows=settings.max_windows,
        floor_pass=settings.floor_pass,
    )


@lru_cache(maxsize=256)
def _policy_ref(name: str, version: int, sha256: str) -> PolicyRef:
    return PolicyRef(name=name, version=version, sha256=sha256)


def _decide(
    policy: Policy,
    results: Sequence[PassResult],
    images: Sequence[FetchedImage],
    faults: Sequence[Fault],
) -> Decision:
    with stage(Span.DECIDE) as span:
        decision = decide(policy, results, images, faults)
        if span.is_recording():
            span.set_attribute(Attribute.OUTCOME, decision.outcome)
            span.set_attribute(Attribute.ACTION, decision.action)
            span.set_attribute(Attribute.PASSES, len(results))
        return decision


def _count(turn: JudgedTurn, folded: tuple[str, ...]) -> None:
    for name in folded:
        instruments.folded.add(1, {Attribute.FOLD: name})
    for message in turn.context:
        if message.role not in ("user", "assistant"):
            instruments.system_messages.add(1, {Attribute.ROLE: message.role})


def _record(judgement: Judgement) -> None:
    for name in judgement.neutralised:
        instruments.neutralised.add(1, {Attribute.CONTROL: name})
    if judgement.thought is not None and not judgement.cached:
        result = judgement.thought.skipped or "written"
        instruments.think_traces.add(1, {Attribute.THINK: result})
