"""``demo``: the whole worker on the bundled checkpoint, one command, one summary."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from moderation_tools.demo.scenario import script
from tests.support.cli import moderation_worker
from tests.support.kafka import free_ports
from worker.checkpoints import TINY

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


def test_the_demonstration_accounts_for_every_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0, one JSON object a line, the last one the summary; outcomes are as scripted.

    Variables of a real deployment change nothing: not its judge, and above all not its Kafka.
    """
    monkeypatch.setenv("MODERATION_JUDGE__BACKEND", "scripted")
    monkeypatch.setenv("MODERATION_LOG__BACKEND", "kafka")
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


def test_a_port_that_is_taken_is_refused_before_anything_is_emptied(tmp_path: Path) -> None:
    """It may be another demonstration's, whose directory this one would empty."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = moderation_worker("demo", "--directory", tmp_path / "demo", "--port", port)
    assert answer.code == 2
    assert f"--port {port}: something listens there already" in answer.err
    assert not (tmp_path / "demo").exists()
