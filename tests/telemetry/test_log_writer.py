"""Nothing outside stops the loop: lines are written elsewhere, bounded, dropped with a count."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec
import pytest

from tests.support.canary import logged
from tests.support.measured import measured
from tests.support.records import input_record
from tests.support.verdicts import make_verdict
from worker.accounting.event_log import log_dead_letter, log_event
from worker.codes import DeadLetterCode
from worker.contracts.verdict import Outcome
from worker.errors import UnreadableRecord
from worker.settings import Telemetry
from worker.telemetry import logs
from worker.telemetry.logs import EVENT_LOGGER, BackgroundHandler, JsonFormatter
from worker.telemetry.names import Metric

WAIT_S = 20.0
MOST = 400


@contextmanager
def a_pipe() -> Iterator[tuple[int, IO[str]]]:
    """A pipe's end to read from, and a stream that writes into it."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        try:
            yield reading, stream
        finally:
            os.close(reading)


def within(seconds: float, work: Callable[[], object]) -> None:
    """Do ``work`` in a thread; fail where it has not ended in time."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it still waits for the reader"


def handler_on(stream: IO[str]) -> BackgroundHandler:
    handler = BackgroundHandler(stream, MOST)
    handler.setFormatter(JsonFormatter())
    return handler


def record(number: int, name: str = EVENT_LOGGER) -> logging.LogRecord:
    text = f"line %d {'x' * 200}"
    return logging.LogRecord(name, logging.INFO, "", 0, text, (number,), None)


def read(descriptor: int, until: Callable[[str], bool]) -> str:
    """What comes out of a pipe, until it is enough."""
    found, deadline = b"", time.monotonic() + WAIT_S
    while not until(found.decode()):
        left = max(0.0, deadline - time.monotonic())
        assert select.select([descriptor], [], [], left)[0], f"nothing more came: {found!r}"[-500:]
        found += os.read(descriptor, 65_536)
    return found.decode()


def told(text: str) -> float:
    """How many lines were dropped, as the log itself says."""
    return sum(map(int, re.findall(r"(\d+) log lines were dropped", text)), start=0) or -math.inf


def test_a_reader_that_stalls_costs_lines_and_stops_nobody() -> None:
    """A full pipe blocked the event loop: judging, probes and signals with it."""
    count = 3000
    with a_pipe() as (reading, stream), measured() as found:
        handler = handler_on(stream)
        within(WAIT_S, lambda: [handler.handle(record(number)) for number in range(count)])
        assert found.total(Metric.LOG_DROPPED) == 0, "it is counted once the reader is back"
        said = read(reading, lambda text: text.count("\n") - 1 + told(text) >= count)
        handler.close()
        dropped = found.total(Metric.LOG_DROPPED)
    assert dropped == told(said) > count / 2
    assert len(said.splitlines()) - 1 + dropped == count


def test_lines_about_the_worker_have_room_that_events_do_not_take() -> None:
    """A flood of events must not push out the line that says what is wrong."""
    with a_pipe() as (reading, stream):
        handler = handler_on(stream)
        for number in range(3000):
            handler.handle(record(number))
        handler.handle(record(7, "worker.service"))
        read(reading, lambda text: '"worker.service"' in text)
        handler.close()


def test_a_process_ends_in_time_though_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for the writer, but not for ever."""
    monkeypatch.setattr(logs, "FLUSH_S", 0.2)
    with a_pipe() as (_, stream):
        handler = handler_on(stream)
        for number in range(3000):
            handler.handle(record(number))
        within(WAIT_S, handler.close)


def test_what_was_logged_is_written_when_it_is_flushed() -> None:
    """Whoever ends a process hard can have the last lines written before."""
    stream = io.StringIO()
    handler = handler_on(stream)
    for number in range(MOST // 2):
        handler.handle(record(number))
    handler.flush()
    assert len(stream.getvalue().splitlines()) == MOST // 2
    handler.close()


def lines_of(share: float, outcome: Outcome, count: int = 1000) -> list[dict[str, Any]]:
    """The lines of ``count`` events with this outcome."""
    with logged(Telemetry()) as stream:
        for number in range(count):
            verdict = msgspec.structs.replace(
                make_verdict(), verdict_id=f"{number:032x}", outcome=outcome
            )
            log_event(verdict, share=share)
    return [json.loads(line)["event"] for line in stream.getvalue().splitlines()]


def test_a_share_of_events_leaves_lines_and_the_same_ones_every_time() -> None:
    """A terabyte of lines a day that say `safe` is what nobody reads; and a retry decides alike."""
    lines = lines_of(0.1, "safe")
    assert 60 < len(lines) < 140
    assert [line["verdict_id"] for line in lines] == [
        line["verdict_id"] for line in lines_of(0.1, "safe")
    ]
    assert {line["sample_ratio"] for line in lines} == {0.1}


def test_all_and_none_are_exact() -> None:
    """A share of 1 loses no line and is not mentioned; of 0 leaves none."""
    whole = lines_of(1.0, "unsafe")
    assert len(whole) == 1000
    assert all("sample_ratio" not in line for line in whole)
    assert lines_of(0.0, "safe") == []


def test_dead_letters_always_leave_a_line() -> None:
    """They are what somebody has to look at."""
    with logged() as stream:
        log_dead_letter(input_record(b"x"), UnreadableRecord(DeadLetterCode.NOT_JSON))
    assert len(stream.getvalue().splitlines()) == 1
