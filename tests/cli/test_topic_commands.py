"""``topics``, ``deadletter``, ``quarantine``: what an operator sees, and nobody sees unasked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.policies import write_policy
from worker.cli.deadletter import deadletter
from worker.cli.quarantine import quarantine
from worker.cli.topics import topics
from worker.codes import DeadLetterCode
from worker.contracts.dead_letter import dead_letter_output
from worker.contracts.samples import QUARANTINE_OUTPUT, RECORD
from worker.errors import UnreadableRecord
from worker.log.factory import open_writer
from worker.records import Output, Record
from worker.settings import load_settings

SECRET = b"my secret \x1b[31mwords"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    write_policy(tmp_path / "policies", "a.yaml", name="a", topics=["chat", "forum"])
    file = tmp_path / "worker.yaml"
    file.write_text(
        f"log: {{backend: local, directory: {tmp_path}/log}}\n"
        f"policies: {{directory: {tmp_path}/policies}}\n"
    )
    return file


def run(group: object, *arguments: object) -> Result:
    return CliRunner().invoke(group, [str(each) for each in arguments])  # type: ignore[arg-type]


def created(config: Path) -> Path:
    assert run(topics, "create", "--config", config).exit_code == 0
    return config


def test_topics_are_made_with_the_partitions_that_each_is_given(config: Path) -> None:
    """A topic of too few partitions is a fleet of too few workers."""
    config.write_text(f"{config.read_text()}topics: {{input_partitions: {{chat: 7}}}}\n")
    created(config)
    assert run(topics, "check", "--config", config).exit_code == 0

    config.write_text(config.read_text().replace("chat: 7", "chat: 9, forum: 4"))
    checked = run(topics, "check", "--config", config)

    assert checked.exit_code == 1
    assert "chat has 7 partitions, topics.input_partitions says 9" in checked.output
    assert "--alter --topic chat --partitions 9" in checked.output
    assert "forum has" not in checked.output


def publish(config: Path, *outputs: Output) -> None:
    async def write() -> None:
        async with open_writer(load_settings(config)) as writer:
            await writer.write(outputs)

    asyncio.run(write())


def dead(key: bytes = b"k") -> Output:
    record = Record(
        topic="chat", partition=2, offset=40, timestamp=1, key=key, value=SECRET,
        headers=(("h", b"also secret"),),
    )  # fmt: skip
    error = UnreadableRecord(DeadLetterCode.NOT_JSON, detail="expected an object")
    return dead_letter_output(
        record, error, topic="moderation.dead-letter", max_bytes=1 << 20, worker_build="1", now=0.0
    )


def test_create_makes_inputs_and_outputs_once(config: Path) -> None:
    """The policies' topics and the four outputs are made; a second run changes nothing."""
    first = json.loads(run(topics, "create", "--json", "--config", config).output)
    assert set(first["created"]) == {
        "chat", "forum", "moderation.verdicts", "moderation.quarantine",
        "moderation.dead-letter", "moderation.verdicts.shadow",
    }  # fmt: skip
    second = json.loads(run(topics, "create", "--json", "--config", config).output)
    assert second == {"created": [], "existing": first["created"]}


def test_check_names_what_is_missing_and_how_to_mend_it(config: Path) -> None:
    """Exit code 1 and a fix for every missing topic; 0 when all is there."""
    before = run(topics, "check", "--config", config)
    assert before.exit_code == 1
    assert "chat does not exist" in before.output
    assert "topics create" in before.output
    after = run(topics, "check", "--config", created(config))
    assert (after.exit_code, after.output.count("ok ")) == (0, 6)


def test_dead_letters_are_listed_without_their_payload(config: Path) -> None:
    """Coordinates, code and detail; neither value, key nor headers of the user."""
    publish(created(config), dead(b"key-secret"))
    for extra in ((), ("--json",)):
        listed = run(deadletter, "list", "--config", config, *extra)
        assert listed.exit_code == 0
        assert "not_json" in listed.output
        assert "secret" not in listed.output
        assert "expected an object" in listed.output


def test_a_dead_letter_shows_its_payload_only_when_asked(config: Path) -> None:
    """``--content`` shows the original, with terminal escapes made harmless."""
    publish(created(config), dead(b""))
    line = json.loads(run(deadletter, "list", "--json", "--config", config).output)
    where = f"{line['position']['partition']}:{line['position']['offset']}"
    assert "secret" not in run(deadletter, "show", where, "--config", config).output
    shown = run(deadletter, "show", where, "--content", "--config", config).output
    assert "my secret \\x1b[31mwords" in shown
    assert "\x1b" not in shown
    as_json = run(deadletter, "show", where, "--content", "--json", "--config", config)
    assert json.loads(as_json.output)["content"]["headers"] == [["h", "YWxzbyBzZWNyZXQ="]]


def test_held_content_is_listed_without_the_content(config: Path) -> None:
    """Policy, outcome and categories; no event, no original, no reasoning."""
    publish(created(config), QUARANTINE_OUTPUT)
    for extra in ((), ("--json",)):
        listed = run(quarantine, "list", "--config", config, *extra)
        assert listed.exit_code == 0
        assert "Account takeover" in listed.output
        assert "neighbour" not in listed.output
        assert "The user asks" not in listed.output


def test_held_content_is_shown_only_when_asked(config: Path) -> None:
    """``--content`` gives the event, the original and every trace."""
    publish(created(config), QUARANTINE_OUTPUT)
    line = json.loads(run(quarantine, "list", "--json", "--config", config).output)
    where = f"{line['position']['partition']}:{line['position']['offset']}"
    hidden = json.loads(run(quarantine, "show", where, "--json", "--config", config).output)
    assert hidden["reasoning_traces"] == 1
    assert "event" not in hidden
    shown = run(quarantine, "show", where, "--content", "--json", "--config", config)
    value = json.loads(shown.output)
    assert value["original"]["value"].encode() == RECORD.value
    assert value["reasoning_traces"][0].startswith("The user asks")


def test_coordinates_that_are_none_are_explained(config: Path) -> None:
    """A typo names the form; a place without a record names the command that lists them."""
    wrong = run(deadletter, "show", "17", "--config", created(config))
    assert wrong.exit_code == 2
    assert "PARTITION:OFFSET" in wrong.output
    empty = run(deadletter, "show", "0:17", "--config", config)
    assert "see `list`" in str(empty.exception)
