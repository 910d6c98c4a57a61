"""A place for whole workers: settings file, policies, a log, and what came out of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.support.policies import write_policy
from tests.support.records import event_document
from worker.contracts.encode import QuarantineRecord
from worker.contracts.verdict import Verdict
from worker.log.admin import create_topics
from worker.log.factory import open_admin, open_reader, open_writer
from worker.policy.registry import PolicyRegistry
from worker.records import Headers, Output, Record
from worker.settings import Settings, load_settings

TOPIC = "chat"
LOOK_EVERY_S = 0.1


class WorkerPlace:
    """A directory to run workers in: local log and store, scripted judge, unless told otherwise.

    ``sections`` are laid over the settings file section by section.
    """

    def __init__(self, directory: Path, **sections: dict[str, Any]) -> None:
        self.directory = directory
        self.policies = directory / "policies"
        self.objects = directory / "objects"
        self.config = directory / "worker.yaml"
        self.policies.mkdir(parents=True)
        self.objects.mkdir()
        self._sections: dict[str, dict[str, Any]] = {
            "log": {"backend": "local", "directory": str(directory / "log")},
            "store": {"backend": "directory", "directory": str(self.objects), "buckets": ["pics"]},
            "judge": {"backend": "scripted", "allow_demonstration": True},
            "policies": {"directory": str(self.policies), "reload_s": 0.2},
            "stream": {"retry_initial_s": 0.05, "retry_max_s": 0.2, "drain_s": 10.0},
        }
        self.change(**sections)

    def change(self, **sections: dict[str, Any]) -> None:
        """Write the settings file anew, with these sections laid over it."""
        for name, fields in sections.items():
            self._sections[name] = {**self._sections.get(name, {}), **fields}
        self.config.write_text(yaml.safe_dump(self._sections), encoding="utf-8")

    @property
    def settings(self) -> Settings:
        """The settings as the worker reads them."""
        return load_settings(self.config)

    def policy(self, name: str = "chatter", **fields: Any) -> Path:
        """Write a policy; bound to ``chat`` and named ``chatter`` unless told otherwise."""
        given = {"topics": [TOPIC], "actions": {"default": "hold"}, **fields}
        return write_policy(self.policies, f"{name}.yaml", name=name, **given)

    def picture(self, key: str, content: bytes) -> str:
        """Lay an object into the store; its URI."""
        path = self.objects / "pics" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f"s3://pics/{key}"

    async def create_topics(self) -> None:
        """As ``moderation-worker topics create`` does."""
        registry = PolicyRegistry(self.policies)
        registry.load()
        async with open_admin(self.settings) as admin:
            await create_topics(admin, self.settings, registry.topics())

    async def write(self, outputs: Sequence[Output]) -> None:
        """Produce records."""
        async with open_writer(self.settings) as writer:
            await writer.write(outputs)

    async def read(self, topic: str) -> list[Record]:
        """Every committed record of a topic."""
        async with open_reader(self.settings) as reader:
            return [record async for record in reader.read(topic)]

    async def verdicts(self) -> list[Verdict]:
        """Everything on the verdict topic."""
        records = await self.read(self.settings.topics.verdicts)
        return [msgspec.json.decode(record.value or b"", type=Verdict) for record in records]

    async def quarantined(self) -> list[QuarantineRecord]:
        """Everything on the quarantine topic."""
        records = await self.read(self.settings.topics.quarantine)
        return [
            msgspec.json.decode(record.value or b"", type=QuarantineRecord) for record in records
        ]

    async def dead_letters(self) -> list[Record]:
        """Everything on the dead-letter topic."""
        return await self.read(self.settings.topics.dead_letter)

    async def until(
        self, verdicts: int, dead_letters: int = 0, deadline_s: float = 120.0
    ) -> list[Verdict]:
        """Wait for so many verdicts and dead letters at least; the verdicts."""
        names = self.settings.topics
        deadline = time.monotonic() + deadline_s
        while True:
            found = len(await self.read(names.verdicts)), len(await self.read(names.dead_letter))
            if found[0] >= verdicts and found[1] >= dead_letters:
                return await self.verdicts()
            assert time.monotonic() < deadline, f"{found} of {(verdicts, dead_letters)} came"
            await asyncio.sleep(LOOK_EVERY_S)


async def eventually(
    met: Callable[[], bool], what: str, deadline_s: float = 60.0, every_s: float = LOOK_EVERY_S
) -> None:
    """Look again and again until ``met``; fails after ``deadline_s``."""
    deadline = time.monotonic() + deadline_s
    while not await asyncio.to_thread(met):
        assert time.monotonic() < deadline, f"not {what}"
        await asyncio.sleep(every_s)


@pytest.fixture
async def place(tmp_path: Path) -> WorkerPlace:
    """A place with one policy, bound to ``chat``, and every topic made."""
    place = WorkerPlace(tmp_path / "place")
    place.policy()
    await place.create_topics()
    return place


def said(
    text: str,
    number: int = 1,
    *,
    images: Sequence[Mapping[str, str]] = (),
    topic: str = TOPIC,
    headers: Headers = (),
    **changes: Any,
) -> Output:
    """An event ``e-NUMBER`` in which a user says ``text``, beside ``images`` (``uri``, pins)."""
    message = {"role": "user", "text": text, "images": list(images)}
    fields = {"id": f"e-{number}", "conversation_id": f"c-{number % 13}", "messages": [message]}
    document = event_document(**{**fields, **changes})
    value = json.dumps(document).encode()
    key = str(document["conversation_id"]).encode()
    return Output(topic=topic, key=key, value=value, headers=headers)
