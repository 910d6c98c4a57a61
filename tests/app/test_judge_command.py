"""``judge``: one thing by hand, or events on standard input."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.cli import Answer, moderation_worker, written
from tests.support.images import encoded, plain
from tests.support.kafka import free_ports
from tests.support.records import event_document
from tests.support.worker_place import WorkerPlace
from worker.contracts.verdict import Verdict


@pytest.fixture
def config(tmp_path: Path) -> Path:
    place = WorkerPlace(tmp_path / "place")
    place.policy(builtin={"suppress": ["Guns and Illegal Weapons"]})
    return place.config


def judge(config: Path, *arguments: object, stdin: bytes = b"") -> Answer:
    answer = moderation_worker("judge", "--config", config, *arguments, stdin=stdin)
    assert answer.code == 0, answer.err
    return answer


def verdict(config: Path, *arguments: object) -> Verdict:
    answer = judge(config, "--json", *arguments)
    return msgspec.json.decode(answer.out, type=Verdict)


def test_text_and_response_are_judged_under_the_built_in_taxonomy(config: Path) -> None:
    """Both sides have a label of their own."""
    one = verdict(config, "--text", "tell me", "--response", "take a grenade")
    assert one.outcome == "unsafe"
    assert one.user is not None
    assert one.response is not None
    assert (one.user.label, one.response.label) == ("safe", "unsafe")
    assert one.policy.name == "builtin"


def test_a_named_policy_or_a_file_decides(config: Path) -> None:
    """The policy suppresses what the taxonomy finds, whichever way it is named."""
    file = config.parent / "policies" / "chatter.yaml"
    for named in ("chatter", file):
        one = verdict(config, "--text", "a grenade", "--policy", named)
        assert (one.outcome, one.policy.name) == ("safe", "chatter")


def test_rules_of_ones_own_are_judged(config: Path, tmp_path: Path) -> None:
    """A text file, one rule a line, stands in for a policy."""
    rules = written(tmp_path / "rules.txt", "pineapple on pizza\n")
    one = verdict(config, "--text", "I want pineapple on pizza", "--custom-policy", rules)
    assert one.outcome == "unsafe"
    assert [category.source for category in one.categories] == ["custom"]


def test_a_picture_is_judged_beside_the_text(config: Path, tmp_path: Path) -> None:
    """A file of this machine; the verdict carries the digest of what was seen."""
    content = encoded(plain())
    picture = tmp_path / "a.png"
    picture.write_bytes(content)
    one = verdict(config, "--text", "look", "--image", picture)
    (image,) = one.images
    assert one.outcome == "safe"
    assert image.sha256 == hashlib.sha256(content).hexdigest()
    missing = verdict(config, "--text", "look", "--image", tmp_path / "gone.png")
    assert (missing.outcome, missing.undecided_reason) == ("undecided", "image_missing")


def test_a_trace_is_written_when_asked_for(config: Path) -> None:
    """Whatever the policy says about thinking."""
    one = verdict(config, "--text", "a grenade", "--think")
    assert one.reasoning is not None
    assert one.reasoning.trace is not None
    assert "Guns" in one.reasoning.trace


def test_people_read_words(config: Path) -> None:
    """Without --json: the outcome, its categories and no JSON."""
    answer = judge(config, "--text", "a grenade")
    assert "unsafe" in answer.out
    assert "Guns and Illegal Weapons" in answer.out
    assert not answer.out.lstrip().startswith("{")


def test_events_on_standard_input_are_answered_in_order(config: Path) -> None:
    """A line that is no event gives a dead-letter object in its place, and the rest goes on."""

    def event(number: int, text: str) -> bytes:
        messages = [{"role": "user", "text": text}]
        return json.dumps(event_document(id=f"e-{number}", messages=messages)).encode()

    lines = [event(n, "a grenade" if n % 2 else "hello") for n in range(100)]
    lines[40], lines[60], lines[70] = b"not json", b'{"id": "e-60"}', b'{"id": "\xff"}'
    answers = judge(config, "--json", stdin=b"\n".join(lines) + b"\n").lines()
    assert len(answers) == 100
    dead: dict[int, Any] = {number: answers.pop(number)["dead_letter"] for number in (70, 60, 40)}
    assert {number + 1: letter["line"] for number, letter in dead.items()} == {
        41: 41, 61: 61, 71: 71,
    }  # fmt: skip
    assert [dead[n]["code"] for n in (40, 60, 70)] == ["not_json", "missing_field", "not_utf8"]
    expected = [n for n in range(100) if n not in dead]
    assert [answer["event_id"] for answer in answers] == [f"e-{n}" for n in expected]
    assert [answer["outcome"] for answer in answers] == [
        "unsafe" if n % 2 else "safe" for n in expected
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--response", "an answer to nothing"), "--text or --image"),
        (("--text", ""), "--text is empty"),
        (("--text", "a\udcff"), "--text: not UTF-8"),
        (("--text", "a", "--policy", "nowhere"), "no valid policy is named `nowhere`"),
        (("--text", "a", "--policy", "chatter", "--custom-policy", "x"), "one of the two"),
        (("--text", "a", "--custom-policy", "gone.txt"), "cannot be read"),
        (("--image", "a.png", "--image", "s3://pics/a.png"), "cannot be mixed"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_mending(
    config: Path, arguments: tuple[str, ...], says: str
) -> None:
    """Exit code 2, one message, no traceback."""
    answer = moderation_worker("judge", "--config", config, *arguments)
    assert answer.code == 2
    assert says in answer.err
    assert "Traceback" not in answer.err


def test_a_store_that_is_away_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1 and a way to find out more; nobody is told that the event is at fault."""
    place = WorkerPlace(
        tmp_path / "place",
        store={
            "backend": "s3",
            "endpoint_url": f"http://127.0.0.1:{free_ports(1)[0]}",
            "region": "us-east-1",
        },
    )
    place.policy()
    picture = ("--text", "look", "--image", "s3://pics/a.png")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    answer = moderation_worker("judge", "--config", place.config, *picture)
    assert (answer.code, answer.out) == (1, "")
    assert "store is unavailable" in answer.err
    assert "moderation-worker doctor" in answer.err
