"""The group's rebalances, handed on without a chance for a record to slip in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiokafka
from aiokafka.abc import ConsumerRebalanceListener

from worker.stream.base import TopicPartition


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
