"""The log on Apache Kafka: a member of a group, a fetcher, and one producer a partition.

The member only follows the group: its assignments say which partitions are ours. What is ours is
fetched by a consumer without a group, so that a rebalance (the protocol is eager: it takes
everything away for as long as a dead member's session lasts) stops nothing but what moves. That is
safe because the transactional id belongs to the input partition: whoever takes one over fences
whoever had it, and reads what was committed after that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import aiokafka
import msgspec
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError

from worker.clock import Clock, SystemClock
from worker.errors import DependencyUnavailable, FatalError
from worker.log.admin import output_topics
from worker.log.base import (
    PLAIN,
    Assignment,
    LogActivity,
    OffsetMetadata,
    Owner,
    PartitionLost,
    Run,
)
from worker.log.kafka import batches
from worker.log.kafka.committer import (
    AcknowledgedCommitter,
    Committer,
    TransactionalCommitter,
    close_client,
    producer_for,
)
from worker.log.kafka.connection import away, connection_options, milliseconds, refusal
from worker.log.kafka.topics import (
    committed_offsets,
    require_topics,
    topic_partitions,
    wait_for_topics,
)
from worker.log.metadata import Committed, decode_metadata, encode_metadata
from worker.records import Output, Record, TopicPartition
from worker.settings import Settings
from worker.telemetry import instruments
from worker.telemetry.redact import Public

log = logging.getLogger(__name__)

NEVER_MS = 2**31 - 1
"""``max_poll_interval_ms``: a full worker does not poll, and must not lose its partitions for it;
that work progresses is watched by the worker itself."""
SETTLE_EVERY_S = 1.0
"""How often the position past trailing control markers is committed, per partition."""
RETRY_POLL_S = 0.2
POLL_TRIES = 5
CLAIM_ROUNDS = 3
"""Tries of claiming partitions, after which the whole log is opened anew."""
SILENT_S = 10.0
"""A log that answers no fetch for so long is away, as far as anybody looks."""
SILENT_ROUNDS = 3
"""Times ``SILENT_S`` after which it is opened anew."""


class Owned:
    """One claimed partition. Offsets are those of the next record: delivered, committed."""

    def __init__(self, assignment: Assignment, committer: Committer, sequence: int) -> None:
        self.assignment = assignment
        self.committer = committer
        self.kafka_source = aiokafka.TopicPartition(*assignment.source)
        self.lock = asyncio.Lock()
        self.delivered = assignment.next_offset
        self.committed = assignment.next_offset
        self.metadata = assignment.metadata
        self.sequence = sequence
        self.settled_at = 0.0
        self.announced = False


class _Follower(ConsumerRebalanceListener):  # type: ignore[misc]
    """Hands assignments on at once: nothing is waited for inside a rebalance.

    The member's partitions are paused before anything else can run: no await lies between an
    assignment and this callback (aiokafka 0.14, ``consumer/group_coordinator.py``). They get a
    position so that it does not look for one.
    """

    def __init__(self, kafka_log: KafkaLog, member: Any) -> None:
        self._log = kafka_log
        self._member = member

    def on_partitions_revoked(self, revoked: Iterable[aiokafka.TopicPartition]) -> None:
        """The group is between two generations; what is ours is worked on meanwhile."""
        self._log.rebalancing()

    def on_partitions_assigned(self, assigned: Iterable[aiokafka.TopicPartition]) -> None:
        """These are ours from now on."""
        self._member.pause(*assigned)
        coordinator = self._member._coordinator
        for assignor in coordinator._assignors:  # newer memories outweigh older ones
            assignor.on_generation_assignment(coordinator.generation)
        for source in assigned:
            self._member.seek(source, 0)
        self._log.follow({TopicPartition(*source) for source in assigned})


class KafkaLog:
    """See ``Log``. Delivery is ``settings.delivery``; the output topics must exist."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._connected_once = False
        self._acknowledged: dict[TopicPartition, tuple[int, int]] = {}
        """What this process saw committed last: an older answer is stale."""
        self._generation = 0
        self._rebalances = self._failed_commits = 0
        self._fetched_at: float | None = None
        self._committed_at: float | None = None
        self._last_lag: dict[TopicPartition, int] = {}
        self._closed()

    def _closed(self) -> None:
        self._admin: Any = None
        self._fetcher: Any = None
        self._member: Any = None
        self._producer: Any = None
        self._owner: Owner | None = None
        self._inputs: tuple[str, ...] = ()
        self._topics: dict[str, int] = {}
        self._cluster = ""
        self._owned: dict[TopicPartition, Owned] = {}
        self._wanted: set[TopicPartition] | None = None
        self._between_generations = False
        self._announced_once = False
        self._follow_due = asyncio.Event()
        self._follow_task: asyncio.Task[None] | None = None
        self._claim_failures = self._failed_polls = 0
        self._lost_at: dict[TopicPartition, tuple[int, float]] = {}
        self._failure: BaseException | None = None
        self._trouble = ""
        self._paused: set[TopicPartition] = set()
        self._resumed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking_since: float | None = None
        """Since when there was a partition to fetch at every poll."""

    async def connect(self, topics: Sequence[str]) -> None:
        if self._admin is not None:
            return
        settings = self._settings
        batches.install(settings.stream.max_bytes)
        self._admin = AIOKafkaAdminClient(**connection_options(settings.kafka, "admin"))
        await self._bootstrap(self._admin)
        wanted = (*topics, *output_topics(settings))
        try:
            known = await wait_for_topics(self._admin, wanted)
            self._topics = require_topics(known, wanted)
            self._cluster = str((await self._admin.describe_cluster()).get("cluster_id", ""))
        except KafkaError as error:
            raise away(settings.kafka, error) from error
        except FatalError as error:
            if self._connected_once:  # a broker that just came up may not know them all yet
                raise DependencyUnavailable("log", str(error)) from error
            raise
        self._inputs = tuple(topics)

    async def start(self, topics: Sequence[str], owner: Owner) -> None:
        await self.connect(topics)
        settings, kafka = self._settings, self._settings.kafka
        self._owner = owner
        if settings.delivery == "at_least_once":
            self._producer = producer_for(settings, "producer")
            await self._bootstrap(self._producer)
        self._fetcher = _fetcher(settings)
        await self._bootstrap(self._fetcher)
        self._follow_task = asyncio.create_task(self._follow())
        self._member = _member(settings)
        self._member.subscribe(topics=list(topics), listener=_Follower(self, self._member))
        await self._bootstrap(self._member)
        self._connected_once = True
        log.info("joined group %s", Public(kafka.group_id))

    async def _bootstrap(self, client: Any) -> None:
        try:
            await client.start()
        except (KafkaError, OSError) as error:
            refused = await refusal(self._settings.kafka)
            if refused is not None and not self._connected_once:
                raise refused from error
            if refused is not None:  # rights and certificates can be renewed
                raise DependencyUnavailable("log", str(refused)) from error
            raise away(self._settings.kafka, error) from error

    # Following the group.

    def rebalancing(self) -> None:
        """A rebalance began: nothing new is claimed until it is through."""
        self._between_generations = True
        self._rebalances += 1
        instruments.rebalances.add(1, {})

    def follow(self, sources: set[TopicPartition]) -> None:
        """The group's word on what is ours."""
        self._between_generations = False
        self._wanted = sources
        self._lost_at.clear()
        self._follow_due.set()

    async def _follow(self) -> None:
        try:
            while True:
                await self._follow_due.wait()
                self._follow_due.clear()
                await self._reconcile()
        except Exception as error:
            self._fail(error)

    async def _reconcile(self) -> None:
        wanted, owner = self._wanted, self._owner
        if wanted is None or owner is None:
            return
        gone = [source for source in self._owned if source not in wanted]
        if gone:
            await owner.revoked(gone)
            for source in gone:
                owned = self._owned.pop(source, None)
                if owned is not None:
                    self._in_background(owned.committer.stop())
            self._refetch()
        if not wanted and not self._announced_once:
            await owner.assigned(())
        self._announced_once = self._announced_once or not wanted
        now = self._clock.monotonic()
        missing = [source for source in sorted(wanted) if source not in self._owned]
        due = [one for one in missing if self._lost_at.get(one, (0, 0.0))[1] <= now]
        if due and not self._between_generations:
            await self._claim(due)
        if missing:
            waits = [self._lost_at[one][1] - now for one in missing if one in self._lost_at]
            if waits:
                asyncio.get_running_loop().call_later(max(0.05, min(waits)), self._follow_due.set)

    async def _claim(self, sources: Sequence[TopicPartition]) -> None:
        """Fence first, then read what was committed, then let records in."""
        kafka = self._settings.kafka
        self._generation += 1
        committers = {source: self._committer(source) for source in sources}
        outcomes = await asyncio.gather(
            *(self._begin(one) for one in committers.values()), return_exceptions=True
        )
        failed = {
            source: outcome
            for source, outcome in zip(sources, outcomes, strict=True)
            if isinstance(outcome, BaseException)
        }
        ready = [source for source in sources if source not in failed]
        try:
            assignments = await self._assignments(ready, committers) if ready else []
        except BaseException as error:
            for committer in committers.values():
                self._in_background(committer.stop())
            if isinstance(error, KafkaError):
                raise away(kafka, error) from error
            raise
        for source, why in failed.items():
            self._in_background(committers[source].stop())
            self._wait_to_claim(source, f"{source.topic}-{source.partition}: {why!r}")
        if failed:
            self._claim_failures += 1
            if self._claim_failures >= CLAIM_ROUNDS:
                raise DependencyUnavailable(
                    "log", f"partitions could not be claimed: {next(iter(failed.values()))!r}"
                )
        if not assignments:
            return
        for assignment, sequence in assignments:
            source = assignment.source
            self._owned[source] = Owned(assignment, committers[source], sequence)
        self._refetch()
        owner = self._owner
        if owner is not None:
            await owner.assigned([assignment for assignment, _ in assignments])
        for assignment, _ in assignments:
            owned = self._owned.get(assignment.source)
            if owned is not None and owned.assignment is assignment:
                owned.announced = True
        self._resumed.set()
        if not failed:
            self._claim_failures, self._trouble = 0, ""
        log.info("partitions claimed", extra={"partitions": len(assignments)})

    async def _begin(self, committer: Committer) -> None:
        async with asyncio.timeout(self._settings.kafka.request_timeout_s):
            await committer.start()

    def _committer(self, source: TopicPartition) -> Committer:
        if self._producer is None:
            return TransactionalCommitter(self._settings, source, self._topics)
        return AcknowledgedCommitter(
            self._settings, source, self._topics, self._producer, self._member
        )

    async def _assignments(
        self, sources: Sequence[TopicPartition], committers: Mapping[TopicPartition, Committer]
    ) -> list[tuple[Assignment, int]]:
        kafka = self._settings.kafka
        asked = [aiokafka.TopicPartition(*source) for source in sources]
        starts = await self._fetcher.beginning_offsets(asked)
        ends = await self._fetcher.end_offsets(asked)
        committed = await self._committed(sources)
        topics = {source.topic for source in committed}
        explained = frozenset(
            name
            for _, one in committed.values()
            for name in (
                one.metadata.explained,
                one.metadata.worker if one.metadata.tried is not None else "",
            )
            if name
        )
        assignments = []
        for source in sources:
            kafka_source = aiokafka.TopicPartition(*source)
            start, end = starts[kafka_source], ends[kafka_source]
            found = committed.get(source)
            if found is None:
                offset, read = await self._first(kafka_source, start, end, topics), Committed()
            else:
                offset, read = found
            if offset < start:
                raise out_of_range(kafka.group_id, {source: offset})
            if offset > end:  # a broker that just came up, or a topic that was made anew
                self._in_background(committers[source].stop())
                self._wait_to_claim(
                    source,
                    f"{source.topic}-{source.partition} ends at {end}, before the committed "
                    f"offset {offset}; if the topic was made anew, reset the group's offsets",
                )
                continue
            if read.dropped:
                log.warning(
                    "the map of finished records is not used: %s",
                    Public(read.dropped),
                    extra={"topic": source.topic, "partition": source.partition},
                )
            assignment = Assignment(
                source=source,
                generation=self._generation,
                next_offset=offset,
                metadata=read.metadata,
                end=end,
                explained=explained,
            )
            assignments.append((assignment, read.sequence))
        return assignments

    async def _first(self, source: Any, start: int, end: int, committed: set[str]) -> int:
        """Where to begin on a partition that the group never committed."""
        where = self._settings.kafka.start
        if source.topic in committed or where == "earliest":
            return start  # a partition that was added: nobody has judged it
        if where == "latest":
            return end
        at = await self._fetcher.offsets_for_times({source: int(where.timestamp() * 1000)})
        found = at[source]
        return end if found is None else max(start, found.offset)

    async def _committed(
        self, sources: Sequence[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, Committed]]:
        """What the group committed; never older than what this process saw committed."""
        kafka = self._settings.kafka
        everything = {
            TopicPartition(topic, number)
            for topic in self._inputs
            for number in range(self._topics[topic])
        }
        deadline = self._clock.monotonic() + kafka.request_timeout_s
        while True:
            answer = await committed_offsets(
                self._admin, kafka.group_id, everything | set(sources), kafka.request_timeout_s
            )
            read = {
                source: (offset, decode_metadata(text, offset, stamp=self._stamp(source)))
                for source, (offset, text) in answer.items()
            }
            stale = [
                source
                for source in sources
                if source in self._acknowledged
                and _older(read.get(source), *self._acknowledged[source])
            ]
            if not stale:
                return read
            if self._clock.monotonic() > deadline:  # somebody reset them on purpose
                log.warning("committed offsets went back", extra={"partitions": len(stale)})
                for source in stale:
                    del self._acknowledged[source]
                return read
            await asyncio.sleep(RETRY_POLL_S)

    def _stamp(self, source: TopicPartition) -> str:
        told = f"{self._cluster}/{source.topic}".encode()
        return hashlib.sha256(told).hexdigest()[:12]

    def _refetch(self) -> None:
        """Fetch what is ours, from behind what was delivered. No await: nothing slips in."""
        if self._fetcher is None:
            return
        if not self._owned:
            self._fetcher.unsubscribe()
            return
        self._fetcher.assign([owned.kafka_source for owned in self._owned.values()])
        self._seek_back()

    def _seek_back(self) -> None:
        for owned in self._owned.values():
            with contextlib.suppress(IllegalStateError, AssertionError):
                self._fetcher.seek(owned.kafka_source, owned.delivered)

    def _lose(self, owned: Owned, error: PartitionLost) -> None:
        """Its producer is of no use any more: a new one, unless the group has moved it."""
        source = owned.assignment.source
        if self._owned.get(source) is not owned:
            return
        del self._owned[source]
        self._failed_commits += 1
        self._in_background(owned.committer.stop())
        self._refetch()
        self._wait_to_claim(source, str(error))

    def _wait_to_claim(self, source: TopicPartition, trouble: str) -> None:
        self._trouble = trouble
        count = self._lost_at.get(source, (0, 0.0))[0] + 1
        beat = self._settings.kafka.session_timeout_s / 6
        # Longer than a heartbeat takes to tell that the group goes on without us.
        wait = min(30.0, beat * 2 ** min(count - 1, 6)) * random.uniform(1.0, 2.0)  # noqa: S311
        self._lost_at[source] = count, self._clock.monotonic() + wait
        self._follow_due.set()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._resumed.set()

    def _in_background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Reading.

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        self._check()
        active = [
            owned
            for source, owned in self._owned.items()
            if owned.announced and source not in self._paused
        ]
        await self._settle(active)
        if not active:
            self._asking_since = None
            await self._wait_for_work(timeout_s)
            self._check()
            return ()
        if self._asking_since is None:
            self._asking_since = self._clock.monotonic()
        try:
            fetched = await self._fetcher.getmany(
                *(owned.kafka_source for owned in active),
                timeout_ms=milliseconds(timeout_s),
                max_records=max_records,
            )
        except OffsetOutOfRangeError as error:
            self._seek_back()
            for kafka_source in error.args[0] if error.args else ():
                lost = self._owned.get(TopicPartition(*kafka_source))
                if lost is not None:  # claimed anew: that finds out why
                    self._lose(lost, PartitionLost(f"offset out of range: {error.args}"))
            return ()
        except BaseException as error:
            # What it had drained of other partitions is gone with it.
            self._seek_back()
            self._failed_polls += 1
            retriable = isinstance(error, Exception) and getattr(error, "retriable", True)
            if not retriable or self._failed_polls > POLL_TRIES:
                if isinstance(error, KafkaError):
                    detail = f"cannot read from Kafka: {error!r}"
                    raise DependencyUnavailable("log", detail) from error
                raise
            log.warning(
                "polling failed, trying again", extra={"error": Public(type(error).__name__)}
            )
            await asyncio.sleep(RETRY_POLL_S)
            return ()
        self._failed_polls = 0
        # No await from here to the owner: what was dropped meanwhile is not ours to deliver.
        if fetched:
            self._fetched_at = self._asking_since = self._clock.monotonic()
        else:
            self._note_fetches(active)
        self._check()
        records: list[Record] = []
        for source, batch in fetched.items():
            owned = self._owned.get(TopicPartition(*source))
            if owned is not None and owned.announced:
                owned.delivered = batch[-1].offset + 1
                records.extend(record_of(message) for message in batch)
        return records

    def _note_fetches(self, active: Sequence[Owned]) -> None:
        now = self._clock.monotonic()
        newest = 0
        for owned in active:
            with contextlib.suppress(IllegalStateError, AssertionError):
                newest = max(newest, self._fetcher.last_poll_timestamp(owned.kafka_source) or 0)
        if newest:
            seen = now - max(0.0, time.time() - newest / 1000)
            self._fetched_at = max(self._fetched_at or seen, seen)
        silent = now - max(self._fetched_at or 0.0, self._asking_since or now)
        if silent > SILENT_ROUNDS * SILENT_S:
            raise DependencyUnavailable("log", f"no fetch was answered for {silent:.0f} s")

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
                owned.delivered != owned.committed
                or owned.lock.locked()
                or now - owned.settled_at < SETTLE_EVERY_S
                or not self._holds(owned)
            ):
                continue
            owned.settled_at = now
            with contextlib.suppress(IllegalStateError, AssertionError):  # revoked meanwhile
                position = await self._fetcher.position(owned.kafka_source)
                if self._holds(owned) and position > owned.committed == owned.delivered:
                    self._in_background(self._settle_one(owned, position))

    def _holds(self, owned: Owned) -> bool:
        return self._owned.get(owned.assignment.source) is owned

    async def _settle_one(self, owned: Owned, position: int) -> None:
        with contextlib.suppress(PartitionLost):
            async with owned.lock:
                if self._holds(owned) and owned.committed == owned.delivered < position:
                    await self._commit(owned, (), position, owned.metadata)
                    owned.delivered = max(owned.delivered, position)

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.update(sources)

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.difference_update(sources)
        self._resumed.set()

    # Committing.

    async def commit(
        self,
        assignment: Assignment,
        outputs: Sequence[Output],
        next_offset: int,
        metadata: OffsetMetadata = PLAIN,
    ) -> None:
        self._check()
        owned = self._owned.get(assignment.source)
        if owned is None or owned.assignment.generation != assignment.generation:
            raise PartitionLost(f"fenced on {assignment.source}: it is no longer held")
        unknown = {output.topic for output in outputs} - self._topics.keys()
        if unknown:
            self._topics.update(require_topics(await topic_partitions(self._admin), unknown))
        async with owned.lock:
            # A settled position may lie past this record's end: never step back.
            await self._commit(owned, outputs, max(next_offset, owned.committed), metadata)

    async def _commit(
        self, owned: Owned, outputs: Sequence[Output], next_offset: int, metadata: OffsetMetadata
    ) -> None:
        source = owned.assignment.source
        metadata = msgspec.structs.replace(
            metadata, finished=tuple(_past(next_offset, metadata.finished))
        )
        mapped = self._settings.stream.order == "key" or bool(metadata.finished)
        sequence = owned.sequence + 1 if mapped else 0
        text = encode_metadata(metadata, next_offset, sequence=sequence, stamp=self._stamp(source))
        try:
            await owned.committer.commit(outputs, next_offset, text)
        except PartitionLost as error:
            self._lose(owned, error)
            raise
        owned.metadata, owned.committed = metadata, next_offset
        owned.sequence = sequence or owned.sequence
        self._acknowledged[source] = next_offset, sequence
        self._lost_at.pop(source, None)
        self._committed_at = self._clock.monotonic()
        if not self._lost_at:
            self._trouble = ""

    async def lag(self) -> Mapping[TopicPartition, int]:
        owned = dict(self._owned)
        if not owned or self._fetcher is None:
            return {}
        ends = await self._fetcher.end_offsets([one.kafka_source for one in owned.values()])
        self._last_lag = {
            source: max(
                0,
                ends[one.kafka_source]
                - one.committed
                - sum(end - start for start, end in one.metadata.finished),
            )
            for source, one in owned.items()
        }
        return self._last_lag

    def activity(self) -> LogActivity:
        now = self._clock.monotonic()
        trouble = self._trouble
        if not trouble and self._asking_since is not None:
            silent = now - max(self._fetched_at or 0.0, self._asking_since)
            if silent > SILENT_S:
                trouble = f"no fetch was answered for {silent:.0f} s"
        return LogActivity(
            fetched_at=self._fetched_at,
            committed_at=self._committed_at,
            rebalances=self._rebalances,
            failed_commits=self._failed_commits,
            trouble=trouble,
        )

    async def stop(self) -> None:
        follow, tasks = self._follow_task, list(self._tasks)
        if follow is not None:
            follow.cancel()
            await asyncio.gather(follow, return_exceptions=True)
        committers = [owned.committer.stop() for owned in self._owned.values()]
        self._owned = {}
        await asyncio.gather(*committers, *tasks, return_exceptions=True)
        # Left last: whoever takes over finds nothing open.
        for client in (self._member, self._fetcher, self._producer):
            if client is not None:
                await close_client(client)
        if self._admin is not None:
            await close_admin(self._admin)
        self._closed()

    def _check(self) -> None:
        """Raise what happened where nobody could catch it.

        Raises:
            DependencyUnavailable: the log has to be opened anew.
            FatalError: it cannot go on.
        """
        failure = self._failure
        if failure is None and self._member is not None:
            try:
                self._member._coordinator.check_errors()
            except KafkaError as error:
                failure = self._failure = error
        if failure is None:
            if self._member is None:
                raise FatalError("the log was used before it was started")
            return
        if isinstance(failure, DependencyUnavailable | FatalError):
            raise failure
        if isinstance(failure, KafkaError | OSError | TimeoutError):
            raise DependencyUnavailable("log", f"following the group failed: {failure!r}")
        raise FatalError(f"following the group failed: {failure!r}") from failure


