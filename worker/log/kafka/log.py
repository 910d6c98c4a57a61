"""The log on Apache Kafka: a group consumer and one committer per assigned partition."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import aiokafka
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError

from worker.clock import Clock, SystemClock
from worker.errors import FatalError
from worker.log.admin import output_topics
from worker.log.base import UNMARKED, Claim, Mark, Owner
from worker.log.kafka.committer import (
    AcknowledgedCommitter,
    Committer,
    TransactionalCommitter,
    close_client,
    producer_for,
)
from worker.log.kafka.connection import connection_options, milliseconds, refusal, unreachable
from worker.log.kafka.topics import (
    committed_offsets,
    require_topics,
    topic_partitions,
    wait_for_topics,
)
from worker.records import Output, Record, TopicPartition
from worker.settings import Settings
from worker.telemetry.redact import Public

# Ownership of Kafka partitions: fence first, then read what was committed, then let records in.

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


# The group's rebalances, handed on without a chance for a record to slip in between.


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Pauses what was assigned before anything else can run, then tells the log.

    No await lies between an assignment and this callback (aiokafka 0.14,
    ``consumer/group_coordinator.py``), so pausing first is free of races. aiokafka swallows what
    a listener raises: both callbacks must record their own failures.
    """

    def __init__(
        self,
        consumer: Any,
        on_assigned: Callable[[list[TopicPartition]], None],
        on_revoked: Callable[[], Awaitable[None]],
    ) -> None:
        self._consumer = consumer
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked

    def on_partitions_assigned(self, assigned: Iterable[aiokafka.TopicPartition]) -> None:
        """Start claiming in the background: heartbeats only go on once this has returned."""
        self._consumer.pause(*assigned)
        self._on_assigned([TopicPartition(*source) for source in sorted(assigned)])

    async def on_partitions_revoked(self, revoked: Iterable[aiokafka.TopicPartition]) -> None:
        """Drain; the protocol is eager, so this is always everything there is."""
        await self._on_revoked()


log = logging.getLogger(__name__)

NEVER_MS = 2**31 - 1
"""``max_poll_interval_ms``: a full worker does not poll, and must not lose its partitions for it;
that work progresses is watched by the worker itself."""
SETTLE_EVERY_S = 1.0
"""How often the position past trailing control markers is committed, per partition."""
RETRY_POLL_S = 0.2


