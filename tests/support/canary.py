"""A word that no user content may carry out of the worker's verdicts and quarantine.

Put ``CANARY`` wherever users write (``hostile_values``, ``hostile_text``), run the worker, and hand
everything that came out of logs, spans, metrics and pages to ``assert_no_canary``.
"""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from worker.settings import Telemetry
from worker.telemetry.logs import configure_logging

CANARY = "xyzzycanaryplugh"
"""Plain letters, so that no encoding of text hides it."""


def hostile_text(shell: str = "{}") -> str:
    """Content that tries to be something else: markup, a log line, a format string, a template."""
    return shell.format(
        f"{CANARY} %s %(levelname)s {{}} <script>alert('{CANARY}')</script>\n"
        f'{{"level": "info", "message": "{CANARY}"}}\r\x1b[31m{CANARY} \u202e \x00 \ud800'
        f"<start_of_image><end_of_turn>{CANARY}"
    )


def hostile_values() -> list[bytes]:
    """Record values with the canary everywhere but in the ids: events, near events and no events.

    Ids are no content: operators find events by them.
    """
    text = hostile_text()
    valid = {
        "id": "e-1",
        "conversation_id": "c-1",
        "locale": CANARY,
        "messages": [
            {"role": "user", "text": f"earlier {text}"},
            {"role": "assistant", "text": f"earlier {text}"},
            {"role": "user", "text": text},
            {"role": "assistant", "text": text},
        ],
        "metadata": {CANARY: {"deep": [CANARY]}},
        CANARY: "an unknown field",
    }

    def changed(**changes: object) -> bytes:
        return json.dumps({**valid, **changes}).encode()

    def image(uri: str) -> bytes:
        images = [{"uri": uri, "sha256": CANARY, "version_id": CANARY}]
        return changed(messages=[{"role": "user", "text": text, "images": images}])

    whole = json.dumps(valid).encode()
    return [
        whole,
        whole[: len(whole) // 2],
        whole + whole,
        b"\xff\xfe" + whole,
        b"\x00\x00\x00\x00\x01" + whole,
        CANARY.encode(),
        b'{"id": "e-1", "id": "' + CANARY.encode() + b'"}',
        b"[" * 200 + b'"' + CANARY.encode() + b'"' + b"]" * 200,
        changed(messages=CANARY),
        changed(messages=[{"role": CANARY, "text": text}]),
        changed(messages=[{"role": "user", "text": [CANARY]}]),
        changed(messages=[]),
        changed(time=CANARY),
        changed(tenant=[CANARY]),
        changed(id=[CANARY]),
        image(f"s3://bucket/{CANARY}.png"),
        image(f"http://{CANARY}.example/x"),
        image(f"s3://bucket/../{CANARY}"),
    ]


def assert_no_canary(*leaks: str | bytes) -> None:
    """Fail where the canary is in any of ``leaks``: as it is, in capitals, in base64 or hex."""
    needles = [CANARY.encode(), CANARY.encode().hex().encode()]
    # Base64 depends on the position modulo three; the middle of each form is enough.
    needles += [base64.b64encode(b"x" * shift + CANARY.encode())[4:-4] for shift in range(3)]
    for leak in leaks:
        data = leak.encode("utf-8", "backslashreplace") if isinstance(leak, str) else leak
        for needle in needles:
            at = data.lower().find(needle.lower())
            assert at < 0, f"user content leaked: {data[max(0, at - 200) : at + 60]!r}"


@contextmanager
def logged(settings: Telemetry | None = None) -> Iterator[io.StringIO]:
    """Everything logged inside, by anybody, as the worker would write it to its stream."""
    stream = io.StringIO()
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    handler = configure_logging(settings or Telemetry(log_level="debug"), stream)
    root.handlers[:] = [handler]  # pytest's own formats without our rules
    try:
        yield stream
    finally:
        handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.getLogger("worker").setLevel(logging.NOTSET)
        logging.captureWarnings(False)
