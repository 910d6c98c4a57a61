"""The Log interface and its values. Nothing here knows what a record means."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from worker.records import Output, Record, TopicPartition


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A record handed to the processor. ``attempts`` counts from 1; more than 1 after a crash.

    ``isolated``: nothing else is in flight beside it. ``poison``: give up on it, it killed the
    worker too often; the processor answers with an undecided outcome without judging it.
    ``untouchable``: that ended the worker as well; the processor refers to it and reads nothing.
    """

    record: Record
    attempts: int = 1
    isolated: bool = False
    poison: bool = False
    untouchable: bool = False


Processor = Callable[[Delivery], Awaitable[Sequence[Output]]]
"""Turns one record into everything to publish for it; at least one output, for nothing is dropped.

Raises ``DependencyUnavailable`` where a whole dependency is away: the record is retried, in order.
Any other exception is a bug and ends the process, without committing the record.
"""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What the group remembers beside a committed offset, for records that kill the worker.

    ``attempts``: how often the record at the offset was tried without progress. ``until``: records
    below this offset are suspects and delivered alone; 0 where none are.
    """

    attempts: int = 0
    until: int = 0


UNMARKED = Mark()
"""Progress, or a clean end: nothing is suspected."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Ownership of a partition. ``next_offset`` is the first record not yet committed.

    ``generation`` changes with every assignment: work of an older claim is dropped.
    ``attempts`` is how often ``next_offset`` was claimed before without progress; ``until`` is the
    end of the suspected records (see ``Mark``). ``end`` is the partition's end as of the claim:
    no record from there on can have been in flight before; None where it is not known.
    """

    source: TopicPartition
    generation: int
    next_offset: int
    attempts: int = 0
    until: int = 0
    end: int | None = None


class Owner(Protocol):
    """Told by the log about partitions, before the first record and after the last."""

    async def assigned(self, claims: Sequence[Claim]) -> None: ...

    async def revoked(self, sources: Iterable[TopicPartition]) -> None:
        """Drain within the settings' deadline; commits still succeed until this returns."""
        ...


class Log(Protocol):
    """A group consumer with atomic commits. Conformance: tests/log/conformance.py."""

    async def start(self, topics: Sequence[str], owner: Owner) -> None:
        """Join the group. Raises ``FatalError`` where a topic is missing: none is ever made."""
        ...

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Records of the partitions that are not paused, in order within each."""
        ...

    def pause(self, sources: Iterable[TopicPartition]) -> None: ...

    def resume(self, sources: Iterable[TopicPartition]) -> None: ...

    async def commit(
        self,
        claim: Claim,
        outputs: Sequence[Output],
        next_offset: int,
        mark: Mark = UNMARKED,
    ) -> None:
        """Publish ``outputs`` and move the group to ``next_offset``, both or neither.

        ``mark`` is kept beside the offset. One commit of a claim runs at a time.

        Raises:
            FatalError: fenced, or in an unknown state: this process must end.
        """
        ...

    async def lag(self) -> Mapping[TopicPartition, int]:
        """Records not yet committed, by assigned partition."""
        ...

    async def stop(self) -> None:
        """Leave the group after the owner has drained."""
        ...
