"""``demo``: the whole worker on the bundled checkpoint, one command, one summary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import moderation_worker
from tests.support.kafka import free_ports
from worker.checkpoints import TINY
from worker.demo.scenario import script

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (TINY / "model.safetensors").is_file(),
        reason="left out: the bundled checkpoint has no weights here; `make tiny` makes them",
    ),
]

KEYS = [
    *("events", "verdicts", "safe", "unsafe", "undecided"),
    *("quarantined", "dead_letters", "seconds"),
]


def test_the_demonstration_accounts_for_every_record(tmp_path: Path) -> None:
    """Exit code 0, one JSON object a line, the last one the summary; outcomes are as scripted."""
    answer = moderation_worker(
        *("demo", "--once", "--json", "--directory", tmp_path / "demo"),
        *("--port", free_ports(1)[0]),
        timeout_s=240,
    )
    assert answer.code == 0, answer.err
    *lines, last = answer.lines()
    assert list(last) == ["summary"]
    summary = last["summary"]
    assert list(summary) == KEYS
    assert summary["events"] == len(script()) >= 60
    assert summary["safe"] + summary["unsafe"] + summary["undecided"] == summary["verdicts"]
    assert summary["verdicts"] + summary["dead_letters"] == summary["events"]
    assert summary["quarantined"] > 0

    outcomes = {line["event_id"]: line["outcome"] for line in lines if "event_id" in line}
    assert len(outcomes) == summary["verdicts"]
    expected = {
        json.loads(record.value)["id"]: record.expect
        for record in script()
        if record.value is not None and record.expect != "dead_letter"
    }
    assert set(outcomes) == set(expected)
    unlike = {name for name, outcome in outcomes.items() if outcome != expected[name]}
    assert not unlike, sorted(unlike)
    # What the worker says about itself is readable: nothing of it was taken for content.
    assert "<redacted" not in (tmp_path / "demo" / "worker.log").read_text()
