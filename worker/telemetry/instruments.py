"""Every metric instrument, declared once: its unit, and the only labels it may carry.

Measurements go to the OpenTelemetry SDK. A declaration measures nothing until ``bind`` hands it a
provider, so that modules can hold instruments before anybody decided where figures go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, NoOpMeterProvider
from opentelemetry.sdk.metrics.view import View

from worker.telemetry.names import SCOPE, Attribute, Metric

Labels = Mapping[str, str | int | bool]
Observation = tuple[float, Labels]
"""A gauge's value, and the series it belongs to."""

SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0),
)
"""Bounds of durations: a cached image at one end, a reasoning trace under load at the other.

The semantic conventions' advice for messaging stops at 10 s, where reasoning only begins.
"""
AGES = (
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
    *(1800.0, 3600.0, 21_600.0, 86_400.0),
)
"""Bounds of how late a verdict is: an objective of a second at one end, a day away at the other."""
CONTEXTS = (1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 48.0, 64.0, 128.0, 256.0)
TOKENS = (128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 131072.0)

MAX_SERIES = 2000
"""Label combinations of one counter; further ones are counted together. The SDK bounds the other
instruments alike (https://opentelemetry.io/docs/specs/otel/metrics/sdk/#cardinality-limits)."""
_OVERFLOWN = Attribute.OVERFLOW
Key = tuple[str | int | bool | None, ...]
_OVERFLOW: Key = (_OVERFLOWN,) * 9
_NONE: Labels = {}

_UNBOUND = NoOpMeterProvider().get_meter(SCOPE)


class Instrument:
    """A declaration: ``labels`` are all that a series may be told apart by."""

    def __init__(self, name: str, unit: str, description: str, labels: tuple[str, ...]) -> None:
        self.name, self.unit, self.description, self.labels = name, unit, description, labels
        self.bind(_UNBOUND)

    def bind(self, meter: Meter) -> None:
        """Measure with ``meter`` from now on."""
        raise NotImplementedError


