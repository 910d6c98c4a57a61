"""Input records and events for tests of everything that reads them."""

from __future__ import annotations

import json
from typing import Any

from worker.records import Headers, Record


def event_document(**changes: Any) -> dict[str, Any]:
    """A small valid event as a producer writes it; ``changes`` replace or add fields."""
    return {
        "id": "e-1",
        "conversation_id": "c-1",
        "messages": [{"role": "user", "text": "hello"}],
        **changes,
    }


def input_record(
    value: object = None, *, headers: Headers = (), key: bytes | None = b"c-1"
) -> Record:
    """A record of topic ``in``. ``value``: bytes as they are, None is null, else JSON of it."""
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Record(
        topic="in",
        partition=2,
        offset=7,
        timestamp=1_700_000_000_123,
        key=key,
        value=raw,
        headers=headers,
    )