class KafkaLog:
    """See ``Log``. Delivery is ``settings.delivery``; the output topics must exist."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._consumer: Any = None
        self._admin: Any = None
        self._producer: Any = None
        self._claims: Claims | None = None
        self._paused: set[TopicPartition] = set()
        self._resumed = asyncio.Event()
        self._positions_known = True
        self._settling: set[asyncio.Task[None]] = set()
        self._last_lag: dict[TopicPartition, int] = {}

    async def start(self, topics: Sequence[str], owner: Owner) -> None:
        settings = self._settings
        self._admin = AIOKafkaAdminClient(**connection_options(settings.kafka, "admin"))
        await self._bootstrap(self._admin)
        known = await wait_for_topics(self._admin, (*topics, *output_topics(settings)))
        self._consumer = _consumer(settings)
        if settings.delivery == "at_least_once":
            self._producer = producer_for(settings, "producer")
            await self._bootstrap(self._producer)
        self._claims = Claims(
            settings, owner, self._consumer, self._admin, self._producer, known, self._clock
        )
        self._consumer.subscribe(
            topics=list(topics),
            listener=RebalanceListener(self._consumer, self._claims.begin, self._claims.surrender),
        )
        await self._bootstrap(self._consumer)

    async def _bootstrap(self, client: Any) -> None:
        """Start a client, patient with brokers that are still coming up."""
        kafka = self._settings.kafka
        deadline = self._clock.monotonic() + kafka.request_timeout_s
        while True:
            try:
                await client.start()
            except (KafkaError, OSError) as error:
                if self._clock.monotonic() < deadline and getattr(error, "retriable", True):
                    refused = await refusal(kafka)
                    if refused is not None:
                        raise refused from error
                    await asyncio.sleep(RETRY_POLL_S)
                    continue
                raise await unreachable(kafka, error) from error
            return

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        claims = self._running()
        active = [owned for source, owned in claims.owned.items() if source not in self._paused]
        await self._settle(active)
        if not active:
            await self._wait_for_work(timeout_s)
            claims.raise_failure()
            return ()
        try:
            fetched = await self._consumer.getmany(
                *(owned.kafka_source for owned in active),
                timeout_ms=milliseconds(timeout_s),
                max_records=max_records,
            )
        except asyncio.CancelledError:
            self._positions_known = False  # records may be lost to us: never commit positions now
            raise
        except OffsetOutOfRangeError as error:
            raise out_of_range(self._settings.kafka.group_id, error.args) from error
        except KafkaError as error:
            if not error.retriable:
                raise FatalError(f"cannot read from Kafka: {error!r}") from error
            log.warning(
                "polling failed, trying again", extra={"error": Public(type(error).__name__)}
            )
            await asyncio.sleep(RETRY_POLL_S)
            return ()
        claims.raise_failure()
        # No await from here to the owner: a rebalance in between would hand it records of an
        # old claim, and what was dropped with that claim lies before them.
        records: list[Record] = []
        for source, batch in fetched.items():
            owned = claims.owned.get(TopicPartition(*source))
            if owned is not None:
                owned.delivered = batch[-1].offset + 1
                records.extend(record_of(message) for message in batch)
        return records

    async def _wait_for_work(self, timeout_s: float) -> None:
        self._resumed.clear()
        with contextlib.suppress(TimeoutError):
            # Not wait_for: in Python 3.11 that loses a cancellation that meets the result.
            async with asyncio.timeout(timeout_s):
                await self._resumed.wait()

    async def _settle(self, active: Iterable[Owned]) -> None:
        """Commit the position where everything read is committed: markers must not show as lag."""
        now = self._clock.monotonic()
        for owned in active:
            if (
                not self._positions_known
                or owned.delivered != owned.committed
                or owned.lock.locked()
                or now - owned.settled_at < SETTLE_EVERY_S
                or not self._holds(owned)
            ):
                continue
            owned.settled_at = now
            with contextlib.suppress(IllegalStateError, AssertionError):  # revoked meanwhile
                position = await self._consumer.position(owned.kafka_source)
                if self._holds(owned) and position > owned.committed:
                    task = asyncio.create_task(self._settle_one(owned, position))
                    self._settling.add(task)
                    task.add_done_callback(self._settling.discard)

    def _holds(self, owned: Owned) -> bool:
        """Whether this claim is the current one: after a rebalance that fell into a poll, the
        position has passed records that were dropped with the claim."""
        claims = self._claims
        return claims is not None and claims.owned.get(owned.claim.source) is owned

    async def _settle_one(self, owned: Owned, position: int) -> None:
        try:
            async with owned.lock:
                if self._holds(owned) and owned.committed == owned.delivered < position:
                    await owned.committer.commit((), position, owned.mark)
                    owned.committed = position
                    owned.delivered = max(owned.delivered, position)
        except FatalError as error:
            if self._claims is not None:
                self._claims.fail(error)

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.update(sources)

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.difference_update(sources)
        self._resumed.set()

    async def commit(
        self, claim: Claim, outputs: Sequence[Output], next_offset: int, mark: Mark = UNMARKED
    ) -> None:
        claims = self._running()
        owned = claims.owned.get(claim.source)
        if owned is None or owned.claim.generation != claim.generation:
            raise FatalError(f"fenced on {claim.source}: this claim is no longer held")
        unknown = {output.topic for output in outputs} - claims.topics.keys()
        if unknown:
            claims.topics.update(require_topics(await topic_partitions(self._admin), unknown))
        async with owned.lock:
            # A settled position may lie past this record's end: never step back.
            next_offset = max(next_offset, owned.committed)
            await owned.committer.commit(outputs, next_offset, mark)
            owned.mark = mark
            owned.committed = next_offset

    async def lag(self) -> Mapping[TopicPartition, int]:
        claims = self._running()
        owned = dict(claims.owned)
        if not owned:
            return {}
        try:
            ends = await self._consumer.end_offsets([one.kafka_source for one in owned.values()])
        except KafkaError:
            return {source: self._last_lag.get(source, 0) for source in owned}
        self._last_lag = {
            source: max(0, ends[one.kafka_source] - one.committed) for source, one in owned.items()
        }
        return self._last_lag

    async def stop(self) -> None:
        self._positions_known = False
        for task in self._settling:
            task.cancel()
        if self._claims is not None:
            await self._claims.abandon()
        for client in (self._consumer, self._producer):
            if client is not None:
                await close_client(client)
        if self._admin is not None:
            await self._admin.close()

    def _running(self) -> Claims:
        if self._claims is None:
            raise FatalError("the log was used before it was started")
        self._claims.raise_failure()
        return self._claims


def record_of(message: Any) -> Record:
    """An aiokafka message as a record of ours."""
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=message.timestamp,
        key=message.key,
        value=message.value,
        headers=message.headers,
    )


def _consumer(settings: Settings) -> Any:
    kafka = settings.kafka
    return aiokafka.AIOKafkaConsumer(
        **connection_options(kafka, "consumer"),
        group_id=kafka.group_id,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        session_timeout_ms=milliseconds(kafka.session_timeout_s),
        heartbeat_interval_ms=min(3000, milliseconds(kafka.session_timeout_s / 6)),
        rebalance_timeout_ms=milliseconds(kafka.rebalance_timeout_s),
        max_poll_interval_ms=NEVER_MS,
        fetch_max_bytes=min(50 * 1024 * 1024, settings.stream.max_bytes),
        max_partition_fetch_bytes=min(1024 * 1024, settings.stream.max_bytes),
        partition_assignment_strategy=(RoundRobinPartitionAssignor,),
    )
