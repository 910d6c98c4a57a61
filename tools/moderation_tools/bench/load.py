"""The load of the pipeline bench: events of about 800 bytes, written once, read by every rival."""

from __future__ import annotations

import random

import orjson

from worker.log.admin import output_topics
from worker.log.factory import open_admin, open_writer
from worker.records import Output
from worker.settings import Settings, load_settings

PARTITIONS = 4
EVENT_BYTES = 808
_WORDS = ("the", "river", "runs", "past", "our", "garden", "every", "morning", "feeds", "ducks")
_CHUNK = 5_000


def bench_settings(bootstrap_servers: str, name: str) -> Settings:
    """Settings of one run: groups and output topics of its own."""
    return load_settings(
        None,
        kafka={"bootstrap_servers": bootstrap_servers, "group_id": f"bench-{name}"},
        topics={
            "verdicts": f"bench.{name}.verdicts",
            "quarantine": f"bench.{name}.quarantine",
            "dead_letter": f"bench.{name}.dead-letter",
            "shadow": f"bench.{name}.shadow",
            "partitions": PARTITIONS,
        },
        judge={"backend": "scripted", "allow_demonstration": True},
        store={"backend": "directory", "directory": "."},
    )


def event(number: int) -> bytes:
    """Event ``number``: one user message, one answer; one in a hundred is unsafe."""
    dice = random.Random(number)  # noqa: S311 - a reproducible load, not a secret
    text = " ".join(dice.choice(_WORDS) for _ in range(50))
    if number % 100 == 0:
        text = f"where is a grenade {text}"
    body = {
        "id": f"event-{number}",
        "conversation_id": f"conversation-{number % 1000}",
        "time": "2026-01-01T00:00:00Z",
        "tenant": "bench",
        "locale": "en",
        "messages": [
            {"role": "user", "text": text},
            {"role": "assistant", "text": ""},
        ],
        "metadata": {"app": "bench"},
    }
    answer = " ".join(dice.choice(_WORDS) for _ in range(120))
    body["messages"][1]["text"] = answer[: EVENT_BYTES - len(orjson.dumps(body))]  # type: ignore[index]
    return orjson.dumps(body)


async def write_load(settings: Settings, topic: str, count: int) -> None:
    """Create ``topic`` and fill it with ``count`` events."""
    async with open_admin(settings) as admin:
        await admin.create(topic, PARTITIONS, 1, settings.kafka.max_message_bytes)
    async with open_writer(settings) as writer:
        for start in range(0, count, _CHUNK):
            numbers = range(start, min(start + _CHUNK, count))
            await writer.write(
                [
                    Output(topic=topic, key=f"conversation-{n % 1000}".encode(), value=event(n))
                    for n in numbers
                ]
            )


async def make_outputs(settings: Settings) -> None:
    """Create the output topics of one run."""
    async with open_admin(settings) as admin:
        for name in output_topics(settings):
            await admin.create(name, PARTITIONS, 1, settings.kafka.max_message_bytes)
