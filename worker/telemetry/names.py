"""Every span, metric, attribute and header name the worker uses, and nothing else.

Messaging names follow the OpenTelemetry semantic conventions (messaging, still in development);
names of our own stand under ``moderation.``. Labels hold no user content, ids or offsets.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "moderation_worker"
"""Instrumentation scope of every tracer and meter."""


class Span:
    """Span names, in the order an event meets them."""

    CONSUME: Final = "process events"
    DECODE: Final = "decode event"
    FETCH: Final = "fetch images"
    QUEUE: Final = "queue"
    JUDGE: Final = "judge event"
    JUDGE_BATCH: Final = "judge batch"
    DECIDE: Final = "decide outcome"
    PUBLISH: Final = "publish outputs"


class Attribute:
    """Span attributes and metric labels."""

    SYSTEM: Final = "messaging.system"
    OPERATION_NAME: Final = "messaging.operation.name"
    OPERATION_TYPE: Final = "messaging.operation.type"
    TOPIC: Final = "messaging.destination.name"
    PARTITION: Final = "messaging.destination.partition.id"
    OFFSET: Final = "messaging.kafka.offset"
    GROUP: Final = "messaging.consumer.group.name"
    BATCH_SIZE: Final = "messaging.batch.message_count"
    ERROR_TYPE: Final = "error.type"
    POLICY: Final = "moderation.policy.name"
    POLICY_VERSION: Final = "moderation.policy.version"
    OUTCOME: Final = "moderation.outcome"
    ACTION: Final = "moderation.action"
    REASON: Final = "moderation.undecided_reason"
    DEAD_LETTER_CODE: Final = "moderation.dead_letter.code"
    THINK: Final = "moderation.think"
    IMAGES: Final = "moderation.images"
    PASSES: Final = "moderation.passes"
    TOKENS: Final = "moderation.input_tokens"
    DEPENDENCY: Final = "moderation.dependency"
    VERDICT_ID: Final = "moderation.verdict_id"


class Metric:
    """Metric names; units stand in worker/telemetry/instruments.py."""

    EVENTS: Final = "moderation.events"
    DEAD_LETTERS: Final = "moderation.dead_letters"
    QUARANTINED: Final = "moderation.quarantined"
    EVENT_DURATION: Final = "moderation.event.duration"
    FETCH_DURATION: Final = "moderation.fetch.duration"
    FETCH_CACHE_HITS: Final = "moderation.fetch.cache_hits"
    QUEUE_DURATION: Final = "moderation.judge.queue.duration"
    BATCH_DURATION: Final = "moderation.judge.batch.duration"
    BATCH_CONTEXTS: Final = "moderation.judge.batch.contexts"
    BATCH_TOKENS: Final = "moderation.judge.batch.tokens"
    THINK: Final = "moderation.think.traces"
    COMMIT_DURATION: Final = "moderation.commit.duration"
    COMMITS: Final = "moderation.commits"
    RETRIES: Final = "moderation.dependency.retries"
    LAG: Final = "moderation.lag"
    OLDEST_AGE: Final = "moderation.oldest_unjudged.age"
    INFLIGHT_EVENTS: Final = "moderation.inflight.events"
    INFLIGHT_BYTES: Final = "moderation.inflight.bytes"
    INFLIGHT_IMAGE_BYTES: Final = "moderation.inflight.image_bytes"
    POLICY_RELOADS: Final = "moderation.policy.reloads"
    NEUTRALISED: Final = "moderation.neutralised"


class Header:
    """Record headers: W3C trace context in and out, and the dead letter's one namespace."""

    TRACEPARENT: Final = "traceparent"
    TRACESTATE: Final = "tracestate"
    DEAD_LETTER_PREFIX: Final = "moderation.dead-letter."
