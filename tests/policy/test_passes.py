"""Promises of passes: what the judge is asked about an event."""

from __future__ import annotations

from pathlib import Path

from tests.support.policies import make_policy, write_policy
from worker.guard.taxonomy import BUILTIN, FLOOR
from worker.policy.parse import load_policy
from worker.policy.passes import passes


def test_the_stock_taxonomy_is_one_pass_without_text() -> None:
    """The model's own prefix stays byte for byte its own."""
    (only,) = passes(make_policy())

    assert (only.source, only.rubric.mode, only.rubric.text) == ("builtin", "builtin", None)
    assert only.rubric.categories == BUILTIN


def test_suppression_replaces_the_taxonomy_and_keeps_the_numbers() -> None:
    """The remaining lines keep their S numbers; suppressed names are not legal answers."""
    (only,) = passes(make_policy(builtin={"suppress": ["Violence"]}))

    assert only.rubric.mode == "taxonomy"
    assert (only.rubric.text or "").startswith("S2: Sexual.\nS3: ")
    assert "Violence" not in only.rubric.categories


def test_builtin_and_free_text_are_two_passes() -> None:
    """One kwarg replaces the other in the template, so both take a pass each."""
    first, second = passes(make_policy(custom={"disallowed": ["a", "b"], "allowed": ["c"]}))

    assert (first.source, second.source) == ("builtin", "custom")
    assert second.rubric.mode == "policy"
    assert second.rubric.categories == ("a", "b", FLOOR)


def test_an_own_taxonomy_alone_is_one_pass_and_the_floors() -> None:
    """Names and notes are rendered, the floor last; and once it is asked in a text of its own."""
    taxonomy = [{"name": "Own", "note": "a, b"}, {"name": "Other Thing"}]
    only, floor = passes(make_policy(builtin={"enabled": False}, custom={"taxonomy": taxonomy}))

    assert (only.source, only.rubric.mode) == ("custom", "taxonomy")
    assert (only.rubric.text or "").split("\n")[:2] == ["- Own (a, b)", "- Other Thing"]
    assert only.rubric.categories == ("Own", "Other Thing", FLOOR)
    stock = passes(make_policy(think={"when": "always"}))[0]
    assert (floor.source, floor.rubric) == ("floor", stock.rubric)
    assert floor.think.when == "never"


def test_thinking_follows_the_policy_on_every_pass() -> None:
    """Threshold, band, budget and deadline reach the judge in its units."""
    policy = make_policy(
        think={"when": "uncertain", "band": [0.2, 0.8], "max_tokens": 50, "deadline_ms": 1500},
        thresholds={"unsafe": 0.7},
        custom={"disallowed": ["a"]},
    )

    for each in passes(policy):
        think = each.think
        assert (think.when, think.band, think.threshold) == ("uncertain", (0.2, 0.8), 0.7)
        assert (think.max_tokens, think.deadline_s) == (50, 1.5)


def test_an_adapter_is_named_by_its_place(tmp_path: Path) -> None:
    """Relative to the policy file, wherever the worker was started."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "adapter_config.json").write_text("{}")

    own, floor = passes(load_policy(write_policy(tmp_path, "a.yaml", adapter="own")))

    assert own.adapter == str(tmp_path / "own")
    assert (floor.source, floor.adapter) == ("floor", None)


def test_equal_policies_share_their_passes() -> None:
    """Rendering happens once per content, so prefix caches see one rubric."""
    assert passes(make_policy(version=1)) is passes(make_policy(version=2))


def test_different_texts_have_different_rubric_hashes() -> None:
    """A rubric's hash is of its mode and text."""
    hashes = {
        each.rubric.sha256
        for policy in (
            make_policy(),
            make_policy(builtin={"suppress": ["Violence"]}),
            make_policy(builtin={"enabled": False}, custom={"disallowed": ["a"]}),
            make_policy(builtin={"enabled": False}, custom={"taxonomy": [{"name": "a"}]}),
        )
        for each in passes(policy)
    }

    assert len(hashes) == 4
