"""The way through the house for one record: decode, select, evaluate, encode. No log I/O here.

``Pipeline`` is the ``Processor`` of the stream core: a record in, everything to publish out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from worker.clock import Clock
from worker.codes import DeadLetterCode, UndecidedReason
from worker.contracts.dead_letter import dead_letter_output, dead_letter_reference
from worker.contracts.decode import Decoded, conversation_of, decode_event
from worker.contracts.encode import quarantine_output, verdict_output
from worker.contracts.event import Event
from worker.contracts.verdict import SourceRef, Verdict
from worker.errors import DependencyUnavailable, FatalError, Undecided, UnreadableRecord
from worker.log.base import Delivery
from worker.policy.model import Policy
from worker.processing.evaluator import Evaluation, Evaluator
from worker.processing.shadow import Shadows
from worker.records import Output, Record
from worker.telemetry import instruments
from worker.telemetry.names import Attribute, Span
from worker.telemetry.tracing import EventSpan, event_span, stage

logger = logging.getLogger(__name__)


class PolicySource(Protocol):
    """What the pipeline needs of ``worker.policy.registry.PolicyRegistry``."""

    def select(self, topic: str) -> Policy | None: ...

    def candidate(self, policy: Policy) -> Policy | None: ...


class PipelineLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes: the largest event read, the largest record published; images of one event."""

    max_event_bytes: int
    max_output_bytes: int
    max_images: int


class OutputTopics(msgspec.Struct, frozen=True, kw_only=True):
    """Names of the output topics."""

    verdicts: str
    quarantine: str
    dead_letter: str
    shadow: str


