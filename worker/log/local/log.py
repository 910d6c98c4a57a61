"""The log in a directory of this machine: the semantics of Kafka's, without a broker."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from math import ceil
from pathlib import Path
from urllib.parse import quote
from zlib import crc32

from worker.errors import DependencyUnavailable, FatalError
from worker.log.base import (
    PLAIN,
    Assignment,
    LogActivity,
    OffsetMetadata,
    Owner,
    PartitionLost,
)
from worker.log.local.journal import Commit, Epoch, Journal, Stored, encode_transaction
from worker.log.metadata import decode_metadata, encode_metadata
from worker.records import Output, Record, TopicPartition

# Who reads what on the local log: partitions shared out by file locks of one machine.


class FileLock:
    """An advisory lock that the kernel gives back when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def try_acquire(self) -> bool:
        """Take the lock without waiting."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back; a lock that is not held stays as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Membership:
    """This process in a group: it holds at most its fair share of partitions.

    A frozen process keeps its locks, so nobody can take over behind its back; a dead one has none.
    """

    def __init__(self, directory: Path, group: str, sources: Sequence[TopicPartition]) -> None:
        self._directory = directory / "groups" / quote(group, safe="")
        self._members = self._directory / "members"
        self._members.mkdir(parents=True, exist_ok=True)
        self._sources = sorted(sources)
        self._locks: dict[TopicPartition, FileLock] = {}
        self._path = self._members / uuid.uuid4().hex
        self._presence = FileLock(self._path)
        self._presence.try_acquire()

    def _alive(self) -> int:
        if not self._path.exists():  # cleared away between being made and being locked
            self._presence.release()
            self._presence.try_acquire()
        alive = 1
        for path in self._members.iterdir():
            if path == self._path:
                continue
            lock = FileLock(path)
            if lock.try_acquire():  # its process is gone
                path.unlink(missing_ok=True)
                lock.release()
            else:
                alive += 1
        return alive

    @property
    def held(self) -> list[TopicPartition]:
        """The partitions this process has."""
        return sorted(self._locks)

    def surplus(self) -> list[TopicPartition]:
        """Partitions above the fair share, to be drained and released."""
        share = ceil(len(self._sources) / self._alive())
        return self.held[share:]

    def acquire(self) -> list[TopicPartition]:
        """Take free partitions up to the fair share."""
        share = ceil(len(self._sources) / self._alive())
        taken = []
        for source in self._sources:
            if len(self._locks) >= share:
                break
            if source in self._locks:
                continue
            name = f"{quote(source.topic, safe='')}-{source.partition}.lock"
            lock = FileLock(self._directory / name)
            if lock.try_acquire():
                self._locks[source] = lock
                taken.append(source)
        return taken

    def release(self, sources: Sequence[TopicPartition]) -> None:
        """Give partitions back after they were drained."""
        for source in sources:
            lock = self._locks.pop(source, None)
            if lock is not None:
                lock.release()

    def leave(self) -> None:
        """Give everything back."""
        self.release(self.held)
        self._path.unlink(missing_ok=True)
        self._presence.release()


REBALANCE_EVERY_S = 0.25
IDLE_S = (0.002, 0.05)
"""Waits between looks at a file that does not grow: the first, and the longest."""
POLL_BYTES = 8 * 1024 * 1024

_turn = count()


class LocalLog:
    """See ``Log``. Several processes of one machine may share a directory and a group.

    A partition's epoch grows with every claim; a commit of an older epoch is refused, so even a
    process whose file lock was taken away by hand cannot write twice.
    """

    def __init__(
        self, directory: Path, group: str, *, outputs: Sequence[str] = (), fsync: bool = False
    ) -> None:
        self._directory = directory
        self._outputs = tuple(outputs)
        self._group = group
        self._fsync = fsync
        self._journal: Journal | None = None
        self._membership: Membership | None = None
        self._owner: Owner | None = None
        self._assignments: dict[TopicPartition, Assignment] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._looked_at = 0.0
        self._assigned_once = False
        self._grown = asyncio.Event()
        self._fetched_at: float | None = None
        self._committed_at: float | None = None
        self._rebalances = self._failed_commits = 0

    async def connect(self, topics: Sequence[str]) -> None:
        if self._journal is not None:
            return
        with self._trouble():
            journal = self._journal = await asyncio.to_thread(
                Journal, self._directory, fsync=self._fsync
            )
        missing = [name for name in (*topics, *self._outputs) if name not in journal.topics]
        if missing:
            raise FatalError(
                f"missing topics: {', '.join(missing)}. Create them with "
                "`moderation-worker topics create`, or correct the names in topics.* and the "
                "policies"
            )

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """A disk that is full, or a directory that is gone, is nobody's fault but its own."""
        try:
            yield
        except OSError as error:
            raise DependencyUnavailable(
                "log", f"{self._directory} (log.directory): {error.strerror or error!r}"
            ) from error

    async def start(self, topics: Sequence[str], owner: Owner) -> None:
        await self.connect(topics)
        journal = self._open()
        sources = [
            TopicPartition(topic, partition)
            for topic in dict.fromkeys(topics)
            for partition in range(journal.topics[topic])
        ]
        self._owner = owner
        self._assigned_once, self._looked_at = False, 0.0
        with self._trouble():
            self._membership = Membership(self._directory, self._group, sources)

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        with self._trouble():
            records = await self._poll(max_records, timeout_s)
        self._fetched_at = time.monotonic()
        return records

    async def _poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        journal = self._open()
        deadline = time.monotonic() + timeout_s
        wait, longest = IDLE_S
        while True:
            await self._rebalance()
            if journal.stale:
                await asyncio.to_thread(journal.refresh)
            records = self._read(journal, max_records)
            left = deadline - time.monotonic()
            if records or left <= 0:
                if not records:
                    await asyncio.sleep(0)
                return records
            self._grown.clear()
            await _wait(self._grown, min(wait, left))
            wait = min(2 * wait, longest)

    def _read(self, journal: Journal, max_records: int) -> list[Record]:
        records: list[Record] = []
        size = 0
        sources = [source for source in self._assignments if source not in self._paused]
        start = next(_turn) % len(sources) if sources else 0
        for source in sources[start:] + sources[:start]:
            position, end = self._positions[source], journal.end(source)
            while position < end and len(records) < max_records and size < POLL_BYTES:
                stored = journal.read(source, position)
                size += len(stored.value or b"")
                records.append(
                    Record(
                        topic=source.topic,
                        partition=source.partition,
                        offset=position,
                        timestamp=stored.timestamp,
                        key=stored.key,
                        value=stored.value,
                        headers=stored.headers,
                    )
                )
                position += 1
            self._positions[source] = position
        return records

    async def _rebalance(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < REBALANCE_EVERY_S:
            return
        self._looked_at = now
        membership, owner = self._membership, self._owner
        if membership is None or owner is None:
            return
        surplus = membership.surplus()
        if surplus:
            await owner.revoked(surplus)
            self._forget(surplus)
            membership.release(surplus)
        taken = membership.acquire()
        if taken or surplus or not self._assigned_once:
            self._rebalances += 1
            self._assigned_once = True
            await owner.assigned(await asyncio.to_thread(self._claim, taken))

    def _claim(self, sources: Sequence[TopicPartition]) -> list[Assignment]:
        journal = self._open()
        assignments: list[Assignment] = []

        def frame() -> bytes:
            epochs = []
            explained = frozenset(
                name
                for (group, *_), commit in journal.commits.items()
                if group == self._group
                for name in _explained(_metadata_of(commit))
            )
            for source in sources:
                key = (self._group, *source)
                epoch = journal.epochs.get(key, 0) + 1
                commit = journal.commits.get(key)
                epochs.append(Epoch(self._group, *source, epoch))
                assignments.append(
                    Assignment(
                        source=source,
                        generation=epoch,
                        next_offset=commit.next_offset if commit else 0,
                        metadata=_metadata_of(commit) if commit else PLAIN,
                        end=journal.end(source),
                        explained=explained,
                    )
                )
            return encode_transaction(epochs=epochs)

        if sources:
            journal.append(frame)
        for assignment in assignments:
            self._assignments[assignment.source] = assignment
            self._positions[assignment.source] = assignment.next_offset
            self._paused.discard(assignment.source)
        return assignments

    def _forget(self, sources: Iterable[TopicPartition]) -> None:
        for source in sources:
            self._assignments.pop(source, None)
            self._positions.pop(source, None)
            self._paused.discard(source)

    def pause(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.update(sources)

    def resume(self, sources: Iterable[TopicPartition]) -> None:
        self._paused.difference_update(sources)
        self._grown.set()

    async def commit(
        self,
        assignment: Assignment,
        outputs: Sequence[Output],
        next_offset: int,
        metadata: OffsetMetadata = PLAIN,
    ) -> None:
        journal = self._open()
        try:
            with self._trouble():
                await asyncio.to_thread(
                    self._append, journal, assignment, outputs, next_offset, metadata
                )
        except Exception as error:
            self._failed_commits += 1
            if isinstance(error, PartitionLost):
                self._forget([assignment.source])
                if self._membership is not None:  # whoever is first takes it, with a new epoch
                    self._membership.release([assignment.source])
            raise
        self._committed_at = time.monotonic()

    def _append(
        self,
        journal: Journal,
        assignment: Assignment,
        outputs: Sequence[Output],
        next_offset: int,
        metadata: OffsetMetadata,
    ) -> None:
        source = assignment.source

        def frame() -> bytes:
            if journal.epochs.get((self._group, *source)) != assignment.generation:
                raise PartitionLost(
                    f"fenced on {source.topic}-{source.partition}: another worker owns it now"
                )
            text = encode_metadata(metadata, next_offset)
            commit = Commit(self._group, *source, next_offset, metadata=text)
            return encode_transaction(place(outputs, journal.topics), [commit])

        journal.append(frame)

    async def lag(self) -> Mapping[TopicPartition, int]:
        journal = self._open()
        lags = {}
        for source, assignment in self._assignments.items():
            commit = journal.commits.get((self._group, *source))
            done = commit.next_offset if commit else assignment.next_offset
            finished = _metadata_of(commit).finished if commit else ()
            ahead = sum(end - start for start, end in finished)
            lags[source] = max(0, journal.end(source) - done - ahead)
        return lags

    def activity(self) -> LogActivity:
        return LogActivity(
            fetched_at=self._fetched_at,
            committed_at=self._committed_at,
            rebalances=self._rebalances,
            failed_commits=self._failed_commits,
        )

    async def stop(self) -> None:
        self._forget(list(self._assignments))
        if self._membership is not None:
            self._membership.leave()
        if self._journal is not None:
            self._journal.close()
        self._membership = self._journal = None

    def _open(self) -> Journal:
        if self._journal is None:
            raise FatalError("the log was used before it was started")
        return self._journal


def _metadata_of(commit: Commit) -> OffsetMetadata:
    if not commit.metadata:
        return OffsetMetadata(attempts=commit.attempts, until=commit.until)
    return decode_metadata(commit.metadata, commit.next_offset).metadata


def _explained(metadata: OffsetMetadata) -> Iterator[str]:
    if metadata.explained:
        yield metadata.explained
    if metadata.tried is not None and metadata.worker:
        yield metadata.worker


def place(
    outputs: Sequence[Output], topics: Mapping[str, int], now_ms: int | None = None
) -> list[tuple[str, int, Stored]]:
    """Give every output its partition: by its key's checksum, the first for records without.

    Raises:
        FatalError: a topic does not exist; none is ever made.
    """
    timestamp = int(time.time() * 1000) if now_ms is None else now_ms
    placed = []
    for output in outputs:
        partitions = topics.get(output.topic)
        if partitions is None:
            raise FatalError(
                f"missing topics: {output.topic}. Create them with `moderation-worker topics "
                "create`, or correct topics.*"
            )
        partition = crc32(output.key) % partitions if output.key else 0
        placed.append(
            (
                output.topic,
                partition,
                Stored(timestamp, output.key, output.value, output.headers),
            )
        )
    return placed


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
