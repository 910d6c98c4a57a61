"""React to verdicts with Faust: python examples/consume_verdicts_faust.py worker --without-web.

Needs ``faust-streaming`` and ``msgspec``. ``KAFKA_BOOTSTRAP`` names the broker (localhost:9092),
``VERDICT_TOPIC`` and ``VERDICT_GROUP`` the topic and the consumer group. Delivery is at least once,
so ``react`` must be safe to repeat. ``verdict_id`` tells a repetition.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from typing import Any, Literal

import faust
import msgspec
from faust.transport.drivers import aiokafka as driver


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


class ReadCommittedThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Reads committed records only; Faust does so by itself only where it writes transactions."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = False


class ReadCommittedConsumer(driver.Consumer):  # type: ignore[misc]
    """Runs the thread above."""

    def _new_consumer_thread(self) -> ReadCommittedThread:
        return ReadCommittedThread(self, loop=self.loop, beacon=self.beacon)


class ReadCommittedTransport(driver.Transport):  # type: ignore[misc]
    """Makes the consumer above."""

    Consumer = ReadCommittedConsumer


app = faust.App(
    os.environ.get("VERDICT_GROUP", "verdict-consumer-faust"),
    broker=f"aiokafka://{os.environ.get('KAFKA_BOOTSTRAP', 'localhost:9092')}",
    store="memory://",
    topic_allow_declare=False,
    topic_disable_leader=True,
    datadir=f"{tempfile.gettempdir()}/verdict-consumer",
)
app.transport = ReadCommittedTransport(app.conf.broker_consumer, app)
verdicts = app.topic(
    os.environ.get("VERDICT_TOPIC", "moderation.verdicts"),
    value_type=bytes,
    value_serializer="raw",
)
decoder = msgspec.json.Decoder(Verdict)


async def react(verdict: Verdict) -> None:
    """Put your own reaction here: show the message, hide it, ask a person."""
    why = ", ".join(category.name for category in verdict.categories) or verdict.undecided_reason
    print(
        f"{verdict.action:5} {verdict.outcome:9} event={verdict.event_id} "
        f"conversation={verdict.conversation_id} why={why or '-'}",
        file=sys.__stdout__,  # Faust makes warnings of what is printed elsewhere
        flush=True,
    )


@app.agent(verdicts)  # type: ignore[untyped-decorator]
async def handle(stream: Any) -> None:
    """One at a time and in order: Faust may skip a record that is acknowledged out of order."""
    async for value in stream:
        wait_s = 0.5
        while True:  # Faust acknowledges a record whose handler raised, so none may escape
            try:
                await react(decoder.decode(value))
                break
            except Exception as error:
                print(f"trying again in {wait_s} s: {error!r}", flush=True)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 30.0)


if __name__ == "__main__":
    app.main()
