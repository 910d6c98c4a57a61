"""``doctor --memory``: what a deployment takes on a card, without loading it."""

from __future__ import annotations

from typing import Any

from tests.support.cli import moderation_worker
from tests.support.worker_place import WorkerPlace

KNOWN = "nvidia/Nemotron-3.5-Content-Safety"
SMALL = {
    "backend": "local",
    "model": KNOWN,
    "max_context": 2048,
}


def report(place: WorkerPlace, expect: int, *more: str) -> dict[str, Any]:
    answer = moderation_worker("doctor", "--memory", "--json", "--config", place.config, *more)
    assert answer.code == expect, answer.out + answer.err
    (line,) = answer.lines()
    found: dict[str, Any] = line
    assert found["fits"] == (expect == 0)
    return found


def test_an_8_gb_card_takes_eight_bit_weights_and_not_bfloat16(place: WorkerPlace) -> None:
    """Exit code 0 and 1; what is short names settings with values that fit, and what nobody set is
    lowered by itself."""
    place.change(judge=SMALL)
    place.policy()
    fits = report(place, 0, "--card", "8GiB", "--numerics", "w8a16")
    assert fits["needed_bytes"] <= 8 * 1024**3
    assert fits["changes"] == []
    assert "judge.max_batch_tokens" in {each["setting"] for each in fits["fitted"]}
    assert fits["largest"]["policies"] >= 1
    short = report(place, 1, "--card", "8GiB")
    changed = {each["setting"].removeprefix("judge."): each["to"] for each in short["changes"]}
    assert changed["numerics"] == "w8a16"
    place.change(judge={**SMALL, **changed})
    report(place, 0, "--card", "8GiB")


def test_people_read_a_table_and_what_to_do(place: WorkerPlace) -> None:
    """Every part, the sum, what would fit, and what was assumed."""
    place.change(judge=SMALL)
    place.policy(think={"when": "always"})
    answer = moderation_worker("doctor", "--memory", "--card", "8GiB", "--config", place.config)
    assert answer.code == 1
    for part in ("text body", "vision tower", "policies", "THINK lane", "images", "needed"):
        assert part in answer.out
    assert "does not fit: " in answer.out
    assert "set judge." in answer.out
    assert "estimated" in answer.out


def test_a_deployment_is_planned_on_its_own_device(place: WorkerPlace) -> None:
    """Without --card: here, the demonstration checkpoint in this machine's memory."""
    place.change(judge={"backend": "local", "model": "tiny", "device": "cpu"})
    place.policy()
    found = report(place, 0)
    assert found["card"] == "this machine's memory"
    assert found["dtype"] == "float32"


def test_options_of_the_plan_need_the_plan(place: WorkerPlace) -> None:
    """And a size that is none is named."""
    alone = moderation_worker("doctor", "--card", "8GiB", "--config", place.config)
    assert alone.code == 2
    assert "--memory" in alone.err
    place.change(judge=SMALL)
    wrong = moderation_worker("doctor", "--memory", "--card", "big", "--config", place.config)
    assert wrong.code == 2
    assert "8GiB" in wrong.err


def test_a_judge_elsewhere_takes_no_memory_here(place: WorkerPlace) -> None:
    """The plan is refused, not invented."""
    answer = moderation_worker("doctor", "--memory", "--config", place.config)
    assert answer.code == 2
    assert "judge.backend is scripted" in answer.err
