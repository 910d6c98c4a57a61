"""Every kind of bad input through a whole worker: each ends as documented, and it goes on."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from tests.support.bad_input import BadInput, bad_inputs
from tests.support.worker_place import WorkerPlace
from tests.support.worker_process import WorkerProcess
from worker.contracts.dead_letter import parse_dead_letter
from worker.contracts.encode import QuarantineRecord
from worker.contracts.verdict import Verdict
from worker.records import Header, Output, Record


class Ended(msgspec.Struct, kw_only=True):
    """Where every record ended, by its name."""

    cases: dict[str, BadInput]
    verdicts: dict[str, Verdict]
    letters: dict[str, Record]
    held: dict[str, QuarantineRecord]
    exit_code: int
    said: str


async def run(directory: Path) -> Ended:
    place = WorkerPlace(directory / "place", topics={"partitions": 1})
    place.policy()
    await place.create_topics()
    cases = bad_inputs(place)
    await place.write(
        [
            Output(topic="chat", key=case.name.encode(), value=case.value, headers=case.headers)
            for case in cases
        ]
    )
    dead = sum(case.dead for case in cases)
    with WorkerProcess(place.config, directory / "log") as worker:
        verdicts = await place.until(len(cases) - dead, dead, deadline_s=120)
        assert worker.probe("/healthz")[0] == 200
        code = await asyncio.to_thread(worker.terminate)
    names = [case.name for case in cases]
    return Ended(
        cases={case.name: case for case in cases},
        verdicts={names[verdict.source.offset]: verdict for verdict in verdicts},
        letters={
            names[parse_dead_letter(record).source.offset]: record
            for record in await place.dead_letters()
        },
        held={names[each.source.offset]: each for each in await place.quarantined()},
        exit_code=code,
        said=worker.said(),
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return asyncio.run(run(tmp_path_factory.mktemp("bad-input")))


def test_each_ends_as_documented(ended: Ended) -> None:
    """A code of docs/contracts.md for every record, in a verdict or in a dead letter."""
    found = {name: parse_dead_letter(record).code for name, record in ended.letters.items()}
    for name, verdict in ended.verdicts.items():
        assert name not in found, "a record ended in two places"
        found[name] = verdict.undecided_reason or verdict.outcome
    assert found == {name: str(case.expect) for name, case in ended.cases.items()}


def test_dead_letters_keep_every_byte(ended: Ended) -> None:
    """Key, value and own headers are untouched; ours stand behind them, in one namespace."""
    for name, record in ended.letters.items():
        case, letter = ended.cases[name], parse_dead_letter(record)
        own = len(case.headers)
        assert record.headers[:own] == case.headers, name
        assert all(key.startswith(Header.DEAD_LETTER_PREFIX) for key, _ in record.headers[own:])
        assert record.key == name.encode()
        assert letter.null_value == (case.value is None)
        if not letter.by_reference:
            assert record.value == (case.value or b""), name
    assert sum(parse_dead_letter(each).by_reference for each in ended.letters.values()) == 1


def test_what_is_too_large_to_copy_is_referred_to(ended: Ended) -> None:
    """Coordinates, size, digest and first bytes stand in for the value."""
    value = ended.cases["too_large_to_copy"].value or b""
    letter = ended.letters["too_large_to_copy"]
    reference = json.loads(letter.value or b"")
    assert reference["size"] == len(value)
    assert reference["sha256"] == hashlib.sha256(value).hexdigest()
    assert base64.b64decode(reference["first_bytes"]) == value[:256]
    assert reference["source"]["offset"] == list(ended.cases).index("too_large_to_copy")


def test_undecided_is_never_safe_and_is_held(ended: Ended) -> None:
    """By default a person decides: action hold, and the original in quarantine, byte for byte."""
    undecided = {name for name, each in ended.verdicts.items() if each.outcome == "undecided"}
    assert set(ended.held) == undecided
    for name in undecided:
        assert ended.verdicts[name].action == "hold"
        assert ended.held[name].needs_review
        assert ended.held[name].verdict == ended.verdicts[name]
        value, original = ended.cases[name].value or b"", ended.held[name].original
        assert original.sha256 == hashlib.sha256(value).hexdigest()
        if original.value is not None:
            assert original.value.encode() == value


def test_a_wrong_field_is_named(ended: Ended) -> None:
    """The producer's engineer reads which one."""
    assert (ended.verdicts["text_no_string"].undecided_detail or "").startswith("messages[0].text")
    assert (ended.verdicts["time_no_time"].undecided_detail or "").startswith("time")
    assert parse_dead_letter(ended.letters["no_id"]).field == "id"


def test_the_worker_goes_on(ended: Ended) -> None:
    """No traceback, no restart; what came last is judged, and the end is clean."""
    assert ended.verdicts["at_the_end"].outcome == "safe"
    assert {verdict.attempts for verdict in ended.verdicts.values()} == {1}
    assert ended.exit_code == 0
    assert "Traceback" not in ended.said
