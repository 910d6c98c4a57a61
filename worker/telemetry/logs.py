"""Structured logs: JSON lines for machines, plain lines for people, one handler for everything."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any

import orjson
from opentelemetry import trace

from worker.settings import Telemetry
from worker.telemetry import event_lines
from worker.telemetry.event_lines import EventLines
from worker.telemetry.log_limit import RepeatLimit
from worker.telemetry.names import Canonical, LogExtra, LogField
from worker.telemetry.printable import printable
from worker.telemetry.redact import (
    MAX_LENGTH,
    describe,
    scrub_arguments,
    scrubbed,
    scrubbed_field,
    template,
)

EXTRA_FIELDS = frozenset(
    value
    for holder in (Canonical, LogExtra)
    for key, value in vars(holder).items()
    if not key.startswith("_")
) - {Canonical.EVENT_ID, Canonical.CONVERSATION_ID, Canonical.TENANT}
"""``extra=`` fields that any line may carry; their values are scrubbed like arguments."""

_TAMED = {
    "aiohttp.access": logging.WARNING,
    "aiokafka": logging.WARNING,
    "asyncio": logging.WARNING,
    "boto3": logging.WARNING,
    "botocore": logging.WARNING,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "opentelemetry": logging.WARNING,
    "PIL": logging.WARNING,
    "torch": logging.ERROR,
    "transformers": logging.ERROR,
    "peft": logging.ERROR,
    "urllib3": logging.ERROR,
}
"""Least severe line that each library may write: none of them below WARNING, whatever ours is."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line; its fields are those of ``names.LogField`` and nothing else."""

    def __init__(self, content: bool = False) -> None:
        super().__init__()
        self._content = content

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The line as a mapping."""
        line: dict[str, Any] = {
            LogField.TIME: _rfc3339(record.created),
            LogField.LEVEL: record.levelname.lower(),
            LogField.LOGGER: record.name,
            LogField.MESSAGE: self._message(record),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line[LogField.TRACE_ID] = f"{span.trace_id:032x}"
            line[LogField.SPAN_ID] = f"{span.span_id:016x}"
        event = record.__dict__.get(LogField.EVENT)
        if isinstance(event, dict) and record.name.startswith("worker"):
            line[LogField.EVENT] = event
        elif record.__dict__.keys() & EXTRA_FIELDS:
            for name in record.__dict__.keys() & EXTRA_FIELDS:
                value = record.__dict__[name]
                line[name] = value if self._content else scrubbed_field(name, value)
        if record.exc_info and record.exc_info[1] is not None:
            line[LogField.ERROR] = self._error(record.exc_info[1])
        elif isinstance(record.__dict__.get(LogField.ERROR), (str, BaseException)):
            line[LogField.ERROR] = {"type": scrubbed(record.__dict__[LogField.ERROR])}
        left_out = record.__dict__.get(LogField.SUPPRESSED)
        if isinstance(left_out, int):
            line[LogField.SUPPRESSED] = left_out
        return line

    def format(self, record: logging.LogRecord) -> str:
        # Text that is no UTF-8 (a lone surrogate) is escaped, never a reason to lose the line.
        line = self.fields(record)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:
            return orjson.dumps(printable(line), default=str).decode()

    def _message(self, record: logging.LogRecord) -> str:
        if self._content:
            return record.getMessage()[: 10 * MAX_LENGTH]
        text = template(record.name, record.msg)
        if not record.args:
            return text[:MAX_LENGTH]
        try:
            return str(text % scrub_arguments(record.name, text, record.args))[: 4 * MAX_LENGTH]
        except (TypeError, ValueError, KeyError):  # %d over a redacted string, or too few of them
            return text[:MAX_LENGTH]

    def _error(self, error: BaseException) -> dict[str, Any]:
        """What failed and where. Source lines and locals are left out; file and line are enough."""
        frames = traceback.extract_tb(error.__traceback__)
        found: dict[str, Any] = {
            "type": f"{type(error).__module__}.{type(error).__qualname__}",
            "detail": repr(error)[:MAX_LENGTH] if self._content else describe(error),
            "stack": [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames],
        }
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is not None:
            found["cause"] = str(cause)[:MAX_LENGTH] if self._content else describe(cause)
        return found


class TextFormatter(JsonFormatter):
    """The same line for people: time, level, message, then ``key=value``."""

    def format(self, record: logging.LogRecord) -> str:
        line = self.fields(record)
        head = f"{line.pop(LogField.TIME)[11:23]} {line.pop(LogField.LEVEL):<7} "
        text = printable(line.pop(LogField.MESSAGE))
        where = line.pop(LogField.LOGGER)
        details = {**line.pop(LogField.EVENT, {}), **line}
        stack = details.pop(LogField.ERROR, None)
        tail = "".join(f" {key}={printable(value)}" for key, value in details.items())
        if stack is not None:
            what = stack.get("detail", stack["type"])
            tail += "".join(f"\n    {each}" for each in (*stack.get("stack", ()), what))
        return f"{head}{text} [{where}]{tail}"


class _Handler(logging.StreamHandler[IO[str]]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say that a line was lost. The standard handler would print its arguments, content too."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"a log line of {record.name} could not be written\n")


def configure_logging(settings: Telemetry, stream: IO[str] | None = None) -> logging.Handler:
    """Give the root logger this one handler (standard error unless told), and tame libraries.

    Standard output stays free for what a command prints. May be called again: the handler of
    the call before is taken away.
    """
    handler = _Handler(stream or sys.stderr)
    form = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler.setFormatter(form(settings.content))
    handler.addFilter(RepeatLimit())
    handler.set_name("moderation-worker")
    event_lines.sink = EventLines(handler.stream) if settings.log_format == "json" else None
    root = logging.getLogger()
    for old in list(root.handlers):
        if old.get_name() == handler.get_name():
            root.removeHandler(old)
    root.addHandler(handler)
    level = getattr(logging, settings.log_level.upper())
    root.setLevel(logging.WARNING)
    logging.getLogger("worker").setLevel(level)
    for name, least in _TAMED.items():
        logging.getLogger(name).setLevel(max(least, level))
    logging.captureWarnings(True)
    # Nothing here logs the record's thread or process: two system calls saved on every line.
    logging.logProcesses = logging.logThreads = logging.logMultiprocessing = False
    return handler


def _rfc3339(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"


def _short(filename: str) -> str:
    parts = Path(filename).parts
    return "/".join(parts[-3:])
