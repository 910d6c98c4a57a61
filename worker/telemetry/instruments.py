"""Every metric instrument, made once, with its unit and the only labels it may carry."""

from __future__ import annotations

import time
from collections.abc import Iterator

from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from worker.telemetry.aggregate import Counter, Gauge, Histogram, Instrument
from worker.telemetry.names import SCOPE, Attribute, Metric
from worker.telemetry.spans import tracer as tracer

SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0),
)
"""Bounds of durations: a cached image at one end, a reasoning trace under load at the other.

The semantic conventions' advice for messaging stops at 10 s, where reasoning only begins.
"""
CONTEXTS = (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0, 256.0)
TOKENS = (128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 131072.0)

_TOPIC = (Attribute.TOPIC,)
_PARTITION = (Attribute.TOPIC, Attribute.PARTITION)
_DECIDED = (Attribute.POLICY, Attribute.OUTCOME, Attribute.ACTION, Attribute.REASON)

events = Counter(Metric.EVENTS, "{event}", "Events judged", _DECIDED)
dead_letters = Counter(
    Metric.DEAD_LETTERS, "{record}", "Records that are no event", (Attribute.DEAD_LETTER_CODE,)
)
quarantined = Counter(
    Metric.QUARANTINED, "{event}", "Events held for a person", (Attribute.POLICY, Attribute.ACTION)
)
event_duration = Histogram(
    Metric.EVENT_DURATION, "s", "Read to decided", (Attribute.POLICY, Attribute.OUTCOME), SECONDS
)
fetch_duration = Histogram(
    Metric.FETCH_DURATION, "s", "All images of one event", (Attribute.RESULT,), SECONDS
)
fetch_cache_hits = Counter(
    Metric.FETCH_CACHE_HITS, "{image}", "Images taken from the cache", (Attribute.RESULT,)
)
queue_duration = Histogram(
    Metric.QUEUE_DURATION, "s", "Waiting for the device", (Attribute.THINK,), SECONDS
)
batch_duration = Histogram(
    Metric.BATCH_DURATION, "s", "One batch on the device", (Attribute.THINK,), SECONDS
)
batch_contexts = Histogram(
    Metric.BATCH_CONTEXTS, "{context}", "Contexts in a batch", (Attribute.THINK,), CONTEXTS
)
batch_tokens = Histogram(
    Metric.BATCH_TOKENS, "{token}", "Tokens in a batch, padded", (Attribute.THINK,), TOKENS
)
judge_cache = Counter(
    Metric.JUDGE_CACHE, "{request}", "Requests to the judge, by what answered", (Attribute.RESULT,)
)
judge_cache_bytes = Gauge(Metric.JUDGE_CACHE_BYTES, "By", "Bytes of answers kept", ())
reuse = Counter(
    Metric.REUSE,
    "{use}",
    "Policies and images the device needed, by whether it still had them",
    (Attribute.KIND, Attribute.RESULT),
)
reuse_bytes = Gauge(
    Metric.REUSE_BYTES, "By", "Device memory of policies and images kept", (Attribute.KIND,)
)
graphs = Gauge(Metric.GRAPHS, "{graph}", "Graphs that judge.compile has made", ())
answers_written = Counter(
    Metric.WRITTEN, "{answer}", "Answers decoded, their constant text being improbable", ()
)
prefilter_hits = Counter(
    Metric.PREFILTER_HITS,
    "{hit}",
    "Events that an entry of a prefilter's list met",
    (Attribute.POLICY, Attribute.LIST, Attribute.DECIDE),
)
remote_duration = Histogram(
    Metric.REMOTE_DURATION, "s", "One request to the remote judge", (Attribute.RESULT,), SECONDS
)
remote_retries = Counter(
    Metric.REMOTE_RETRIES, "{retry}", "Requests sent again, by what failed", (Attribute.RESULT,)
)
remote_breaker = Gauge(
    Metric.REMOTE_BREAKER, "1", "1 while the remote judge is taken to be away", ()
)
think_traces = Counter(
    Metric.THINK, "{trace}", "Reasoning traces written, or skipped and why", (Attribute.THINK,)
)
commits = Counter(
    Metric.COMMITS, "{transaction}", "Transactions, by result", (*_TOPIC, Attribute.RESULT)
)
commit_duration = Histogram(Metric.COMMIT_DURATION, "s", "Begin to committed", _TOPIC, SECONDS)
retries = Counter(
    Metric.RETRIES, "{retry}", "Retries while a dependency is away", (Attribute.DEPENDENCY,)
)
rebalances = Counter(Metric.REBALANCES, "{rebalance}", "Rebalances of the consumer group", ())
log_silence = Gauge(
    Metric.LOG_SILENCE,
    "s",
    "Since the last fetch, and the last commit, went through",
    (Attribute.KIND,),
)
partition_idle = Gauge(
    Metric.PARTITION_IDLE, "s", "Since the last commit, where events are in flight", _PARTITION
)
policy_reloads = Counter(
    Metric.POLICY_RELOADS,
    "{reload}",
    "Reloads, by result",
    (Attribute.POLICY, Attribute.RELOAD_RESULT),
)
neutralised = Counter(
    Metric.NEUTRALISED, "{string}", "Control strings defused", (Attribute.CONTROL,)
)
lag = Gauge(Metric.LAG, "{record}", "Records not yet committed", _PARTITION)
oldest_age = Gauge(Metric.OLDEST_AGE, "s", "Age of the oldest record not yet judged", _PARTITION)
inflight_events = Gauge(Metric.INFLIGHT_EVENTS, "{event}", "Events in flight", _PARTITION)
inflight_bytes = Gauge(Metric.INFLIGHT_BYTES, "By", "Input bytes in flight", ())
inflight_image_bytes = Gauge(Metric.INFLIGHT_IMAGE_BYTES, "By", "Decoded image bytes in flight", ())
loop_lag = Gauge(Metric.LOOP_LAG, "s", "How late the event loop last was", ())
batch_stalled = Gauge(Metric.BATCH_STALLED, "s", "Age of the oldest batch on the device", ())
paused = Gauge(Metric.PAUSED, "s", "How long a dependency has been away", (Attribute.DEPENDENCY,))
policy_problems = Gauge(
    Metric.POLICY_PROBLEMS, "{problem}", "Problems of policy files and topics", (Attribute.POLICY,)
)
ready = Gauge(Metric.READY, "1", "1 when ready, else 0", ())


def instruments() -> Iterator[Instrument]:
    """All of the above, in the order they are written."""
    return (each for each in tuple(globals().values()) if isinstance(each, Instrument))


def collect(resource: Resource, version: str = "") -> MetricsData:
    """Everything measured so far, as the OpenTelemetry SDK's data model."""
    now = time.time_ns()
    metrics = [each.metric(now) for each in instruments()]
    scope = ScopeMetrics(
        InstrumentationScope(SCOPE, version),
        [metric for metric in metrics if metric.data.data_points],
        "",
    )
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def clear() -> None:
    """Forget everything measured; for tests and benches that share a process."""
    for each in instruments():
        each.clear()
