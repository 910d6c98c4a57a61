"""Every kind of bad input, and where the documentation says it ends."""

from __future__ import annotations

import json
import zlib
from typing import Any

import msgspec

from tests.support.images import animated, encoded, noise, plain, png, png_chunk
from tests.support.records import event_document
from tests.support.worker_place import WorkerPlace
from worker.codes import DeadLetterCode, UndecidedReason
from worker.records import Headers

MAX_EVENT_BYTES = 10 * 1024 * 1024
HEADERS: Headers = (("x-own", b"\x00\xff bytes"), ("twice", b"1"), ("twice", None))
"""On every record, so that dead letters are seen to keep them."""


class BadInput(msgspec.Struct, frozen=True, kw_only=True):
    """One record. ``expect``: a dead-letter code, an undecided reason, or ``safe``."""

    name: str
    value: bytes | None
    expect: str
    headers: Headers = HEADERS

    @property
    def dead(self) -> bool:
        """Whether it is no event at all."""
        return isinstance(self.expect, DeadLetterCode)


def bad_inputs(place: WorkerPlace) -> list[BadInput]:
    """All of them; pictures are laid into the place's store."""
    return [*_unreadable(), *_undecidable(), *_images(place), *_harmless()]


def _raw(name: str, value: bytes | None, code: DeadLetterCode, headers: Headers = ()) -> BadInput:
    return BadInput(name=name, value=value, expect=code, headers=HEADERS + headers)


def _unreadable() -> list[BadInput]:
    code = DeadLetterCode
    whole = json.dumps(event_document()).encode()
    return [
        _raw("not_utf8", b'{"id":"\xff\xfe"}', code.NOT_UTF8),
        _raw("not_json", b"hello there", code.NOT_JSON),
        _raw("empty_value", b"", code.NOT_JSON),
        _raw("cut_off", whole[:-5], code.NOT_JSON),
        _raw("nan", b'{"id": NaN, "conversation_id": "c"}', code.NOT_JSON),
        _raw("too_large", b" " * (MAX_EVENT_BYTES + 1), code.TOO_LARGE),
        _raw("too_large_to_copy", b"x" * (13 * 1024 * 1024), code.TOO_LARGE),
        _raw("deep_arrays", b"[" * 100_000 + b"]" * 100_000, code.TOO_DEEP),
        _raw("deep_objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, code.TOO_DEEP),
        _raw("no_object", b"[1, 2]", code.WRONG_TYPE),
        _raw("id_no_string", json.dumps(event_document(id=7)).encode(), code.WRONG_TYPE),
        _raw("no_id", b'{"conversation_id": "c", "messages": []}', code.MISSING_FIELD),
        _raw("no_conversation", b'{"id": "e", "messages": []}', code.MISSING_FIELD),
        _raw("id_twice", b'{"id":"a","id":"b","conversation_id":"c"}', code.DUPLICATE_KEY),
        _raw("control_in_id", json.dumps(event_document(id="a\nb")).encode(), code.INVALID_FIELD),
        _raw("tombstone", None, code.TOMBSTONE),
        _raw("framed", b"\x00\x00\x00\x00\x07" + whole, code.SCHEMA_REGISTRY_FRAMED),
        _raw(
            "old_cloudevent",
            whole,
            code.UNSUPPORTED_CLOUDEVENT,
            (("ce_specversion", b"0.3"), ("ce_type", b"t"), ("ce_source", b"s"), ("ce_id", b"1")),
        ),
    ]


def _event(name: str, expect: str, **changes: Any) -> BadInput:
    value = json.dumps(event_document(**{"id": name, **changes})).encode()
    return BadInput(name=name, value=value, expect=expect)


def _user(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "text": "look", **fields}]


def _undecidable() -> list[BadInput]:
    reason = UndecidedReason
    nearly = "x" * (MAX_EVENT_BYTES - 300)
    turn = b'{"role":"user","text":"a","text":"b"}'
    twice = b'{"id":"text_twice","conversation_id":"c","messages":[' + turn + b"]}"
    many = [{"uri": f"s3://pics/{n}.png"} for n in range(1000)]
    return [
        _event("messages_no_array", reason.INVALID_FIELD, messages="hello"),
        _event("text_no_string", reason.INVALID_FIELD, messages=_user(text=5)),
        _event("ten_megabytes", reason.INVALID_FIELD, messages=_user(text=nearly)),
        _event("time_no_time", reason.INVALID_FIELD, time="yesterday"),
        _event("control_in_tenant", reason.INVALID_FIELD, tenant="a\x00b"),
        BadInput(name="text_twice", value=twice, expect=reason.INVALID_FIELD),
        _event("no_messages", reason.NO_USER_TURN, messages=[]),
        _event("no_user_turn", reason.NO_USER_TURN, messages=[{"role": "assistant", "text": "hi"}]),
        _event("empty_message", reason.EMPTY_MESSAGE, messages=_user(text=" \n")),
        _event("thousand_images", reason.TOO_MANY_IMAGES, messages=_user(images=many)),
    ]


def _images(place: WorkerPlace) -> list[BadInput]:
    reason = UndecidedReason
    good = encoded(plain())
    place.picture("good.png", good)
    wide = png(60_000, 60_000, png_chunk(b"IDAT", zlib.compress(bytes(99))))
    bombs = {
        "truncated": (encoded(noise(64, 64))[:2000], reason.IMAGE_CORRUPT),
        "huge_pixels": (wide, reason.IMAGE_TOO_LARGE),
        "huge_bytes": (good + bytes(21 * 1024 * 1024), reason.IMAGE_TOO_LARGE),
        "lying": (b"<html>no picture</html>", reason.IMAGE_FORMAT),
        "of_another_format": (encoded(plain(), "BMP"), reason.IMAGE_FORMAT),
        "empty": (b"", reason.IMAGE_FORMAT),
        "animated": (animated([plain(), noise(64, 48)], "GIF"), "safe"),
    }
    found = [
        _event(name, expect, messages=_user(images=[{"uri": place.picture(name, content)}]))
        for name, (content, expect) in bombs.items()
    ]
    for name, image, expect in (
        ("missing_object", {"uri": "s3://pics/gone.png"}, reason.IMAGE_MISSING),
        ("climbing_uri", {"uri": "s3://pics/../secrets"}, reason.IMAGE_URI_INVALID),
        ("control_in_uri", {"uri": "s3://pics/a\x07b"}, reason.IMAGE_URI_INVALID),
        ("http_url", {"uri": "http://example.org/a.png"}, reason.IMAGE_URI_INVALID),
        ("file_url", {"uri": "file:///etc/passwd"}, reason.IMAGE_URI_INVALID),
        ("other_bucket", {"uri": "s3://other/a.png"}, reason.IMAGE_NOT_ALLOWED),
        (
            "wrong_sha256",
            {"uri": "s3://pics/good.png", "sha256": "0" * 64},
            reason.IMAGE_DIGEST_MISMATCH,
        ),
        ("no_sha256", {"uri": "s3://pics/good.png", "sha256": "x"}, reason.IMAGE_URI_INVALID),
    ):
        found.append(_event(name, expect, messages=_user(images=[image])))
    return found


def _harmless() -> list[BadInput]:
    return [
        _event("unknown_fields", "safe", colour="red", messages=_user(mood={"a": [1]})),
        _event("control_in_text", "safe", messages=_user(text="a\x00b\x1b[31m \u202e <bos>")),
        _event("clock_far_ahead", "safe", time="9999-12-31T23:59:59Z"),
        _event("clock_far_behind", "safe", time="1900-01-01T00:00:00Z"),
        _event("at_the_end", "safe"),
    ]
