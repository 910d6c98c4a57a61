"""Plays the chart's scaling over curves of traffic: KEDA's and the HPA's own arithmetic.

``python -m deploy.scaling --helm PATH`` writes the pictures of docs/scaling from the chart's
default values; ``--check`` says which are out of date. What is modelled, with its source:

- KEDA's Kafka scaler: lag of a topic, capped at its partitions x lagThreshold
  (pkg/scalers/kafka_scaler.go, getTotalLag); the formula over the triggers; activation and cooldown
  (pkg/scaling/executor); fallback after more than ``failureThreshold`` failures in a row.
- The HPA: ``ceil(value / target)`` unless within the tolerance of 10 %, the stabilization window,
  and the policies over their periods (k8s.io/kubernetes/pkg/controller/podautoscaler).
- A worker: a cold start, a constant rate, one partition at least; every change of the group stops
  all of it for a moment; records in flight count as lag.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from deploy.chart_reference import CHART, HERE, put

STEP_S = 5
SYNC_S = 15
"""The HPA looks this often (--horizontal-pod-autoscaler-sync-period)."""
TOLERANCE = 0.1
RATE_WINDOW_S = 120
"""Window of the rate in the trigger ``judged``."""
PICTURES = HERE.parent / "docs" / "scaling"

Rate = Callable[[float], float]
"""Events a second at a moment, seconds from the start."""


class Load(NamedTuple):
    """What comes in, and what goes wrong. Spans are ``(from, to)`` in seconds.

    ``away``: a dependency is away and nothing is judged. ``unreadable``: KEDA cannot read the lag.
    ``stuck``: one partition is not judged. ``backlog``: events that wait at the start.
    """

    rate: Rate
    seconds: int
    backlog: int = 0
    away: tuple[float, float] = (0, 0)
    unreadable: tuple[float, float] = (0, 0)
    stuck: tuple[float, float] = (0, 0)


class Fleet(NamedTuple):
    """The workers: events a second of one, and what the values say of delay and utilization; its
    cold start, what a change of the group costs, how long an event is in flight."""

    events_per_s: float
    delay_s: float
    utilization: float
    cold_start_s: float = 120
    rebalance_s: float = 5
    latency_s: float = 0.5


class Moment(NamedTuple):
    """One step. ``pods`` are asked for, ``judging`` are up; ``delay_s`` of the event judged now."""

    at: float
    rate: float
    pods: int
    judging: int
    lag: float
    delay_s: float


def within(at: float, span: tuple[float, float]) -> bool:
    """Whether a moment lies in a span."""
    return span[0] <= at < span[1]


class Scaler:
    """KEDA and the HPA it makes, by the ``spec`` of a ScaledObject."""

    def __init__(self, spec: Mapping[str, Any], partitions: Sequence[int]) -> None:
        advanced = spec["advanced"]
        self.low, self.high = int(spec["minReplicaCount"]), int(spec["maxReplicaCount"])
        self.target = float(advanced["scalingModifiers"]["target"])
        self.activation = float(advanced["scalingModifiers"]["activationTarget"])
        self.formula = str(advanced["scalingModifiers"]["formula"])
        self.behavior = advanced["horizontalPodAutoscalerConfig"]["behavior"]
        self.cooldown, self.polling = int(spec["cooldownPeriod"]), int(spec["pollingInterval"])
        self.fallback = spec["fallback"]
        self.partitions = partitions
        self.failures = 0
        self.active_at = 0.0
        self.recommended: deque[tuple[float, int]] = deque()
        self.changes: deque[tuple[float, int]] = deque()

    def value(self, lags: Sequence[float], judged: float, held: float) -> float:
        """The formula over the triggers; each topic's lag is capped at its partitions."""
        names: dict[str, Any] = {
            f"topic_{index}": min(lag, count * self.target)
            for index, (lag, count) in enumerate(zip(lags, self.partitions, strict=True))
        }
        names |= {"judged": judged, "held": held, "min": min, "max": max}
        return float(eval(self.formula, {"__builtins__": {}}, names))  # noqa: S307 # ours, rendered

    def pods(self, at: float, now: int, value: float | None) -> int:
        """Pods to have from now on; ``value`` is None where the lag cannot be read."""
        if value is None:
            self.failures += 1
            if self.failures <= self.fallback["failureThreshold"]:
                return now
            return self._bounded(max(now, self.fallback["replicas"]))
        self.failures = 0
        if value > self.activation:
            self.active_at = at
        if now == 0:
            return max(1, self.low) if value > self.activation and at % self.polling == 0 else 0
        if self.low == 0 and at - self.active_at > self.cooldown:
            self.recommended.clear()
            return 0
        return self._hpa(at, now, value)

    def _hpa(self, at: float, now: int, value: float) -> int:
        ratio = value / (self.target * now)
        wanted = now if abs(1 - ratio) <= TOLERANCE else math.ceil(value / self.target)
        wanted = self._bounded(wanted)
        self.recommended.append((at, wanted))
        down = self.behavior["scaleDown"]
        while self.recommended[0][0] <= at - down["stabilizationWindowSeconds"]:
            self.recommended.popleft()
        if wanted < now:
            wanted = min(now, max(each for _, each in self.recommended))
        if wanted > now:
            wanted = min(wanted, self._limit(at, now, self.behavior["scaleUp"], +1))
        elif wanted < now:
            wanted = max(wanted, self._limit(at, now, down, -1))
        if wanted != now:
            self.changes.append((at, wanted - now))
        return self._bounded(wanted)

    def _limit(self, at: float, now: int, rules: Mapping[str, Any], sign: int) -> int:
        allowed = []
        for policy in rules["policies"]:
            since = at - policy["periodSeconds"]
            moved = sum(by for when, by in self.changes if when > since and by * sign > 0)
            began = now - moved
            if policy["type"] == "Pods":
                step = float(policy["value"])
            else:
                step = began * policy["value"] / 100
            edge = began + sign * step
            allowed.append(math.ceil(edge) if sign > 0 else math.floor(edge))
        return max(allowed) if sign > 0 else min(allowed)

    def _bounded(self, pods: int) -> int:
        return max(self.low, 1, min(self.high, pods))


