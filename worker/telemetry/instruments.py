"""Every metric instrument, made once. Until a provider is set they record nothing."""

from __future__ import annotations

from opentelemetry import metrics, trace

from worker.telemetry.names import SCOPE, Metric

tracer = trace.get_tracer(SCOPE)
meter = metrics.get_meter(SCOPE)

events = meter.create_counter(Metric.EVENTS, "{event}", "Events judged, by policy and outcome")
dead_letters = meter.create_counter(Metric.DEAD_LETTERS, "{record}", "Records that are no event")
quarantined = meter.create_counter(Metric.QUARANTINED, "{event}", "Events held for a person")
event_duration = meter.create_histogram(Metric.EVENT_DURATION, "s", "Read to decided")
fetch_duration = meter.create_histogram(Metric.FETCH_DURATION, "s", "All images of one event")
fetch_cache_hits = meter.create_counter(Metric.FETCH_CACHE_HITS, "{image}", "Images from cache")
queue_duration = meter.create_histogram(Metric.QUEUE_DURATION, "s", "Waiting for the device")
batch_duration = meter.create_histogram(Metric.BATCH_DURATION, "s", "One batch on the device")
batch_contexts = meter.create_histogram(Metric.BATCH_CONTEXTS, "{context}", "Contexts in a batch")
batch_tokens = meter.create_histogram(Metric.BATCH_TOKENS, "{token}", "Tokens in a batch, padded")
think_traces = meter.create_counter(Metric.THINK, "{trace}", "Traces written or skipped, and why")
commits = meter.create_counter(Metric.COMMITS, "{transaction}", "Transactions committed")
commit_duration = meter.create_histogram(Metric.COMMIT_DURATION, "s", "Begin to committed")
retries = meter.create_counter(Metric.RETRIES, "{retry}", "Retries while a dependency is away")
policy_reloads = meter.create_counter(Metric.POLICY_RELOADS, "{reload}", "Reloads, by result")
neutralised = meter.create_counter(Metric.NEUTRALISED, "{string}", "Control strings defused")
