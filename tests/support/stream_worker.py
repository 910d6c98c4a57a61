"""A whole worker process with nothing but a log in it, for tests that kill it.

``python -m tests.support.stream_worker SETTINGS_JSON TOPIC [TOPIC …]``: answers every record with
a verdict that names its source. A value that starts with ``die`` ends the process there and then,
``slow:SECONDS`` takes its time, and a poison delivery is answered as such.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence

from worker.errors import FatalError
from worker.log.base import Delivery
from worker.log.factory import open_log
from worker.log.runner import StreamRunner
from worker.records import Output
from worker.settings import load_settings


async def main(settings_json: str, topics: Sequence[str]) -> int:
    """Run until SIGTERM (0) or a fatal error (1)."""
    settings = load_settings(None, **json.loads(settings_json))
    pause_s = float(os.environ.get("STREAM_WORKER_PAUSE_S", "0"))

    async def judge(delivery: Delivery) -> Sequence[Output]:
        record = delivery.record
        value = record.value or b""
        delivery.identify(record.key)
        if value.startswith(b"die") and not delivery.poison:
            os._exit(9)
        if value.startswith(b"slow:"):
            await asyncio.sleep(float(value.removeprefix(b"slow:")))
        elif pause_s:  # a few records take three times as long: others pass them
            await asyncio.sleep(pause_s * (3 if record.offset % 17 == 0 else 1))
        verdict = {
            "source": {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
            },
            "outcome": "undecided" if delivery.poison else "safe",
            "attempts": delivery.attempts,
            "isolated": delivery.isolated,
        }
        body = json.dumps(verdict).encode()
        return [Output(topic=settings.topics.verdicts, key=record.key, value=body)]

    runner = StreamRunner(
        open_log(settings),
        judge,
        topics,
        settings.stream,
        conversation=lambda record: record.key,
    )
    stopping: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, lambda: stopping.append(asyncio.create_task(runner.stop()))
    )
    try:
        await runner.run()
    except FatalError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(process)d %(name)s %(message)s"
    )
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