def play(
    load: Load, fleet: Fleet, spec: Mapping[str, Any], partitions: Sequence[int]
) -> list[Moment]:
    """The whole curve, a moment every ``STEP_S`` seconds; traffic is spread over the partitions."""
    scaler = Scaler(spec, partitions)
    total = sum(partitions)
    pods = max(scaler.low, 0 if load.backlog == 0 and scaler.low == 0 else 1)
    up = [-fleet.cold_start_s] * pods
    waiting: deque[list[float]] = deque([[0.0, float(load.backlog)]] if load.backlog else [])
    stuck = 0.0
    group_stops_until, before, delay = 0.0, pods, 0.0
    done: deque[float] = deque([0.0], maxlen=RATE_WINDOW_S // STEP_S)
    moments = []
    for at in range(0, load.seconds, STEP_S):
        rate = load.rate(at)
        share = 1 / total if within(at, load.stuck) else 0.0
        stuck = stuck + rate * STEP_S * share if share else 0.0
        arrived = rate * STEP_S * (1 - share)
        if arrived:
            waiting.append([float(at), arrived])
        judging = sum(1 for since in up if at - since >= fleet.cold_start_s)
        if judging != before:
            group_stops_until, before = at + fleet.rebalance_s, judging
        able = 0.0
        done.append(0.0)
        if not within(at, load.away) and at >= group_stops_until:
            able = min(judging, total) * fleet.events_per_s * STEP_S
        while waiting and able > 0:
            taken = min(able, waiting[0][1])
            delay = at - waiting[0][0] + fleet.latency_s
            able -= taken
            done[-1] += taken
            waiting[0][1] -= taken
            if waiting[0][1] <= 1e-9:
                waiting.popleft()
        if waiting:
            delay = max(delay, at - waiting[0][0])
        lag = sum(count for _, count in waiting) + stuck + rate * fleet.latency_s * min(1, judging)
        moments.append(Moment(at, rate, pods, judging, lag, delay))
        if at % SYNC_S == 0:
            held = pods * scaler.target if within(at, load.away) else 1e9
            lags = [lag * count / total for count in partitions]
            judged = sum(done) / (len(done) * STEP_S) * fleet.delay_s / fleet.utilization
            value = None
            if not within(at, load.unreadable):
                value = scaler.value(lags, judged, held)
            wanted = scaler.pods(at, pods, value)
            up = [*up, *[float(at)] * (wanted - pods)] if wanted > pods else up[: wanted or 0]
            pods = wanted
    return moments


def rhythm(low: float, high: float) -> Rate:
    """A day: least at four in the morning, most at four in the afternoon."""
    return lambda at: low + (high - low) * (1 - math.cos((at / 3600 - 4) / 24 * 2 * math.pi)) / 2


def burst(base: float, peak: float, span: tuple[float, float]) -> Rate:
    """A base with a wall of events in it."""
    return lambda at: peak if within(at, span) else base


CURVES: dict[str, tuple[str, Load]] = {
    "spike": ("tenfold for ten minutes", Load(burst(60, 600, (600, 1200)), 3600)),
    "day": ("a day between 20 and 500 events a second", Load(rhythm(20, 500), 86_400)),
    "outage": (
        "the store is away from minute 10 to 40",
        Load(lambda at: 120, 2 * 3600, away=(600, 2400)),
    ),
    "poison": (
        "one partition stands still from minute 10 to 20",
        Load(lambda at: 120, 3600, stuck=(600, 1200)),
    ),
    "backlog": ("half a million events wait at the start", Load(lambda at: 60, 7200, 500_000)),
}
"""The pictures, by file name: what they show, and the load. 24 partitions, default values."""
PARTITIONS = (16, 8)
PROMETHEUS = "autoscaling.prometheus.address=http://prometheus:9090"


def scaled_object(helm: Path, *sets: str) -> dict[str, Any]:
    """The ``spec`` of the chart's ScaledObject: 24 partitions in two topics, at most 24 workers."""
    command = [str(helm), "template", "moderation", str(CHART), "--kube-version", "1.34.0"]
    command += ["--values", f"{CHART}/ci/default-values.yaml"]
    given = ["autoscaling.enabled=true", "autoscaling.maxReplicas=24", *sets]
    for index, (name, count) in enumerate(
        zip(("community.conversations", "ide.conversations"), PARTITIONS, strict=True)
    ):
        given += [f"inputTopics[{index}].name={name}", f"inputTopics[{index}].partitions={count}"]
    for each in given:
        command += ["--set", each]
    command += ["--show-only", "templates/scaledobject.yaml"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    spec: dict[str, Any] = yaml.safe_load(done.stdout)["spec"]
    return spec


def default_fleet() -> Fleet:
    """A worker at the rate that the chart's values state."""
    stated = yaml.safe_load((CHART / "values.yaml").read_text())["autoscaling"]
    return Fleet(
        float(stated["workerEventsPerSecond"]),
        float(stated["tolerableDelaySeconds"]),
        float(stated["prometheus"]["utilization"]),
    )


WIDTH, ROW, LEFT, RIGHT, TOP = 760, 78, 92, 14, 30
ROWS: tuple[tuple[str, str, Callable[[Moment], float]], ...] = (
    ("events/s", "#4c78a8", lambda m: m.rate),
    ("waiting", "#f58518", lambda m: m.lag),
    ("pods", "#54a24b", lambda m: m.pods),
    ("delay, s", "#b279a2", lambda m: m.delay_s),
)


def picture(title: str, moments: Sequence[Moment]) -> str:
    """Four rows over time as SVG: traffic, what waits, pods, and the delay of a verdict."""
    end = moments[-1].at or 1
    thinned = moments[:: max(1, len(moments) // 480)]
    height = TOP + ROW * len(ROWS) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{title}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="18" font-size="13" fill="#222">{title}</text>',
    ]
    for index, (name, colour, of) in enumerate(ROWS):
        top = TOP + index * ROW
        most = max(of(each) for each in moments) or 1
        points = " ".join(
            f"{LEFT + each.at / end * (WIDTH - LEFT - RIGHT):.0f},"
            f"{top + ROW - 12 - of(each) / most * (ROW - 24):.1f}"
            for each in thinned
        )
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top + ROW - 12}" y2="{top + ROW - 12}" '
            'stroke="#ccc"/>',
            f'<text x="{LEFT - 8}" y="{top + 16}" text-anchor="end" fill="#222">{name}</text>',
            f'<text x="{LEFT - 8}" y="{top + 32}" text-anchor="end" fill="#666">'
            f"to {most:,.0f}</text>",
            f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>',
        ]
    unit, per = ("h", 3600) if end > 3 * 3600 else ("min", 60)
    for tick in range(5):
        x = LEFT + tick / 4 * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<text x="{x:.0f}" y="{height - 8}" text-anchor="{"end" if tick == 4 else "middle"}" '
            'fill="#666">'
            f"{end * tick / 4 / per:.0f} {unit}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def pictures(helm: Path) -> dict[Path, str]:
    """Every picture and its text; a day and an outage also with lag alone."""
    fleet = default_fleet()
    full, alone = scaled_object(helm, PROMETHEUS), scaled_object(helm)
    made = {
        PICTURES / f"{name}.svg": picture(title, play(load, fleet, full, PARTITIONS))
        for name, (title, load) in CURVES.items()
    }
    for name in ("day", "outage"):
        title, load = CURVES[name]
        made[PICTURES / f"{name}-lag-alone.svg"] = picture(
            f"{title}; autoscaling.prometheus.address is empty",
            play(load, fleet, alone, PARTITIONS),
        )
    return made


def main() -> None:
    """Write, or check, the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--helm", type=Path, required=True)
    given = parser.parse_args()
    stale = put(pictures(given.helm), given.check)
    sys.exit(1 if given.check and stale else 0)


if __name__ == "__main__":
    main()