class Counter(Instrument):
    """A sum that only grows, read by the SDK when it collects.

    Most measurements are counts, and one sum here costs a tenth of one measurement of the SDK.
    """

    def __init__(self, name: str, unit: str, description: str, labels: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._sums: dict[Key, float] = {}
        super().__init__(name, unit, description, labels)

    def bind(self, meter: Meter) -> None:
        self._sums = {}
        meter.create_observable_counter(self.name, [self._read], self.unit, self.description)

    def add(self, amount: float, labels: Labels = _NONE) -> None:
        """Count ``amount`` more; labels that were not declared are left out."""
        key: Key = tuple([labels.get(name) for name in self.labels])
        with self._lock:
            if key not in self._sums and len(self._sums) >= MAX_SERIES:
                key = _OVERFLOW
            self._sums[key] = self._sums.get(key, 0) + amount

    def _read(self, _: CallbackOptions) -> Iterable[metrics.Observation]:
        with self._lock:
            sums = list(self._sums.items())
        for key, value in sums:
            given = zip(self.labels, key, strict=False)
            labels = {name: each for name, each in given if each is not None}
            yield metrics.Observation(value, labels if key != _OVERFLOW else {_OVERFLOWN: True})


class Histogram(Instrument):
    """A distribution over fixed upper bounds (inclusive, ascending, in the instrument's unit)."""

    def __init__(
        self,
        name: str,
        unit: str,
        description: str,
        labels: tuple[str, ...],
        bounds: tuple[float, ...],
    ) -> None:
        self.bounds = bounds
        super().__init__(name, unit, description, labels)

    def bind(self, meter: Meter) -> None:
        self._histogram = meter.create_histogram(
            self.name,
            self.unit,
            self.description,
            explicit_bucket_boundaries_advisory=self.bounds,
        )

    def record(self, value: float, labels: Labels | None = None) -> None:
        """Note one value."""
        self._histogram.record(value, labels)


class Gauge(Instrument):
    """A value as it is now: watched, and asked whenever somebody reads."""

    def __init__(self, name: str, unit: str, description: str, labels: tuple[str, ...]) -> None:
        self._observe: Callable[[], Iterable[Observation]] | None = None
        super().__init__(name, unit, description, labels)

    def bind(self, meter: Meter) -> None:
        meter.create_observable_gauge(self.name, [self._read], self.unit, self.description)

    def _read(self, _: CallbackOptions) -> Iterable[metrics.Observation]:
        observe = self._observe
        for value, labels in observe() if observe is not None else ():
            yield metrics.Observation(value, labels)

    def set(self, value: float) -> None:
        """From now on the value is ``value``, in one series without labels."""
        self._observe = lambda: [(value, {})]

    def watch(self, observe: Callable[[], Iterable[Observation]] | None) -> None:
        """Ask ``observe`` at every read; it must not block, and may be called by any thread.

        A series it no longer names is gone from the next read: a revoked partition has no lag.
        """
        self._observe = observe


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
record_to_verdict = Histogram(
    Metric.RECORD_TO_VERDICT,
    "s",
    "From the input record's timestamp to its verdict, decided",
    _TOPIC,
    AGES,
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
unknown_fields = Counter(
    Metric.UNKNOWN_FIELDS,
    "{field}",
    "Fields of events that the contract does not know: near_miss and known_synonym are mistakes of "
    "a producer",
    (Attribute.KIND,),
)
shadow_events = Counter(
    Metric.SHADOW,
    "{event}",
    "Events in the sample of a candidate policy: sampled, and of those judged or missed",
    (Attribute.POLICY, Attribute.RESULT),
)
rebalances = Counter(Metric.REBALANCES, "{rebalance}", "Rebalances of the consumer group", ())
log_silence = Gauge(
    Metric.LOG_SILENCE,
    "s",
    "Since the last fetch, and the last commit, went through",
    (Attribute.KIND,),
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
folded = Counter(
    Metric.FOLDED, "{event}", "Events whose words were folded, by class", (Attribute.FOLD,)
)
system_messages = Counter(
    Metric.SYSTEM_MESSAGES, "{message}", "Messages that are context only", (Attribute.ROLE,)
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
ready = Gauge(Metric.READY, "1", "1 when ready, else 0; from the start of the process", ())
check = Gauge(
    Metric.CHECK, "1", "What readiness consists of: 1 where it holds, else 0", (Attribute.CHECK,)
)
partition_stalled = Gauge(
    Metric.STALLED, "s", "How long a partition with waiting records has not committed", _PARTITION
)
build_info = Gauge(Metric.BUILD_INFO, "1", "1; the version that runs", (Attribute.BUILD,))
model_info = Gauge(
    Metric.MODEL_INFO,
    "1",
    "1; the model that judges, once it is loaded",
    (
        *(Attribute.MODEL, Attribute.REVISION, Attribute.ADAPTER, Attribute.TEMPLATE),
        Attribute.NUMERICS,
    ),
)
policy_info = Gauge(
    Metric.POLICY_INFO,
    "1",
    "1; each policy in force",
    (Attribute.POLICY, Attribute.POLICY_VERSION, Attribute.POLICY_SHA),
)
log_dropped = Counter(
    Metric.LOG_DROPPED, "{line}", "Log lines dropped because nobody took them", ()
)


def instruments() -> Iterator[Instrument]:
    """All of the above, in the order they are written."""
    return (each for each in tuple(globals().values()) if isinstance(each, Instrument))


def views() -> list[View]:
    """What a provider must be made with, so that a label nobody declared never makes a series."""
    return [
        View(instrument_name=each.name, attribute_keys=set(each.labels)) for each in instruments()
    ]


def bind(provider: MeterProvider | None, version: str = "") -> None:
    """Measure with ``provider`` from now on; None measures nothing."""
    meter = _UNBOUND if provider is None else provider.get_meter(SCOPE, version)
    for each in instruments():
        each.bind(meter)
