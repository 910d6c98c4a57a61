"""What can go wrong with one HTTP request, and what that says about the server and the event.

``AWAY``      refused connection, 429, 503              the server takes nothing now
``SETTINGS``  401, 403, 404                             nothing passes until it is mended
``DOUBTFUL``  time-out, 500, body cut off               server or event: only a probe tells
``REFUSED``   400, 422, an answer that cannot be read   as ``DOUBTFUL``, but the same again
"""

from __future__ import annotations

import re
from enum import StrEnum

from worker.contracts.codes import UndecidedReason
from worker.errors import Undecided


class Meaning(StrEnum):
    """See the table above."""

    AWAY = "away"
    SETTINGS = "settings"
    DOUBTFUL = "doubtful"
    REFUSED = "refused"


class Failure(Exception):
    """One failed request. ``kind`` is a metric label; ``reason`` holds if the event is to blame.

    ``retry_after_s`` is what the server asked for. Nothing the server wrote is kept: an error
    message may quote the content.
    """

    def __init__(
        self,
        meaning: Meaning,
        kind: str,
        *,
        reason: UndecidedReason = UndecidedReason.JUDGE_REJECTED,
        detail: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.meaning, self.kind, self.reason = meaning, kind, reason
        self.detail = detail or kind.replace("_", " ")
        self.retry_after_s = retry_after_s
        super().__init__(self.detail)


_TOO_LONG = re.compile(
    r"context[ _]length|maximum (context|model|input|prompt) length|max_model_len|max_seq_len"
    r"|(prompt|input|request)[^.]{0,40} too (long|large)|longer than the maximum",
    re.IGNORECASE,
)
"""How vLLM, SGLang, TensorRT-LLM and the OpenAI API say that a prompt does not fit."""
_SETTINGS = frozenset({401, 403, 404, 405, 407})
_AWAY = frozenset({408, 425, 429, 503})


def of_status(status: int, body: str, retry_after: str | None) -> Failure | Undecided:
    """What an answer that is not 200 means. ``body`` is looked at, and never kept."""
    kind = f"http_{status}"
    if status in (400, 413, 422) and (status == 413 or _TOO_LONG.search(body[:20_000])):
        return Undecided(
            UndecidedReason.CONTEXT_TOO_LONG, detail="the judged turn does not fit the server"
        )
    if status in _AWAY:
        return Failure(Meaning.AWAY, kind, retry_after_s=seconds(retry_after))
    if status in _SETTINGS or 300 <= status < 400:
        return Failure(Meaning.SETTINGS, kind)
    if status >= 500:
        return Failure(Meaning.DOUBTFUL, kind, retry_after_s=seconds(retry_after))
    return Failure(Meaning.REFUSED, kind)


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header in seconds (RFC 9110, 10.2.3), None where it names none."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isdigit():
        return float(text[:9])
    # Imported here: dates are rare, and the module is slow to load.
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
