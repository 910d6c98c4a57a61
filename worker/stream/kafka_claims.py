"""Ownership of Kafka partitions: fence first, then read what was committed, then let records in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import aiokafka

from worker.clock import Clock
from worker.errors import FatalError
from worker.settings import Settings
from worker.stream.admin import output_topics
from worker.stream.base import Claim, Mark, Owner, TopicPartition
from worker.stream.kafka_committer import AcknowledgedCommitter, Committer, TransactionalCommitter
from worker.stream.kafka_topics import committed_offsets, require_topics

log = logging.getLogger(__name__)


class Owned:
    """One claimed partition. Offsets are those of the next record: delivered, committed."""

    def __init__(self, claim: Claim, committer: Committer) -> None:
        self.claim = claim
        self.committer = committer
        self.kafka_source = aiokafka.TopicPartition(*claim.source)
        self.lock = asyncio.Lock()
        self.delivered = claim.next_offset
        self.committed = claim.next_offset
        self.mark = Mark(attempts=claim.attempts, until=claim.until)
        self.settled_at = 0.0


class Claims:
    """The partitions of this worker. Failures are kept and raised by ``raise_failure``."""

    def __init__(
        self,
        settings: Settings,
        owner: Owner,
        consumer: Any,
        admin: Any,
        producer: Any,
        known: dict[str, int],
        clock: Clock,
    ) -> None:
        self.owned: dict[TopicPartition, Owned] = {}
        self.topics = require_topics(known, output_topics(settings))
        self._settings = settings
        self._owner = owner
        self._consumer = consumer
        self._admin = admin
        self._producer = producer
        self._clock = clock
        self._generation = 0
        self._task: asyncio.Task[None] | None = None
        self._announced: list[TopicPartition] = []
        self._committers: list[Committer] = []
        self._failure: FatalError | None = None

    def raise_failure(self) -> None:
        """Raise what happened where nobody could catch it.

        Raises:
            FatalError: a claim, a drain or a background commit failed.
        """
        if self._failure is not None:
            raise self._failure

    def fail(self, error: BaseException) -> None:
        """Remember the first failure: aiokafka swallows what its callbacks raise."""
        if self._failure is None:
            self._failure = (
                error
                if isinstance(error, FatalError)
                else FatalError(f"claiming partitions failed: {error!r}")
            )

    def begin(self, sources: list[TopicPartition]) -> None:
        """Claim in the background; the partitions are paused until it is done."""
        self._generation += 1
        self._task = asyncio.create_task(self._claim(sources, self._generation))

    async def _claim(self, sources: list[TopicPartition], generation: int) -> None:
        kafka = self._settings.kafka
        try:
            committers = {source: self._committer(source) for source in sources}
            self._committers = list(committers.values())
            async with asyncio.timeout(kafka.rebalance_timeout_s):
                await asyncio.gather(*(one.start() for one in committers.values()))
            if not sources:
                await self._owner.assigned(())
                return
            offsets = await committed_offsets(
                self._admin, kafka.group_id, sources, kafka.request_timeout_s
            )
            asked = [aiokafka.TopicPartition(*source) for source in sources]
            starts = await self._consumer.beginning_offsets(asked)
            ends = await self._consumer.end_offsets(asked)
            claims = []
            for source in sources:
                offset, mark = offsets[source]
                start = starts[aiokafka.TopicPartition(*source)]
                if offset is not None and offset < start:
                    raise out_of_range(kafka.group_id, ({source: offset},))
                claim = Claim(
                    source=source,
                    generation=generation,
                    next_offset=start if offset is None else offset,
                    attempts=mark.attempts,
                    until=mark.until,
                    end=ends[aiokafka.TopicPartition(*source)],
                )
                self._consumer.seek(aiokafka.TopicPartition(*source), claim.next_offset)
                claims.append(claim)
            owned = {claim.source: Owned(claim, committers[claim.source]) for claim in claims}
            self.owned.update(owned)
            self._announced = sources
            await self._owner.assigned(claims)
            self._consumer.resume(*(one.kafka_source for one in owned.values()))
            log.info("partitions claimed", extra={"partitions": len(sources)})
        except asyncio.CancelledError:
            raise
        except TimeoutError as error:
            self.fail(
                FatalError(
                    f"producers of {len(sources)} partitions were not ready within "
                    f"{kafka.rebalance_timeout_s:g} s (kafka.rebalance_timeout_s); "
                    "check the brokers"
                )
            )
            log.debug("claim timed out", exc_info=error)
        except Exception as error:
            self.fail(error)

    def _committer(self, source: TopicPartition) -> Committer:
        if self._producer is None:
            return TransactionalCommitter(self._settings, source, self.topics)
        return AcknowledgedCommitter(
            self._settings, source, self.topics, self._producer, self._consumer
        )

    async def surrender(self) -> None:
        """Give everything up: stop claiming, let the owner drain, stop the committers."""
        await self._cancel_claim()
        try:
            if self._announced:
                await self._owner.revoked(self._announced)
        except Exception as error:
            self.fail(error)
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Drop everything without a drain."""
        await self._cancel_claim()
        self._announced = []
        self.owned.clear()
        committers, self._committers = self._committers, []
        await asyncio.gather(*(committer.stop() for committer in committers))

    async def _cancel_claim(self) -> None:
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def out_of_range(group: str, detail: object) -> FatalError:
    """The committed offset is gone from the topic: skipping or replaying is a person's choice."""
    return FatalError(
        f"group {group} is committed at an offset its topic no longer has: {detail}. Records may "
        "have expired unjudged. Choose where to go on with `kafka-consumer-groups.sh --group "
        f"{group} --reset-offsets --to-earliest --execute` (or --to-offset) and start again"
    )
