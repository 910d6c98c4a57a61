"""Every span, metric, attribute and header name the worker uses, and nothing else.

Messaging names follow the OpenTelemetry semantic conventions (messaging, still in development);
names of our own stand under ``moderation.``. Labels hold no user content, ids or offsets.
"""

from __future__ import annotations

from typing import Final

SCOPE: Final = "moderation_worker"
"""Instrumentation scope of every tracer and meter."""


class Span:
    """Span names, in the order an event meets them; ``named`` fills in what is known."""

    POLL: Final = "poll {topic}"
    CONSUME: Final = "process {topic}"
    DECODE: Final = "decode event"
    FETCH: Final = "fetch images"
    QUEUE: Final = "queue"
    JUDGE: Final = "judge event"
    JUDGE_BATCH: Final = "judge batch"
    REMOTE: Final = "chat {model}"
    DECIDE: Final = "decide outcome"
    PUBLISH: Final = "send {topic}"


def named(span: str, what: str = "") -> str:
    """A span's name with its destination or model; what is not one thing is left out."""
    return (f"{span.partition('{')[0]}{what}" if "{" in span else span).strip()


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
    GEN_AI_OPERATION: Final = "gen_ai.operation.name"
    GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
    GEN_AI_MODEL: Final = "gen_ai.request.model"
    GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
    GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
    POLICY: Final = "moderation.policy.name"
    POLICY_VERSION: Final = "moderation.policy.version"
    POLICY_SHA: Final = "moderation.policy.sha256"
    RELOAD_RESULT: Final = "moderation.policy.reload.result"
    OUTCOME: Final = "moderation.outcome"
    ACTION: Final = "moderation.action"
    REASON: Final = "moderation.undecided_reason"
    DEAD_LETTER_CODE: Final = "moderation.dead_letter.code"
    THINK: Final = "moderation.think"
    CONTROL: Final = "moderation.control_string"
    IMAGES: Final = "moderation.images"
    PASSES: Final = "moderation.passes"
    TOKENS: Final = "moderation.input_tokens"
    DEPENDENCY: Final = "moderation.dependency"
    VERDICT_ID: Final = "moderation.verdict_id"
    RESULT: Final = "moderation.result"
    KIND: Final = "moderation.kind"
    LIST: Final = "moderation.prefilter.list"
    DECIDE: Final = "moderation.prefilter.decide"
    CHECK: Final = "moderation.check"
    BUILD: Final = "moderation.build"
    MODEL: Final = "moderation.model.id"
    REVISION: Final = "moderation.model.revision"
    ADAPTER: Final = "moderation.model.adapter"
    TEMPLATE: Final = "moderation.model.template"
    NUMERICS: Final = "moderation.model.numerics"
    OVERFLOW: Final = "otel.metric.overflow"


class Metric:
    """Metric names; units stand in worker/telemetry/instruments.py."""

    EVENTS: Final = "moderation.events"
    DEAD_LETTERS: Final = "moderation.dead_letters"
    QUARANTINED: Final = "moderation.quarantined"
    UNKNOWN_FIELDS: Final = "moderation.unknown_fields"
    SHADOW: Final = "moderation.shadow.events"
    EVENT_DURATION: Final = "moderation.event.duration"
    RECORD_TO_VERDICT: Final = "moderation.record_to_verdict.duration"
    FETCH_DURATION: Final = "moderation.fetch.duration"
    FETCH_CACHE_HITS: Final = "moderation.fetch.cache_hits"
    QUEUE_DURATION: Final = "moderation.judge.queue.duration"
    BATCH_DURATION: Final = "moderation.judge.batch.duration"
    BATCH_CONTEXTS: Final = "moderation.judge.batch.contexts"
    BATCH_TOKENS: Final = "moderation.judge.batch.tokens"
    JUDGE_CACHE: Final = "moderation.judge.cache.requests"
    JUDGE_CACHE_BYTES: Final = "moderation.judge.cache.bytes"
    REUSE: Final = "moderation.judge.reuse"
    REUSE_BYTES: Final = "moderation.judge.reuse.bytes"
    GRAPHS: Final = "moderation.judge.graphs"
    WRITTEN: Final = "moderation.judge.answers_written"
    PREFILTER_HITS: Final = "moderation.prefilter.hits"
    REMOTE_DURATION: Final = "moderation.judge.remote.duration"
    REMOTE_RETRIES: Final = "moderation.judge.remote.retries"
    REMOTE_BREAKER: Final = "moderation.judge.remote.breaker"
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
    LOOP_LAG: Final = "moderation.loop.lag"
    BATCH_STALLED: Final = "moderation.judge.batch.stalled"
    PAUSED: Final = "moderation.dependency.paused"
    POLICY_PROBLEMS: Final = "moderation.policy.problems"
    READY: Final = "moderation.ready"
    CHECK: Final = "moderation.check"
    STALLED: Final = "moderation.partition.stalled"
    BUILD_INFO: Final = "moderation.build.info"
    MODEL_INFO: Final = "moderation.model.info"
    POLICY_INFO: Final = "moderation.policy.info"
    LOG_DROPPED: Final = "moderation.log.dropped"


class LogField:
    """Fields of a log line; every extra field that is not named here is left out of it."""

    TIME: Final = "time"
    LEVEL: Final = "level"
    LOGGER: Final = "logger"
    MESSAGE: Final = "message"
    TRACE_ID: Final = "trace_id"
    SPAN_ID: Final = "span_id"
    ERROR: Final = "error"
    SUPPRESSED: Final = "suppressed"
    EVENT: Final = "event"


class Canonical:
    """Fields of the one line that every event leaves in the log, under ``event``."""

    VERDICT_ID: Final = "verdict_id"
    EVENT_ID: Final = "event_id"
    CONVERSATION_ID: Final = "conversation_id"
    TENANT: Final = "tenant"
    TOPIC: Final = "topic"
    PARTITION: Final = "partition"
    OFFSET: Final = "offset"
    KIND: Final = "kind"
    POLICY: Final = "policy"
    POLICY_VERSION: Final = "policy_version"
    OUTCOME: Final = "outcome"
    ACTION: Final = "action"
    CATEGORIES: Final = "categories"
    REASON: Final = "reason"
    DECIDED_BY: Final = "decided_by"
    CACHED: Final = "cached"
    ATTEMPTS: Final = "attempts"
    USER_SCORE: Final = "user_score"
    RESPONSE_SCORE: Final = "response_score"
    THINK: Final = "think"
    THINK_SKIPPED: Final = "think_skipped"
    IMAGES: Final = "images"
    IMAGE_ERRORS: Final = "image_errors"
    CONTEXT_INCLUDED: Final = "context_included"
    CONTEXT_OMITTED: Final = "context_omitted"
    NEUTRALISED: Final = "neutralised"
    TOKENS: Final = "tokens"
    BYTES_IN: Final = "bytes_in"
    BYTES_OUT: Final = "bytes_out"
    QUEUE_MS: Final = "queue_ms"
    FETCH_MS: Final = "fetch_ms"
    JUDGE_MS: Final = "judge_ms"
    TOTAL_MS: Final = "total_ms"
    AGE_MS: Final = "age_ms"
    CODE: Final = "code"
    SAMPLE_RATIO: Final = "sample_ratio"


class LogExtra:
    """Further fields that a line about the worker itself may carry."""

    DEPENDENCY: Final = "dependency"
