"""React to verdicts with aiokafka.

    python examples/consume_verdicts_aiokafka.py --bootstrap localhost:9092

Needs ``aiokafka`` and ``msgspec``. Delivery is at least once: an offset is committed after its
verdict was handled, so ``react`` must be safe to repeat. ``verdict_id`` tells a repetition.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import Literal

import msgspec
from aiokafka import AIOKafkaConsumer


class Category(msgspec.Struct):
    """A category the verdict names."""

    name: str
    severity: str


class Verdict(msgspec.Struct):
    """The fields used here of schemas/verdict.v1.schema.json; all others are ignored."""

    verdict_id: str
    event_id: str
    conversation_id: str
    outcome: Literal["safe", "unsafe", "undecided"]
    action: Literal["allow", "flag", "hold", "block"]
    categories: list[Category]
    undecided_reason: str | None


async def react(verdict: Verdict) -> None:
    """Put your own reaction here: show the message, hide it, ask a person."""
    why = ", ".join(category.name for category in verdict.categories) or verdict.undecided_reason
    print(
        f"{verdict.action:5} {verdict.outcome:9} event={verdict.event_id} "
        f"conversation={verdict.conversation_id} why={why or '-'}",
        flush=True,
    )


async def consume(bootstrap: str, topic: str, group: str, count: int | None) -> None:
    """Handle verdicts until SIGINT, SIGTERM or ``count`` of them."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        isolation_level="read_committed",  # verdicts of aborted transactions do not count
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    stop = asyncio.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    decoder = msgspec.json.Decoder(Verdict)
    await consumer.start()
    handled = 0
    try:
        while not stop.is_set() and (count is None or handled < count):
            most = None if count is None else count - handled
            batches = await consumer.getmany(timeout_ms=500, max_records=most)
            for records in batches.values():
                for record in records:
                    await react(decoder.decode(record.value))
                    handled += 1
            if batches:
                await consumer.commit()
    finally:
        await consumer.stop()


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description="React to moderation verdicts.")
    parser.add_argument("--bootstrap", default="localhost:9092", help="broker, HOST:PORT")
    parser.add_argument("--topic", default="moderation.verdicts")
    parser.add_argument("--group", default="verdict-consumer")
    parser.add_argument("--count", type=int, help="end after so many verdicts")
    options = parser.parse_args()
    asyncio.run(consume(options.bootstrap, options.topic, options.group, options.count))


if __name__ == "__main__":
    main()
