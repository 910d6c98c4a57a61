"""What the conformance suite needs to know about a log: settings, topics, and a way to fence."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.support.kafka import Cluster
from worker.log.base import Assignment
from worker.log.factory import open_admin, open_reader, open_writer
from worker.records import Output, Record
from worker.settings import Settings, load_settings


class Backend(Protocol):
    """One log under test. ``settings`` names topics of its own, already created."""

    settings: Settings
    topic: str

    async def fence(self, assignment: Assignment) -> None:
        """Take a partition over as a new owner would, behind its owner's back."""
        ...


def _overrides(name: str, **more: Any) -> dict[str, Any]:
    overrides: dict[str, Any] = {
        "topics": {
            "verdicts": f"{name}.verdicts",
            "quarantine": f"{name}.quarantine",
            "dead_letter": f"{name}.dead-letter",
            "shadow": f"{name}.shadow",
        },
        "stream": {"retry_initial_s": 0.05, "retry_max_s": 0.2, "drain_s": 5.0},
    }
    overrides["stream"] |= more.pop("stream", {})
    return overrides | more


class LocalBackend:
    """The log in a directory."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.topic = "events"
        self.settings = load_settings(
            None,
            **_overrides("out", **more),
            log={"backend": "local", "directory": str(directory / "log")},
        )

    async def fence(self, assignment: Assignment) -> None:
        from worker.log.local.journal import Epoch, Journal, encode_transaction

        journal = Journal(self.settings.log.directory)
        group = self.settings.kafka.group_id
        journal.append(
            lambda: encode_transaction(
                epochs=[Epoch(group, *assignment.source, assignment.generation + 1)]
            )
        )
        journal.close()


class KafkaBackend:
    """The log on a real broker."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        session_timeout_s: float = 6.0,
        kafka: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        name = f"t-{uuid.uuid4().hex[:10]}"
        self.topic = f"{name}.events"
        overrides = _overrides(name, **more)
        self.settings = load_settings(
            None,
            **overrides,
            kafka={
                "bootstrap_servers": cluster.bootstrap_servers,
                "group_id": name,
                "session_timeout_s": session_timeout_s,
                "rebalance_timeout_s": 20.0,
                "transaction_timeout_s": 15.0,
                **(kafka or {}),
            },
        )

    async def fence(self, assignment: Assignment) -> None:
        from worker.log.kafka.committer import TransactionalCommitter

        committer = TransactionalCommitter(self.settings, assignment.source, {})
        await committer.start()
        await committer.stop()


async def create(backend: Backend, partitions: int = 4, replication: int = 1) -> None:
    """Create the input topic and the outputs."""
    settings = backend.settings
    names = settings.topics
    async with open_admin(settings) as admin:
        for topic in (
            backend.topic, names.verdicts, names.quarantine, names.dead_letter, names.shadow
        ):  # fmt: skip
            await admin.create(topic, partitions, replication, settings.kafka.max_message_bytes)


async def write(backend: Backend, records: Sequence[Output]) -> None:
    async with open_writer(backend.settings) as writer:
        await writer.write(records)


async def read(backend: Backend, topic: str) -> list[Record]:
    async with open_reader(backend.settings) as reader:
        return [record async for record in reader.read(topic)]


def by_partition(records: Sequence[Record]) -> Mapping[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record)
    return found
