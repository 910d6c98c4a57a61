"""The Log interface and its values. Nothing here knows what a record means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from worker.errors import WorkerError
from worker.records import Output, Record, TopicPartition

Run = tuple[int, int]
"""Offsets from the first on, up to the second, which is not one of them."""

Identify = Callable[[bytes | None], None]


def _nobody(conversation: bytes | None) -> None:
    """Nobody waits for this record's conversation."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A record handed to the processor. ``attempts`` counts from 1; more than 1 after a crash.

    ``isolated``: nothing else is in flight beside it. ``poison``: give up on it, it killed the
    worker too often; the processor answers with an undecided outcome without judging it.
    ``untouchable``: that ended the worker as well; the processor refers to it and reads nothing.
    ``identify`` is to be called with the conversation as soon as it is known: until then, or until
    the record is finished, nothing behind it is published.
    """

    record: Record
    attempts: int = 1
    isolated: bool = False
    poison: bool = False
    untouchable: bool = False
    identify: Identify = _nobody


Processor = Callable[[Delivery], Awaitable[Sequence[Output]]]
"""Turns one record into everything to publish for it; at least one output, for nothing is dropped.

Raises ``DependencyUnavailable`` where a whole dependency is away: the record is retried, in order.
Any other exception is a bug and ends the process, without committing the record.
"""


class OffsetMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What the group keeps beside a committed offset; see docs/decisions/offset-metadata.md.

    ``finished``: offsets past the committed one that are done, as ascending runs. The others are
    about records that end the worker. ``worker`` is the incarnation that started records (empty
    after an orderly end), all of them below ``started``. Unfinished records below ``until`` are
    suspects: they were in flight at ``attempts`` ends without a word. ``tried`` is the suspect that
    is alone in flight now, ``alone`` how many incarnations ended so, and ``explained`` the last of
    them: its end is no other partition's riddle.
    """

    finished: tuple[Run, ...] = ()
    worker: str = ""
    started: int = 0
    attempts: int = 0
    until: int = 0
    tried: int | None = None
    alone: int = 0
    explained: str = ""


PLAIN = OffsetMetadata()
"""Nothing is finished out of order, and nothing is suspected."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """Ownership of a partition. ``next_offset`` is the first record that is not finished.

    ``generation`` changes with every assignment: work of an older one is dropped. ``metadata``
    is what the last owner left beside the offset. ``end`` is the partition's end as of now: no
    record from there on can have been in flight before; None where it is not known. ``explained``
    names incarnations that ended with a suspect of another partition alone in flight.
    """

    source: TopicPartition
    generation: int
    next_offset: int
    metadata: OffsetMetadata = PLAIN
    end: int | None = None
    explained: frozenset[str] = frozenset()


class PartitionLost(WorkerError):
    """One partition is no longer ours, or its producer broke: drop it and nothing else."""

    code = "partition_lost"


class LogActivity(msgspec.Struct, frozen=True, kw_only=True):
    """What the log did so far. Times ending in ``_at`` are of the clock's ``monotonic``."""

    fetched_at: float | None = None
    committed_at: float | None = None
    rebalances: int = 0
    failed_commits: int = 0
    trouble: str = ""
    """Why partitions wait for the log, where they do."""


class Owner(Protocol):
    """Told by the log about partitions, before the first record and after the last."""

    async def assigned(self, assignments: Sequence[Assignment]) -> None: ...

    async def revoked(self, sources: Iterable[TopicPartition]) -> None:
        """Drop what is gone: its new owner may have it already, and fences whatever comes late."""
        ...


class Log(Protocol):
    """A group consumer with atomic commits. Conformance: tests/log/conformance.py.

    Everything may raise ``DependencyUnavailable`` where the log cannot be reached: ``stop`` it
    then, and ``start`` it again.
    """

    async def connect(self, topics: Sequence[str]) -> None:
        """Reach the log without joining the group.

        Raises:
            FatalError: a topic is missing (none is ever made), or we are refused for good.
        """
        ...

    async def start(self, topics: Sequence[str], owner: Owner) -> None:
        """Join the group, after ``connect`` where that was not done yet."""
        ...

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Records of the partitions that are not paused, in order within each."""
        ...

    def pause(self, sources: Iterable[TopicPartition]) -> None: ...

    def resume(self, sources: Iterable[TopicPartition]) -> None: ...

    async def commit(
        self,
        assignment: Assignment,
        outputs: Sequence[Output],
        next_offset: int,
        metadata: OffsetMetadata = PLAIN,
    ) -> None:
        """Publish ``outputs`` and move the group to ``next_offset``, both or neither.

        ``metadata`` is kept beside the offset. One commit of an assignment runs at a time.

        Raises:
            PartitionLost: fenced, or in an unknown state: what was in flight is delivered again.
        """
        ...

    async def lag(self) -> Mapping[TopicPartition, int]:
        """Unfinished records, by assigned partition."""
        ...

    def activity(self) -> LogActivity:
        """What happened so far; cheap."""
        ...

    async def stop(self) -> None:
        """Leave the group after the owner has drained. ``start`` may follow."""
        ...
