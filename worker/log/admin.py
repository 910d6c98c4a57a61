"""Topics: what there is, what there should be, and how to mend the difference."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from worker.log.local.journal import encode_transaction
from worker.log.local.tools import LocalTool
from worker.settings import Settings


class TopicInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as it is. ``max_message_bytes`` is ``None`` where there is no such limit."""

    name: str
    partitions: int
    max_message_bytes: int | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing about a topic. ``fix`` says what to do; empty where ``ok``."""

    topic: str
    ok: bool
    problem: str = ""
    fix: str = ""


class TopicAdmin(Protocol):
    """Looks at topics and makes them; an async context."""

    async def __aenter__(self) -> TopicAdmin: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def topics(self) -> Mapping[str, TopicInfo]:
        """Every topic there is. Asking never creates one."""
        ...

    async def create(
        self, name: str, partitions: int, replication: int, max_message_bytes: int
    ) -> bool:
        """Create one topic; False where it already exists.

        Raises:
            FatalError: the log refused.
        """
        ...


class LocalAdmin(LocalTool):
    """See ``TopicAdmin``; on the local log, which knows no replicas and no size limit."""

    async def topics(self) -> Mapping[str, TopicInfo]:
        journal = self._journal
        await asyncio.to_thread(journal.refresh)
        return {
            name: TopicInfo(name=name, partitions=partitions)
            for name, partitions in journal.topics.items()
        }

    async def create(
        self, name: str, partitions: int, replication: int, max_message_bytes: int
    ) -> bool:
        journal = self._journal
        created = False

        def frame() -> bytes:
            nonlocal created
            created = name not in journal.topics
            return encode_transaction(topics=[(name, partitions)] if created else [])

        await asyncio.to_thread(journal.append, frame)
        return created


def output_topics(settings: Settings) -> tuple[str, ...]:
    """The topics every worker publishes to; the shadow topic only serves candidate policies."""
    names = settings.topics
    return (names.verdicts, names.quarantine, names.dead_letter, names.shadow)


async def create_topics(
    admin: TopicAdmin, settings: Settings, inputs: Iterable[str]
) -> dict[str, bool]:
    """Create input and output topics that are missing: name to whether it was made now."""
    wanted = dict.fromkeys((*inputs, *output_topics(settings)))
    made = {}
    for name in wanted:
        made[name] = await admin.create(
            name,
            settings.topics.input_partitions.get(name, settings.topics.partitions),
            settings.topics.replication,
            settings.kafka.max_message_bytes,
        )
    return made


async def check_topics(
    admin: TopicAdmin, settings: Settings, inputs: Iterable[str]
) -> list[Finding]:
    """One finding a topic: does it exist, take the largest record, have enough partitions?"""
    known = await admin.topics()
    outputs = output_topics(settings)
    return [
        _check(name, known.get(name), settings, name in outputs)
        for name in dict.fromkeys((*inputs, *outputs))
    ]


def _check(name: str, info: TopicInfo | None, settings: Settings, output: bool) -> Finding:
    needed = settings.kafka.max_message_bytes
    if info is None:
        return Finding(
            topic=name,
            ok=False,
            problem="does not exist",
            fix="create it with `moderation-worker topics create`, or correct its name",
        )
    if output and info.max_message_bytes is not None and info.max_message_bytes < needed:
        return Finding(
            topic=name,
            ok=False,
            problem=f"takes records of {info.max_message_bytes} bytes, {needed} are needed",
            fix=f"`kafka-configs.sh --alter --entity-type topics --entity-name {name} "
            f"--add-config max.message.bytes={needed}`, or lower kafka.max_message_bytes and "
            "stream.max_event_bytes",
        )
    wanted = settings.topics.input_partitions.get(name, 0)
    if info.partitions < wanted:
        return Finding(
            topic=name,
            ok=False,
            problem=f"has {info.partitions} partitions, topics.input_partitions says {wanted}",
            fix=f"`kafka-topics.sh --alter --topic {name} --partitions {wanted}` (conversations "
            "move between partitions), or lower topics.input_partitions",
        )
    return Finding(topic=name, ok=True)
