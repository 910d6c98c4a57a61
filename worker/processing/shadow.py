"""Candidate policies tried beside the live one: never waited for, bounded, and best effort.

Why a candidate's verdict travels with a later event: docs/decisions/shadow-verdicts.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable

import msgspec

from worker.contracts.decode import Decoded
from worker.contracts.encode import verdict_output
from worker.contracts.verdict import SourceRef, verdict_id
from worker.policy.model import Policy
from worker.processing.evaluator import Evaluator
from worker.records import Headers, Output, Record
from worker.telemetry import instruments
from worker.telemetry.names import Attribute

logger = logging.getLogger(__name__)

MOST = 32
"""Candidates' judgements under way; the others wait for their turn."""
WAITING = 1_024
"""Sampled events that wait at most; one beyond them is missed, and counted as such."""
DEADLINE_S = 60.0
"""Longest for one judgement; it holds its images as long."""


class Shadows:
    """Judges sampled events against candidates, in tasks of its own."""

    def __init__(self, evaluator: Evaluator, topic: str) -> None:
        self._evaluator = evaluator
        self._topic = topic
        self._room = asyncio.Semaphore(MOST)
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished: list[Output] = []

    def begin(
        self,
        record: Record,
        decoded: Decoded,
        policy: Policy,
        candidate: Policy,
        trace_headers: Headers,
    ) -> asyncio.Task[None] | None:
        """Try ``candidate`` on one event, if that is in ``policy``'s sample."""
        share = policy.candidate.sample if policy.candidate else 0.0
        if not sampled(policy.name, decoded.event.conversation_id, share):
            return None
        count = _counter(policy)
        count("sampled")
        if len(self._tasks) >= MOST + WAITING:
            count("missed")
            return None
        work = self._judge(record, decoded, policy, candidate, trace_headers)
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            failed = task.cancelled() or task.exception() is not None
            count("missed" if failed else "judged")

        task.add_done_callback(ended)
        return task

    def take(self) -> list[Output]:
        """Verdicts finished by now, each given out once."""
        finished, self._finished = self._finished, []
        return finished

    async def stop(self) -> None:
        """Drop what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _judge(
        self,
        record: Record,
        decoded: Decoded,
        policy: Policy,
        candidate: Policy,
        trace_headers: Headers,
    ) -> None:
        event_id = decoded.event.id
        where = (record.topic, record.partition, record.offset)
        source = SourceRef(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp=record.timestamp,
        )
        try:
            async with self._room, asyncio.timeout(DEADLINE_S):
                evaluation = await self._evaluator.evaluate(
                    decoded.event, candidate, source, fault=decoded.fault, kind="shadow"
                )
            verdict = msgspec.structs.replace(
                evaluation.verdict,
                verdict_id=verdict_id(*where, event_id, "shadow", policy_sha256=candidate.sha256),
                shadow_of=verdict_id(*where, event_id, "automatic"),
            )
            self._finished.append(
                verdict_output(verdict, topic=self._topic, trace_headers=trace_headers)
            )
        except Exception as error:  # whatever goes wrong with a candidate stays there
            logger.warning("a candidate policy could not be tried: %s", type(error).__name__)
            raise


def sampled(policy: str, conversation_id: str, share: float) -> bool:
    """Whether a conversation is in the sample of a policy's candidate.

    By conversation, so that all its events are compared or none; by nothing else, so that neither
    load nor a retry decides.
    """
    name = f"{len(policy)}:{policy}{conversation_id}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") < share * 2**32


def _counter(policy: Policy) -> Callable[[str], None]:
    def count(result: str) -> None:
        labels = {Attribute.POLICY: policy.name, Attribute.RESULT: result}
        instruments.shadow_events.add(1, labels)

    return count
