"""The AsyncAPI 3 document: topics, what is in them, and how Kafka carries it."""

from __future__ import annotations

from typing import Any, Final

CONTRACT_VERSION: Final = "1.0.0"
"""Of the contracts, not of the worker; a field or code added raises the second number."""
_ASYNCAPI: Final = "3.0.0"
_BINDING: Final = "0.5.0"
_SCHEMA_FORMAT: Final = "application/schema+json;version=2020-12"
_ATTRIBUTES: Final = {
    "content-type": "Always `application/json`.",
    "ce_specversion": "Always `1.0`.",
    "ce_id": "The verdict's id.",
    "ce_source": "Which worker output, and the input topic.",
    "ce_type": "Kind and major version of the record.",
    "ce_time": "When it was decided, RFC 3339 in UTC.",
    "ce_subject": "The event's id.",
    "ce_partitionkey": "The conversation's id, as the record key.",
    "ce_dataschema": "URN of the JSON Schema.",
}
_TRACE_CONTEXT: Final = {
    "traceparent": "W3C trace context of the span that decided.",
    "tracestate": "W3C trace state, where the producer sent one.",
}
_FAILURE: Final = {
    "code": "Why the record could not be read.",
    "field": "Path of the field at fault; may be empty.",
    "detail": "What is wrong, in types and lengths.",
    "topic": "Input topic.",
    "partition": "Input partition.",
    "offset": "Input offset.",
    "timestamp": "Input timestamp, milliseconds since the epoch.",
    "failed-at": "When it failed, RFC 3339 in UTC.",
    "worker-build": "Version of the worker.",
}
_FLAGS: Final = {
    "null-value": "`true` where the value was null; it is empty here.",
    "by-reference": "`true` where the value is a record reference in place of the record.",
}


def asyncapi() -> dict[str, Any]:
    """The document, as the worker's side sees it."""
    prefix = "moderation.dead-letter."
    failure = {prefix + name: text for name, text in _FAILURE.items()}
    flags = {prefix + name: text for name, text in _FLAGS.items()}
    return {
        "asyncapi": _ASYNCAPI,
        "info": {
            "title": "Moderation worker",
            "version": CONTRACT_VERSION,
            "description": "Conversation events in; exactly one verdict each out. Topic names are "
            "configurable; these are the defaults.",
            "license": {
                "name": "Apache-2.0",
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": _channel("conversations", "Input. Each policy names its topics.", "event"),
            "verdicts": _channel(
                "moderation.verdicts", "One verdict for every decoded event.", "verdict"
            ),
            "quarantine": _channel(
                "moderation.quarantine", "Content held for a person.", "quarantine"
            ),
            "dead-letter": _channel(
                "moderation.dead-letter",
                "Records that are no event: key, value and headers as they came.",
                "dead-letter",
                "record-reference",
            ),
            "shadow": _channel(
                "moderation.verdicts.shadow", "Verdicts of candidate policies.", "verdict"
            ),
        },
        "operations": {
            "judge": _operation("receive", "events"),
            "publish-verdict": _operation("send", "verdicts"),
            "hold": _operation("send", "quarantine"),
            "dead-letter": _operation("send", "dead-letter"),
            "publish-shadow-verdict": _operation("send", "shadow"),
        },
        "components": {
            "messages": {
                "event": _message(
                    "Event",
                    "Plain JSON, or a CloudEvent in binary or structured mode.",
                    _schema("event"),
                    headers=_headers({}, {**_TRACE_CONTEXT}),
                    key="Any key; events of one conversation belong under one key.",
                ),
                "verdict": _message(
                    "Verdict",
                    "A CloudEvent in binary mode.",
                    _schema("verdict"),
                    headers=_headers(_ATTRIBUTES, _TRACE_CONTEXT),
                    key="The conversation's id.",
                ),
                "quarantine": _message(
                    "Quarantine record",
                    "A CloudEvent in binary mode.",
                    _schema("quarantine"),
                    headers=_headers(_ATTRIBUTES, _TRACE_CONTEXT),
                    key="The conversation's id.",
                ),
                "dead-letter": _message(
                    "Dead letter",
                    "The record as it came; its own headers come first. `dead-letter` describes "
                    "what tools read from these headers.",
                    {"description": "Any bytes; empty where the value was null."},
                    headers=_headers(failure, flags),
                    key="As it came.",
                    content_type="application/octet-stream",
                ),
                "record-reference": _message(
                    "Dead letter by reference",
                    "In place of a record too large to copy.",
                    _schema("record-reference"),
                    headers=_headers(
                        failure | {prefix + "by-reference": _FLAGS["by-reference"]}, flags
                    ),
                    key="As it came, unless it was too large too.",
                ),
            },
            "schemas": {"dead-letter-description": _schema("dead-letter")},
        },
    }


def _channel(address: str, description: str, *messages: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topicConfiguration": {"cleanup.policy": ["delete"]},
                "bindingVersion": _BINDING,
            }
        },
    }


def _operation(action: str, channel: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _message(
    title: str,
    summary: str,
    payload: dict[str, Any],
    *,
    headers: dict[str, Any],
    key: str,
    content_type: str = "application/json",
) -> dict[str, Any]:
    return {
        "title": title,
        "summary": summary,
        "contentType": content_type,
        "headers": headers,
        "payload": payload,
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": key},
                "bindingVersion": _BINDING,
            }
        },
    }


def _headers(required: dict[str, str], optional: dict[str, str]) -> dict[str, Any]:
    described = {
        name: {"type": "string", "description": text}
        for name, text in (optional | required).items()
    }
    schema: dict[str, Any] = {"type": "object", "properties": described}
    if required:
        schema["required"] = list(required)
    return schema


def _schema(name: str) -> dict[str, Any]:
    return {"schemaFormat": _SCHEMA_FORMAT, "schema": {"$ref": f"./{name}.v1.schema.json"}}