async def close_admin(admin: Any) -> None:
    """Close an admin client, whatever its state."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(5.0):
            await admin.close()


def out_of_range(group: str, detail: object) -> FatalError:
    """The committed offset is gone from the topic: skipping or replaying is a person's choice."""
    return FatalError(
        f"group {group} is committed at an offset its topic no longer has: {detail}. Records may "
        "have expired unjudged. Choose where to go on with `kafka-consumer-groups.sh --group "
        f"{group} --reset-offsets --to-earliest --execute` (or --to-offset) and start again"
    )


def record_of(message: Any) -> Record:
    """An aiokafka message, or an unreadable one, as a record of ours."""
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=message.timestamp,
        key=message.key,
        value=message.value,
        headers=message.headers,
        unreadable=getattr(message, "unreadable", ""),
    )


def _older(read: tuple[int, Committed] | None, offset: int, sequence: int) -> bool:
    """Whether an answer tells of less than ``offset`` and ``sequence``, which were committed."""
    if read is None:
        return True
    if sequence and read[1].sequence:
        return read[1].sequence < sequence
    return read[0] < offset


def _past(offset: int, runs: Iterable[Run]) -> Iterable[Run]:
    return ((max(start, offset), end) for start, end in runs if end > offset)


def _fetcher(settings: Settings) -> Any:
    return aiokafka.AIOKafkaConsumer(
        **connection_options(settings.kafka, "fetcher"),
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        fetch_max_bytes=min(50 * 1024 * 1024, settings.stream.max_bytes),
        max_partition_fetch_bytes=min(1024 * 1024, settings.stream.max_bytes),
    )


def _member(settings: Settings) -> Any:
    kafka = settings.kafka
    # The assignor remembers in class attributes: every member needs a class of its own. It goes by
    # the name of the one that versions before had, so that a group of both goes on: aiokafka 0.14
    # sends a request of its own for each of several assignors, and such members never agree.
    sticky = type(
        "Sticky", (StickyPartitionAssignor,), {"name": "roundrobin", "member_assignment": None}
    )
    return aiokafka.AIOKafkaConsumer(
        **connection_options(kafka, "consumer"),
        group_id=kafka.group_id,
        group_instance_id=kafka.group_instance_id,
        enable_auto_commit=False,
        auto_offset_reset="none",
        session_timeout_ms=milliseconds(kafka.session_timeout_s),
        heartbeat_interval_ms=min(3000, milliseconds(kafka.session_timeout_s / 6)),
        rebalance_timeout_ms=milliseconds(kafka.rebalance_timeout_s),
        max_poll_interval_ms=NEVER_MS,
        partition_assignment_strategy=(sticky,),
    )
