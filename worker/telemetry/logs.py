"""Structured logs: JSON lines for machines, plain lines for people, one handler for everything.

Lines are made where something happens and written by a thread of their own: a reader that stalls, a
full pipe or a slow disk costs lines, never a turn of the event loop.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import IO, Any

import orjson
from opentelemetry import trace

from worker.clock import Clock, SystemClock
from worker.settings import Telemetry
from worker.telemetry.instruments import log_dropped
from worker.telemetry.names import Canonical, LogExtra, LogField
from worker.telemetry.redact import (
    MAX_LENGTH,
    describe,
    scrub_arguments,
    scrubbed,
    scrubbed_field,
    template,
)

EVENT_LOGGER = "worker.event"
"""The logger of the lines that every event leaves."""
MAX_WAITING = 8000
"""Lines that wait for a slow reader, about ten megabytes; what comes then is dropped and counted.
The last quarter is kept for lines about the worker itself: they say what is wrong."""
GATHER_S = 0.01
"""Lines of this time are written together."""
FLUSH_S = 2.0
"""Longest that anybody waits for the writer: a process must end though nobody reads its output."""


def printable(value: Any) -> Any:
    """``value`` with everything escaped that could break a line or move a terminal's cursor."""
    if isinstance(value, dict):
        return {str(key): printable(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [printable(each) for each in value]
    if isinstance(value, str) and not value.isprintable():
        return value.encode("unicode_escape").decode("ascii")
    return value


MAX_TEMPLATES = 1000


class RepeatLimit(logging.Filter):
    """Lets a warning through ``burst`` times in ``window_s`` seconds, per logger and template.

    The first line of the next window says how many were left out (``suppressed``). Lines below
    WARNING and the lines of events are never limited.
    """

    def __init__(self, burst: int = 5, window_s: float = 60.0, clock: Clock | None = None) -> None:
        super().__init__()
        self._burst, self._window_s = burst, window_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], list[float]] = {}  # window start, lines in it

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        key = (record.name, str(record.msg)[:200])
        now = self._clock.monotonic()
        with self._lock:
            window = self._seen.get(key)
            if window is None:
                if len(self._seen) >= MAX_TEMPLATES:
                    self._seen.clear()
                self._seen[key] = [now, 1.0]
                return True
            if now - window[0] >= self._window_s:
                left_out = int(window[1]) - self._burst
                window[:] = [now, 1.0]
                if left_out > 0:
                    record.suppressed = left_out
                return True
            window[1] += 1
            return window[1] <= self._burst


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


class BackgroundHandler(logging.Handler):
    """Formats in the thread that logs, writes in one of its own.

    What does not fit into ``most`` waiting lines is dropped; once the stream takes lines again, one
    of them says how many were.
    """

    def __init__(self, stream: IO[str], most: int = MAX_WAITING) -> None:
        super().__init__()
        self._stream, self._most = stream, most
        self._lines: deque[str] = deque()
        self._dropped, self._counting = 0, threading.Lock()
        self._some, self._hurry = threading.Event(), threading.Event()
        self._idle, self._ended = threading.Event(), threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one line to the writer."""
        try:
            line = self.format(record)
        except Exception:  # said without its arguments, which may be content
            line = f"a log line of {record.name} could not be written"
        self.say(line, self._most * 3 // 4 if record.name == EVENT_LOGGER else self._most)

    def say(self, line: str, most: int | None = None) -> None:
        """Hand over a line that is formatted already; dropped where ``most`` are waiting."""
        if len(self._lines) >= (self._most if most is None else most):
            with self._counting:
                self._dropped += 1
            return
        self._lines.append(f"{line}\n")
        if self._idle.is_set():
            self._idle.clear()
        if not self._some.is_set():  # the writer gathers: one wake-up serves many lines
            self._some.set()

    def _run(self) -> None:
        while not self._ended.is_set() or self._lines:
            self._some.wait()
            self._hurry.wait(GATHER_S)
            self._some.clear()
            count = len(self._lines)
            if count and not self._write("".join([self._lines.popleft() for _ in range(count)])):
                with self._counting:
                    self._dropped += count
            else:
                self._tell_dropped()
            if not self._lines:
                self._hurry.clear()
                self._idle.set()  # a line that came just now clears it, and wakes this thread

    def _tell_dropped(self) -> None:
        with self._counting:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            log_dropped.add(dropped)
            text = "%d log lines were dropped: the log is read too slowly, or not at all"
            record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, (dropped,), None)
            self._write(self.format(record) + "\n")

    def _write(self, text: str) -> bool:
        """Whether the stream took all of it."""
        data = text.encode("utf-8", "backslashreplace")
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError, AttributeError):  # a stream in memory, or a closed one
            try:
                self._stream.write(data.decode())
                self._stream.flush()
            except (OSError, ValueError, AttributeError):  # None: a process without streams
                return False
            return True
        # Around the stream's own buffer: whoever flushes that one at the end must not wait here.
        while data:
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                select.select([], [descriptor], [])
            except OSError:  # a full disk, nobody behind the pipe: no reason to judge no more
                return False
        return True

    def flush(self) -> None:
        """Wait until everything is written, ``FLUSH_S`` at the longest."""
        self._hurry.set()
        self._some.set()
        self._idle.wait(FLUSH_S)

    def close(self) -> None:
        """Write what waits, for ``FLUSH_S`` at the longest, and end the writer."""
        self._ended.set()
        self.flush()
        self._thread.join(FLUSH_S if self._idle.is_set() else 0)
        super().close()


def say(line: str) -> None:
    """Write a line as it is, behind everything that was logged; to standard error at least."""
    told = False
    for handler in logging.getLogger().handlers:
        if isinstance(handler, BackgroundHandler):
            handler.say(line)
            told = True
    if not told:
        print(line, file=sys.stderr, flush=True)


def flush() -> None:
    """Wait for every handler's last lines, for seconds at most: before a process is ended hard."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def configure_logging(settings: Telemetry, stream: IO[str] | None = None) -> BackgroundHandler:
    """Give the root logger this one handler (standard error unless told), and tame libraries.

    Standard output stays free for what a command prints. May be called again: the handler of
    the call before is taken away.
    """
    handler = BackgroundHandler(stream or sys.stderr)
    form = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler.setFormatter(form(settings.content))
    handler.addFilter(RepeatLimit())
    handler.set_name("moderation-worker")
    root = logging.getLogger()
    for old in list(root.handlers):
        if old.get_name() == handler.get_name():
            root.removeHandler(old)
            old.close()
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