class Processed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one record: its event and evaluation, or why it is no event.

    ``bytes_out`` are the values published for it.
    """

    record: Record
    event: Event | None = None
    evaluation: Evaluation | None = None
    bytes_out: int = 0
    unreadable: UnreadableRecord | None = None


Recorder = Callable[[Processed], None]
"""Told of every finished record, before its outputs are committed."""


class Pipeline:
    """One record to its outputs. Every record gives at least one: nothing is dropped."""

    def __init__(
        self,
        evaluator: Evaluator,
        policies: PolicySource,
        topics: OutputTopics,
        limits: PipelineLimits,
        clock: Clock,
        *,
        build: str,
        group: str,
        record: Recorder,
    ) -> None:
        self._evaluator = evaluator
        self._policies = policies
        self._topics = topics
        self._limits = limits
        self._clock = clock
        self._build = build
        self._group = group
        self._record = record
        self._shadows = Shadows(evaluator, topics.shadow)

    async def stop(self) -> None:
        """End what nobody waits for."""
        await self._shadows.stop()

    def conversation(self, record: Record) -> bytes | None:
        """Whose event a record is, where that can be told at a glance."""
        if record.unreadable:
            return None
        found = conversation_of(record, self._limits.max_event_bytes)
        return None if found is None else found.encode("utf-8", "surrogatepass")

    async def __call__(self, delivery: Delivery) -> Sequence[Output]:
        """Everything to publish for one record.

        Raises:
            DependencyUnavailable: the store, the judge or the topic's policy is away.
        """
        record = delivery.record
        if delivery.untouchable:
            poison = UnreadableRecord(DeadLetterCode.POISON, detail=_deaths(delivery))
            return [self._refer(record, poison)]
        if record.unreadable:
            error = UnreadableRecord(DeadLetterCode.UNREADABLE_RECORD, detail=record.unreadable)
            return [self._refer(record, error)]
        with event_span(record, self._group) as span:
            policy = self._policies.select(record.topic)
            try:
                with stage(Span.DECODE):
                    decoded = decode_event(
                        record,
                        self._limits.max_event_bytes,
                        max_images=self._limits.max_images,
                        judged=policy.judged if policy is not None else "turn",
                    )
            except UnreadableRecord as error:
                return [self._dead_letter(record, error, span)]
            except Exception as error:
                # A bug here would come back with every delivery, poison or not: see ``_judged``.
                logger.error("a record could not be decoded: %s", type(error).__name__)
                return [self._dead_letter(record, _internal(error), span)]
            for field in decoded.unknown:
                instruments.unknown_fields.add(1, {Attribute.KIND: field.kind})
            delivery.identify(decoded.event.conversation_id.encode("utf-8", "surrogatepass"))
            if policy is None:
                raise DependencyUnavailable("policy", f"none is live for topic {record.topic}")
            # Now, and not when it was judged: a reload may come in between.
            candidate = self._policies.candidate(policy)
            shadow = None
            if candidate is not None and not delivery.poison:
                shadow = self._shadows.begin(record, decoded, policy, candidate, span.headers())
            try:
                evaluation, outputs = await self._judged(delivery, decoded, policy, span)
            except BaseException as error:
                if shadow is not None:
                    shadow.cancel()  # where the event comes again, its candidate does with it
                if isinstance(error, DependencyUnavailable | FatalError | asyncio.CancelledError):
                    raise
                return [self._refer(record, _internal(error))]
            if shadow is not None:
                await asyncio.sleep(0)  # judged in one batch with the event, it is ready now
            bytes_out = sum(len(output.value or b"") for output in outputs)
            self._tell(
                Processed(
                    record=record,
                    event=decoded.event,
                    evaluation=evaluation,
                    bytes_out=bytes_out,
                )
            )
            return outputs + self._shadows.take()

    async def _judged(
        self, delivery: Delivery, decoded: Decoded, policy: Policy, span: EventSpan
    ) -> tuple[Evaluation, list[Output]]:
        """The evaluation of an event and what is published of it."""
        given_up = None
        if delivery.poison:
            given_up = Undecided(UndecidedReason.POISON, detail=_deaths(delivery))
        source = _source(delivery.record)
        evaluate = self._evaluator.evaluate
        try:
            evaluation = await evaluate(
                decoded.event,
                policy,
                source,
                fault=decoded.fault,
                given_up=given_up,
                attempts=delivery.attempts,
            )
            return evaluation, self._outputs(delivery.record, decoded, evaluation, span)
        except (DependencyUnavailable, FatalError):
            raise
        except Exception as error:
            # A bug must not become a crash loop, nor a lost event: a person looks at it instead.
            # The message stays out of the log, because it may quote what a user wrote.
            logger.error("an event could not be judged: %s", type(error).__name__)
            broken = Undecided(UndecidedReason.INTERNAL_ERROR, detail=type(error).__name__)
            evaluation = await evaluate(
                decoded.event, policy, source, given_up=broken, attempts=delivery.attempts
            )
            return evaluation, self._outputs(delivery.record, decoded, evaluation, span)

    def _outputs(
        self, record: Record, decoded: Decoded, evaluation: Evaluation, span: EventSpan
    ) -> list[Output]:
        verdict, decision = evaluation.verdict, evaluation.decision
        _describe(span, verdict)
        context = span.headers()
        outputs = [verdict_output(verdict, topic=self._topics.verdicts, trace_headers=context)]
        if decision.quarantined:
            labels = {Attribute.POLICY: verdict.policy.name, Attribute.ACTION: verdict.action}
            instruments.quarantined.add(1, labels)
            outputs.append(
                quarantine_output(
                    record,
                    decoded.event,
                    verdict,
                    traces=decision.traces,
                    needs_review=decision.needs_review,
                    held_at=verdict.judged_at,
                    topic=self._topics.quarantine,
                    max_bytes=self._limits.max_output_bytes,
                    trace_headers=context,
                )
            )
        return outputs

    def _dead_letter(self, record: Record, error: UnreadableRecord, span: EventSpan) -> Output:
        span.set({Attribute.DEAD_LETTER_CODE: error.code})
        self._tell(Processed(record=record, unreadable=error))
        return dead_letter_output(
            record,
            error,
            topic=self._topics.dead_letter,
            max_bytes=self._limits.max_output_bytes,
            worker_build=self._build,
            now=self._clock.time(),
        )

    def _refer(self, record: Record, error: UnreadableRecord) -> Output:
        """A dead letter that names the record and copies nothing of it."""
        self._tell(Processed(record=record, unreadable=error))
        return dead_letter_reference(
            record,
            error,
            topic=self._topics.dead_letter,
            worker_build=self._build,
            now=self._clock.time(),
        )

    def _tell(self, processed: Processed) -> None:
        try:
            self._record(processed)
        except Exception as error:  # accounts must not decide about events
            logger.error("a finished record was not accounted for: %s", type(error).__name__)


def _internal(error: BaseException) -> UnreadableRecord:
    return UnreadableRecord(DeadLetterCode.INTERNAL_ERROR, detail=type(error).__name__)


def _deaths(delivery: Delivery) -> str:
    return f"it ended the worker {delivery.attempts - 1} times"


def _source(record: Record) -> SourceRef:
    return SourceRef(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
    )


def _describe(span: EventSpan, verdict: Verdict) -> None:
    if span.recording:
        span.set(
            {
                Attribute.POLICY: verdict.policy.name,
                Attribute.POLICY_VERSION: verdict.policy.version,
                Attribute.OUTCOME: verdict.outcome,
                Attribute.ACTION: verdict.action,
                Attribute.VERDICT_ID: verdict.verdict_id,
                Attribute.REASON: verdict.undecided_reason or "",
            }
        )
