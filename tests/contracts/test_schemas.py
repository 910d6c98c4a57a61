"""The published documents say what the types say, are valid themselves, and fit real records."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.records import event_document, input_record
from worker.codes import DeadLetterCode, SkippedReasoning, UndecidedReason
from worker.contracts import samples
from worker.contracts.asyncapi import asyncapi
from worker.contracts.decode import decode_event
from worker.contracts.encode import encode, verdict_output
from worker.contracts.schema import CONTRACTS, documents, drift, export, json_schema

ROOT = Path(__file__).parents[2]
ASYNCAPI_SCHEMA = ROOT / "tests" / "support" / "asyncapi-3.0.0.json.gz"


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        json_schema(name), format_checker=jsonschema.FormatChecker()
    )


def asyncapi_errors(document: dict[str, Any]) -> list[jsonschema.ValidationError]:
    schema = json.loads(gzip.decompress(ASYNCAPI_SCHEMA.read_bytes()))
    return list(jsonschema.Draft7Validator(schema).iter_errors(document))


def test_the_committed_documents_are_those_of_the_types() -> None:
    """After a change of the types: ``moderation-worker schema export``."""
    assert drift(ROOT / "schemas") == []
    committed = {
        str(path.relative_to(ROOT / "schemas"))
        for path in (ROOT / "schemas").rglob("*")
        if path.is_file()
    }
    assert committed == set(documents())


def test_a_document_that_differs_is_reported_as_drift(tmp_path: Path) -> None:
    """Changed, or missing."""
    export(tmp_path)
    assert drift(tmp_path) == []
    (tmp_path / "verdict.v1.schema.json").write_text("{}")
    (tmp_path / "asyncapi.yaml").unlink()
    stale = {path.name for path in drift(tmp_path)}
    assert stale == {"verdict.v1.schema.json", "asyncapi.yaml"}


@pytest.mark.parametrize("name", CONTRACTS)
def test_every_json_schema_is_valid_2020_12(name: str) -> None:
    """Against its meta-schema."""
    jsonschema.Draft202012Validator.check_schema(json_schema(name))


def test_the_asyncapi_document_is_valid_and_a_broken_one_is_not() -> None:
    """Against the AsyncAPI Initiative's schema, Kafka bindings included."""
    assert asyncapi_errors(yaml.safe_load((ROOT / "schemas" / "asyncapi.yaml").read_text())) == []
    broken = json.loads(json.dumps(asyncapi()))
    broken["channels"]["verdicts"]["bindings"]["kafka"]["partitions"] = "many"
    assert asyncapi_errors(broken)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """Inside the document, or to a schema beside it."""

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [str(node["$ref"])] if "$ref" in node else []
            return own + [found for each in node.values() for found in references(each)]
        if isinstance(node, list):
            return [found for each in node for found in references(each)]
        return []

    document = asyncapi()
    for reference in references(document):
        if reference.startswith("./"):
            assert reference.removeprefix("./") in documents()
            continue
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


@pytest.mark.parametrize(
    ("example", "name"),
    [
        ("event", "event"),
        ("verdict", "verdict"),
        ("verdict.undecided", "verdict"),
        ("quarantine", "quarantine"),
        ("dead-letter", "dead-letter"),
        ("record-reference", "record-reference"),
    ],
)
def test_every_example_fits_its_schema(example: str, name: str) -> None:
    """As committed, read from the file."""
    content = json.loads((ROOT / "schemas" / "examples" / f"{example}.json").read_text())
    validator(name).validate(content)


@pytest.mark.parametrize("example", ["event", "event.cloudevent"])
def test_every_example_event_is_decoded_without_a_fault(example: str) -> None:
    """What the documentation shows can be sent."""
    raw = (ROOT / "schemas" / "examples" / f"{example}.json").read_bytes()
    assert decode_event(input_record(raw), 1 << 20).fault is None


@pytest.mark.parametrize("name", sorted(set(CONTRACTS) - {"event"}))
def test_what_goes_out_is_described_strictly(name: str) -> None:
    """Every field is there and no other: a field that slips out is found here first."""
    example = json.loads((ROOT / "schemas" / "examples" / f"{name}.json").read_text())
    assert not validator(name).is_valid({**example, "surprise": 1})
    for field in example:
        smaller = {key: value for key, value in example.items() if key != field}
        assert not validator(name).is_valid(smaller)


def test_what_comes_in_is_described_tolerantly() -> None:
    """Unknown fields and nulls are as good to the schema as they are to the worker."""
    nulls = {"time": None, "tenant": None, "locale": None, "metadata": None}
    message = {"role": "user", "text": None, "images": None, "mood": "good"}
    document = event_document(**nulls, messages=[message, {"role": "user", "text": "hi"}], more=1)
    validator("event").validate(document)
    assert decode_event(input_record(document), 1 << 20).fault is None


@given(
    st.sampled_from(["id", "conversation_id", "time", "tenant", "locale", "messages", "metadata"]),
    st.sampled_from([5, True, [], {}, "", "x" * 300, [5], [{"role": "system"}], [{}]]),
)
def test_the_schema_allows_nothing_of_a_wrong_type_that_the_worker_refuses(
    name: str, value: object
) -> None:
    """A producer that validates its events is not surprised by types and lengths."""
    document = event_document(**{name: value})
    if validator("event").is_valid(document):
        decoded = decode_event(input_record(document), 1 << 20)
        assert decoded.fault is None or decoded.fault.field == "time" or not _of_user(document)


def _of_user(document: dict[str, Any]) -> bool:
    """Whether a user says anything: no matter of types."""
    return any(each.get("role") == "user" for each in document["messages"])


def test_a_verdict_with_every_optional_part_missing_fits_its_schema() -> None:
    """The smallest verdict there is."""
    smallest = msgspec.structs.replace(
        samples.UNDECIDED, tenant=None, images=(), undecided_detail=None
    )
    validator("verdict").validate(json.loads(verdict_output(smallest, topic="t").value or b""))


def test_every_field_of_every_contract_is_described() -> None:
    """Readers of the schema have nothing else."""

    def undescribed(schema: dict[str, Any]) -> list[str]:
        own = [name for name, field in schema["properties"].items() if not field["description"]]
        return own + [
            field for each in schema.get("$defs", {}).values() for field in undescribed(each)
        ]

    for name in CONTRACTS:
        assert undescribed(json_schema(name)) == []


def test_the_faults_of_an_event_leave_a_quarantine_record_that_fits_its_schema() -> None:
    """Without messages, where they could not be read."""
    decoded = decode_event(input_record(event_document(messages=5)), 1 << 20)
    record = msgspec.structs.replace(samples.QUARANTINE, event=decoded.event)
    validator("quarantine").validate(json.loads(encode(record)))


@pytest.mark.parametrize("codes", [DeadLetterCode, UndecidedReason, SkippedReasoning])
def test_codes_are_lower_case_words(codes: Any) -> None:
    """They become metric labels and header values."""
    assert all(code.value == code.name.lower() for code in codes)
