"""Plays series through the chart's rules in Prometheus' own engine, and says which alerts fire."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.support.chart import only, render
from tests.support.tools import promtool

TOPIC = "community.conversations"
RELEASE = {"job": "moderation/rel-moderation-worker", "namespace": "moderation"}
_FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'
_EVER = 'count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[%dm]))'
_GOT = re.compile(r'alertname="(\w+)"')
_VALUE = re.compile(r"} ([0-9.E+-]+)")

Values = str
"""Promtool's own notation, a value a minute: ``0+60x120`` is a counter over two hours."""
Series = dict[str, Values]


class Fired(Exception):
    """Promtool could not play the series."""


def series(metric: str, **labels: object) -> str:
    """A series of the release, written as Prometheus does. A trailing ``_`` of a label is cut."""
    named = {**RELEASE, **{key.rstrip("_"): value for key, value in labels.items()}}
    inside = ",".join(f'{key}="{value}"' for key, value in named.items())
    return f"{metric}{{{inside}}}"


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """One worker's series over ``minutes``; what is not said is as on any healthy day."""

    name: str
    minutes: int
    partitions: Sequence[int] = (0, 1)
    events_per_minute: int = 600
    ready: Values = ""
    model: Values = ""
    lag: Values = ""
    stalled: Mapping[int, Values] = msgspec.field(default_factory=dict)
    oldest: Values = ""
    commits: Values = ""
    in_time: float = 1.0
    undecided: float = 0.002
    quarantined: float = 0.05
    dead: int = 0
    batch: Values = ""
    policy_problems: Values = ""
    revision: str = "a"
    policy: str = "p1"
    paused: Mapping[str, Values] = msgspec.field(default_factory=dict)
    starting: bool = False
    """Only what a worker exports that has not loaded its model yet."""

    def series(self) -> Series:
        """Every series, by its written form."""
        own = {"instance": f"{self.name}:6066", "pod": f"rel-moderation-worker-{self.name}"}
        steady = f"x{self.minutes}"
        made = {
            series("moderation_ready", **own): self.ready or f"{int(not self.starting)}{steady}",
            series("moderation_check", moderation_check="model", **own): self.model
            or f"{int(not self.starting)}{steady}",
            series("moderation_judge_batch_stalled_seconds", **own): self.batch or f"0.1{steady}",
            series("moderation_policy_problems", **own): self.policy_problems or f"0{steady}",
            series("moderation_build_info", moderation_build="0.1.0", **own): f"1{steady}",
        }
        for dependency, values in self.paused.items():
            labels = {"moderation_dependency": dependency, **own}
            made[series("moderation_dependency_paused_seconds", **labels)] = values
        if not self.starting:
            made |= self._judging(own)
        return made

    def _judging(self, own: Mapping[str, str]) -> Series:
        minutes, rate = self.minutes, self.events_per_minute
        made: Series = {
            series("moderation_model_info", moderation_model_revision=self.revision, **own): (
                f"1x{minutes}"
            ),
            series(
                "moderation_policy_info",
                moderation_policy_name="community",
                moderation_policy_sha256=self.policy,
                **own,
            ): f"1x{minutes}",
            series("moderation_dead_letters_total", moderation_dead_letter_code="schema", **own): (
                f"0+{self.dead}x{minutes}"
            ),
            series("moderation_quarantined_total", **own): counter(
                rate * self.quarantined, minutes
            ),
        }
        for outcome, share in (("safe", 1 - self.undecided), ("undecided", self.undecided)):
            labels = {"moderation_outcome": outcome, **own}
            made[series("moderation_events_total", **labels)] = counter(rate * share, minutes)
        topic = {"messaging_destination_name": TOPIC, **own}
        made[series("moderation_commits_total", moderation_result="committed", **topic)] = (
            self.commits or f"0+60x{minutes}"
        )
        histogram = "moderation_record_to_verdict_duration_seconds"
        made[series(f"{histogram}_count", **topic)] = counter(rate, minutes)
        for bound, share in (("60.0", self.in_time), ("+Inf", 1.0)):
            made[series(f"{histogram}_bucket", le=bound, **topic)] = counter(rate * share, minutes)
        for number in self.partitions:
            one = {"messaging_destination_partition_id": number, **topic}
            made[series("moderation_lag", **one)] = self.lag or f"3x{minutes}"
            made[series("moderation_partition_stalled_seconds", **one)] = self.stalled.get(
                number, f"0x{minutes}"
            )
            made[series("moderation_oldest_unjudged_age_seconds", **one)] = (
                self.oldest or f"1x{minutes}"
            )
        return made


def counter(rate: float, minutes: int) -> Values:
    """A counter that grows by ``rate`` a minute."""
    return f"0+{rate:g}x{minutes}"


def played(each: Iterable[Worker | Series]) -> Series:
    """The series of a scene, together."""
    whole: Series = {}
    for part in each:
        whole |= part.series() if isinstance(part, Worker) else part
    return whole


def firing(scene: Series, at: int, folder: Path, *, values: str, ever: bool = False) -> set[str]:
    """Names of the alerts that fire ``at`` a minute (or did at any time before it, with ``ever``).

    ``values`` names the chart's value set whose rules are played.

    Raises:
        Fired: promtool refused rules or series; its words.
    """
    rules = only(render(values, "alerts.enabled=true"), "PrometheusRule")["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    return set(_GOT.findall(_told(scene, _EVER % at if ever else _FIRING, at, folder)))


def evaluated(scene: Series, expression: str, at: int, folder: Path) -> list[float]:
    """Values of an expression ``at`` a minute.

    Raises:
        Fired: promtool refused the expression or the series; its words.
    """
    (folder / "rules.yaml").write_text("groups: []\n")
    told = _told(scene, expression, at, folder)
    return [float(value) for value in _VALUE.findall(told.partition("got:")[2])]


def _told(scene: Series, expression: str, at: int, folder: Path) -> str:
    test: dict[str, Any] = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": text} for name, text in scene.items()],
                # None are expected, so that promtool prints those there are.
                "promql_expr_test": [
                    {"expr": expression, "eval_time": f"{at}m", "exp_samples": []}
                ],
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [str(promtool()), "test", "rules", "test.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = done.stdout + done.stderr
    if done.returncode and "got:" not in told:
        raise Fired(told)
    return told
