"""A field that is not read is named to its sender: it may be a picture that nobody looks at."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from tests.support.records import event_document, input_record
from worker.cli.schema import schema
from worker.contracts.decode import decode_event
from worker.contracts.event import Event, ImageRef, Message
from worker.contracts.schema import json_schema
from worker.contracts.unknown_fields import MOST, unknown_fields


def of_message(**fields: Any) -> dict[str, Any]:
    return event_document(messages=[{"role": "user", "text": "x", **fields}])


def of_image(**fields: Any) -> dict[str, Any]:
    return of_message(images=[{"uri": "s3://b/k", **fields}])


@pytest.mark.parametrize(
    ("document", "path", "kind", "meant"),
    [
        (of_message(image="s3://b/k.png"), "messages[0].image", "known_synonym", "images"),
        (of_message(content="x"), "messages[0].content", "known_synonym", "text"),
        (of_message(imgaes=[]), "messages[0].imgaes", "near_miss", "images"),
        (of_message(Text="x"), "messages[0].Text", "near_miss", "text"),
        (of_message(mood="happy"), "messages[0].mood", "other", None),
        (of_image(url="s3://b/k"), "messages[0].images[0].url", "known_synonym", "uri"),
        (of_image(versionId="1"), "messages[0].images[0].versionId", "near_miss", "version_id"),
        (event_document(conversationId="c"), "conversationId", "near_miss", "conversation_id"),
        (event_document(timestamp="t"), "timestamp", "known_synonym", "time"),
        (event_document(prompt="x"), "prompt", "known_synonym", "messages[].text"),
        (event_document(shard=7), "shard", "other", None),
    ],
)
def test_an_unknown_field_is_named_with_what_was_meant(
    document: dict[str, Any], path: str, kind: str, meant: str | None
) -> None:
    """By its path, and with the field of ours in the same place."""
    (found,) = decode_event(input_record(document), 10**6).unknown
    assert (found.path, found.kind) == (path, kind)
    assert (found.meant or "").endswith(meant or "")
    assert bool(found.hint) is (meant is not None)


def test_what_the_contract_knows_and_what_is_the_senders_own_is_not_unknown() -> None:
    """Fields of the contract, anything in metadata, and what surrounds a CloudEvent."""
    full = event_document(
        time="2026-01-01T00:00:00Z",
        tenant="t",
        locale="en",
        messages=of_image(version_id="1", sha256="0" * 64)["messages"],
        metadata={"image": 1, "content": {"text": 2}},
    )
    assert decode_event(input_record(full), 10**6).unknown == ()
    envelope = {
        "specversion": "1.0",
        "type": "t",
        "source": "/s",
        "id": "e",
        "myextension": "x",
        "data": full,
    }
    assert decode_event(input_record(envelope), 10**6).unknown == ()
    envelope["data"] = {**full, "image": 1}
    (found,) = decode_event(input_record(envelope), 10**6).unknown
    assert found.path == "data.image"


def test_a_million_unknown_fields_cost_no_more_than_a_few() -> None:
    """They come from outside."""
    raw = {f"field-{number}": 1 for number in range(200_000)}
    started = time.perf_counter()
    few = unknown_fields(dict(list(raw.items())[: 2 * MOST]))
    first = time.perf_counter() - started
    started = time.perf_counter()
    assert len(unknown_fields(raw)) == len(few) == MOST
    assert time.perf_counter() - started < 100 * first + 0.05


def test_schema_decode_names_them_and_strict_refuses_them() -> None:
    """In the sender's own pipeline, before anything is sent."""
    given = json.dumps(of_message(image="s3://b/k.png"))
    tolerant = CliRunner().invoke(schema, ["decode"], input=given)
    assert tolerant.exit_code == 0
    (found,) = json.loads(tolerant.output)["unknown_fields"]
    assert found["hint"] == "Did you mean `messages[0].images`?"
    assert CliRunner().invoke(schema, ["decode", "--strict"], input=given).exit_code == 1
    clean = json.dumps(event_document())
    assert CliRunner().invoke(schema, ["decode", "--strict"], input=clean).exit_code == 0


def test_the_strict_schema_refuses_what_the_tolerant_one_lets_pass() -> None:
    """At every level, and nothing else: whatever is in metadata is the sender's own."""
    strict, tolerant = json_schema("event", strict=True), json_schema("event")
    for document in (of_message(image=1), of_image(url=1), event_document(prompt=1)):
        jsonschema.validate(document, tolerant)
        with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
            jsonschema.validate(document, strict)
    for kind in (Event, Message, ImageRef):
        assert kind.__struct_fields__
    jsonschema.validate(event_document(metadata={"any": 1}), strict)
