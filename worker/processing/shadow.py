"""Candidate policies tried beside the live one: never waited for, bounded, and best effort.

Why a candidate's verdict travels with a later event: docs/decisions/shadow-verdicts.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging

import msgspec

from worker.contracts.decode import Decoded
from worker.contracts.encode import verdict_output
from worker.contracts.verdict import SourceRef
from worker.policy.model import Policy
from worker.processing.evaluator import Evaluator
from worker.records import Headers, Output, Record

logger = logging.getLogger(__name__)

MOST = 32
"""Candidates' judgements under way; a sampled event beyond them is not tried."""
DEADLINE_S = 60.0
"""Longest for one of them; it holds its images as long."""


class Shadows:
    """Judges sampled events against candidates, in tasks of its own."""

    def __init__(self, evaluator: Evaluator, topic: str) -> None:
        self._evaluator = evaluator
        self._topic = topic
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
        """Try ``candidate`` on one event, if that is in ``policy``'s sample and there is room."""
        if not _sampled(record, policy.candidate.sample if policy.candidate else 0.0):
            return None
        if len(self._tasks) >= MOST:
            logger.warning("a candidate policy was not tried: too many are being judged")
            return None
        work = self._judge(record, decoded, policy, candidate, trace_headers)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
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
        source = SourceRef(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp=record.timestamp,
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                evaluation = await self._evaluator.evaluate(
                    decoded.event, candidate, source, fault=decoded.fault
                )
            shadow_of = f"{policy.name}@{policy.version}"
            verdict = msgspec.structs.replace(evaluation.verdict, shadow_of=shadow_of)
            self._finished.append(
                verdict_output(verdict, topic=self._topic, trace_headers=trace_headers)
            )
        except Exception as error:  # whatever goes wrong with a candidate stays there
            logger.warning("a candidate policy could not be tried: %s", type(error).__name__)


def _sampled(record: Record, share: float) -> bool:
    """Whether a record is in the sample: by its coordinates, so that a retry decides alike."""
    name = f"{record.topic}/{record.partition}/{record.offset}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") < share * 2**32
