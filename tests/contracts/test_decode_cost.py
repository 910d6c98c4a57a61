"""Decoding costs little beside parsing, so that strictness is no reason to go without."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable

from tests.support.records import event_document, input_record
from worker.contracts.decode import decode_event

ROUNDS = 40


def cost(work: Callable[[], object]) -> float:
    return timeit.timeit(work, number=100)


def test_decoding_a_kilobyte_costs_less_than_eight_times_a_bare_parse() -> None:
    """Shape, duplicates, types and bounds together; measured at about four times."""
    message = {"role": "user", "text": "hello " * 45}
    image = {"uri": "s3://bucket/key.png", "sha256": "a" * 64}
    messages = [message, {"role": "assistant", "text": "yes " * 45}, {**message, "images": [image]}]
    record = input_record(event_document(messages=messages, metadata={"client": "web"}))
    value = record.value or b""
    assert 900 < len(value) < 1200
    # Side by side, and the best of many: neighbours on the machine slow down both or one.
    ratios = [
        cost(lambda: decode_event(record, 1 << 20)) / cost(lambda: json.loads(value))
        for _ in range(ROUNDS)
    ]
    assert min(ratios) < 8
