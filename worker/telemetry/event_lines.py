"""The events' own way into the log: the same line on the same stream, at a third of the cost.

The ``logging`` module makes a record, takes a lock, asks every filter and flushes once a line. For
lines whose fields are fixed (``canonical.py``) none of that is needed; lines of one turn of the
event loop are flushed together.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import IO, Any

import orjson
from opentelemetry import trace

from worker.telemetry.names import LogField
from worker.telemetry.printable import printable

LOGGER = "worker.event"


class EventLines:
    """Writes JSON lines to ``stream``, each in one piece. What it cannot write is lost."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._flushing = False
        self._second = 0
        self._prefix = ""

    def write(self, message: str, event: Mapping[str, Any]) -> None:
        """One line, with the current span's ids."""
        line: dict[str, Any] = {
            LogField.TIME: self._now(),
            LogField.LEVEL: "info",
            LogField.LOGGER: LOGGER,
            LogField.MESSAGE: message,
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line[LogField.TRACE_ID] = f"{span.trace_id:032x}"
            line[LogField.SPAN_ID] = f"{span.span_id:016x}"
        line[LogField.EVENT] = event
        try:
            text = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # an id with half a surrogate pair is escaped, never a line lost
            text = orjson.dumps(printable(line), option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._stream.write(text.decode())
        except (OSError, ValueError):  # a full disk, a closed stream: no reason to judge no more
            return
        if not self._flushing:
            self._flushing = True
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:  # no loop: a tool, or a test
                self._flush()

    def _now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        return f"{self._prefix}{int((now - second) * 1000):03d}Z"

    def _flush(self) -> None:
        self._flushing = False
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


sink: EventLines | None = None
"""Where events' lines go; None: through ``logging``, as lines for people do."""
