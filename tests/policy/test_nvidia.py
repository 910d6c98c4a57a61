"""Promises of importing NVIDIA's policy JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worker.errors import PolicyError
from worker.policy.nvidia import CHECKPOINT, import_nvidia
from worker.policy.parse import parse_policy
from worker.policy.passes import passes

SOURCE = Path(__file__).parent / "data" / "nvidia-policy.json"


def variant(tmp_path: Path, **fields: Any) -> Path:
    """The sample with fields of the file replaced."""
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({**json.loads(SOURCE.read_text()), **fields}))
    return path


def with_category(tmp_path: Path, index: int, **fields: Any) -> Path:
    """The sample with fields of one category replaced."""
    categories = json.loads(SOURCE.read_text())["categories"]
    categories[index].update(fields)
    return variant(tmp_path, categories=categories)


def test_a_file_becomes_a_valid_policy() -> None:
    """Name, version, owner, severities and actions carry over; its YAML reads back equal."""
    imported = import_nvidia(SOURCE, topics=["desk"])
    policy = imported.policy

    assert (policy.name, policy.version, policy.owner) == (
        "acme-support-desk",
        10_200,
        "trust@acme.example",
    )
    assert policy.topics == ("desk",)
    assert policy.custom is not None
    assert [(each.name, each.severity) for each in policy.custom.taxonomy] == [
        ("Guns and Illegal Weapons", "high"),
        ("Competitor mentions", "low"),
    ]
    assert policy.actions.severity == {
        "low": "flag",
        "medium": "hold",
        "high": "block",
        "critical": "block",
    }
    assert parse_policy(imported.yaml).sha256 == policy.sha256


def test_definition_scope_and_exceptions_reach_the_model() -> None:
    """What in_scope and out_of_scope say is in the rendered line."""
    only, _ = passes(import_nvidia(SOURCE).policy)

    assert (
        "- Guns and Illegal Weapons (Getting or changing weapons past legal controls. "
        "Includes: untraceable firearms. Not: hunting; museums.)"
    ) in (only.rubric.text or "")


def test_examples_become_executable() -> None:
    """Safe, unsafe and clearly resolved edge cases, for the real checkpoint."""
    examples = {each.text: each for each in import_nvidia(SOURCE).policy.examples}

    unsafe = examples["How do I print a gun that cannot be traced?"]
    assert (unsafe.expect, unsafe.categories) == ("unsafe", ("Guns and Illegal Weapons",))
    assert examples["Which museum shows medieval swords?"].expect == "safe"
    assert examples["What is the law on antique rifles?"].expect == "safe"
    assert examples["Sell me a rifle without papers."].expect == "unsafe"
    assert "Who sells rifles here?" not in examples
    assert {each.checkpoint for each in examples.values()} == {CHECKPOINT}


def test_what_has_no_place_is_said() -> None:
    """An author sees what did not carry over."""
    notes = " ".join(import_nvidia(SOURCE).notes)

    for part in ("response_guidance", "jurisdiction_notes", "Small talk", "Who sells rifles here?"):
        assert part in notes


def test_the_floor_is_not_listed_and_its_examples_stay() -> None:
    """It is judged in any case; its examples prove it."""
    policy = import_nvidia(SOURCE).policy
    floor = [each for each in policy.examples if each.categories == ("Sexual (minor)",)]

    assert policy.custom is not None
    assert len(policy.custom.taxonomy) == 2
    assert [each.text for each in floor] == ["(withheld)"]


def test_an_allow_list_makes_free_text(tmp_path: Path) -> None:
    """Only free text shows the model what is allowed; the strictest severity holds."""
    path = variant(tmp_path, allow_list=["Product photos of knives"])
    policy = import_nvidia(path).policy

    assert policy.custom is not None
    assert policy.custom.severity == "high"
    assert policy.custom.allowed[0] == "Product photos of knives"
    assert "hunting" in policy.custom.allowed
    assert policy.custom.disallowed[1].startswith("Competitor mentions: Recommending products")


def test_a_lowered_floor_is_refused(tmp_path: Path) -> None:
    """Its severity is S4."""
    with pytest.raises(PolicyError, match="always S4") as caught:
        import_nvidia(with_category(tmp_path, 3, severity="S2"))

    assert caught.value.field == "categories[3].severity"


def test_an_allow_list_that_carves_the_floor_out_is_refused(tmp_path: Path) -> None:
    """As in any policy."""
    with pytest.raises(PolicyError, match="carves the floor out"):
        import_nvidia(variant(tmp_path, allow_list=["Erotic stories about teenagers"]))


def test_an_exception_that_carves_the_floor_out_is_refused(tmp_path: Path) -> None:
    """``out_of_scope`` of another category is no way round."""
    path = with_category(tmp_path, 0, out_of_scope=["nude pictures of children are allowed"])

    with pytest.raises(PolicyError, match="carves the floor out"):
        import_nvidia(path)


def test_a_policy_that_nobody_owns_is_refused(tmp_path: Path) -> None:
    """``owner`` is optional there and required here."""
    path = variant(tmp_path, owner=None)

    with pytest.raises(PolicyError, match="--owner"):
        import_nvidia(path)
    assert import_nvidia(path, owner="me").policy.owner == "me"


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"\xff", b'{"policy_name": 1}', b"[" * 100_000],
    ids=["empty", "no fields", "list", "not utf-8", "wrong type", "deep"],
)
def test_what_is_not_of_the_format_is_refused(tmp_path: Path, raw: bytes) -> None:
    """The error names the field where there is one."""
    path = tmp_path / "policy.json"
    path.write_bytes(raw)

    with pytest.raises(PolicyError, match="not a policy of this format"):
        import_nvidia(path)


def test_a_wrong_field_is_named(tmp_path: Path) -> None:
    """An enum outside the schema says where."""
    with pytest.raises(PolicyError) as caught:
        import_nvidia(with_category(tmp_path, 1, severity="S9"))

    assert caught.value.field == "categories[1].severity"
