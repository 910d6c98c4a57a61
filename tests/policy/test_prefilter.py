"""``prefilter:`` of a policy: mistakes are named, files belong to it, its content is hashed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.policies import make_policy, policy_yaml, untouched, write_policy
from worker.errors import PolicyError
from worker.policy.diff import diff
from worker.policy.dump import dump_policy
from worker.policy.model import Policy
from worker.policy.parse import load_policy, parse_policy
from worker.policy.passes import passes
from worker.policy.registry import PolicyRegistry
from worker.policy.report import policy_lines

SHA = "ab" * 32
LIST: dict[str, Any] = {
    "name": "scams",
    "decide": "unsafe",
    "category": "Fraud/Deception",
    "phrases": ["double your bitcoin", "free money"],
}


def with_list(**changes: Any) -> dict[str, Any]:
    given = {**LIST, **changes}
    return {"lists": [{name: value for name, value in given.items() if value is not None}]}


def problems(prefilter: Any, **fields: Any) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        make_policy(prefilter=prefilter, **fields)
    return [f"{each.field}: {each.problem}" for each in caught.value.problems]


@pytest.mark.parametrize(
    ("prefilter", "problem"),
    [
        ({}, "prefilter: nothing is looked for: `lists` is not given"),
        (with_list(decide="safe"), "prefilter.lists[0].decide: `safe` is not one of its values"),
        (with_list(decide=None), "prefilter.lists[0].decide: the field is missing"),
        (with_list(category=None), "prefilter.lists[0].category: a list that decides unsafe"),
        (with_list(phrases=None), "prefilter.lists[0]: the list is empty"),
        (with_list(phrases=["..."]), "prefilter.lists[0].phrases[0]: `...` leaves next to nothing"),
        (with_list(phrases=["e"]), "prefilter.lists[0].phrases[0]: `e` leaves next to nothing"),
        (with_list(phrases=["ab", 3]), "prefilter.lists[0].phrases[1]: expected text, found a num"),
        (with_list(phrases=["ab", "ab"]), "prefilter.lists[0].phrases[1]: `ab` is listed twice"),
        (with_list(images=[SHA]), "prefilter.lists[0].images: phrases and images in one list"),
        (with_list(distance=3), "prefilter.lists[0].distance: phrases have no distance"),
        (with_list(name="My List"), "prefilter.lists[0].name: `My List` is not a name of a list"),
        (with_list(match="fuzzy"), "prefilter.lists[0].match: `fuzzy` is not one of its values"),
        (with_list(severty="low"), "prefilter.lists[0].severty: unknown field"),
        (
            with_list(phrases=None, images=["abc"]),
            "prefilter.lists[0].images[0]: `abc` is no digest of an image",
        ),
        (
            with_list(category="sexual (minor)", severity="low"),
            "prefilter.lists[0].severity: the severity of `Sexual (minor)` is always critical",
        ),
        (
            with_list(category="Sexual minor!"),
            "prefilter.lists[0].category: `Sexual minor!` is the floor's own category",
        ),
        (
            {"lists": [LIST, {**LIST, "phrases": ["other"]}]},
            "prefilter.lists[1]: `scams` is the name of another list too",
        ),
        (
            with_list(phrases=None, phrases_file="../secret.txt"),
            "prefilter.lists[0].phrases_file: `../secret.txt` is no list beside the policy",
        ),
        (
            with_list(phrases=None, phrases_file="gone.txt"),
            "prefilter.lists[0].phrases_file: `gone.txt` cannot be read",
        ),
        ({**with_list(), "allow": ["?"]}, "prefilter.allow[0]: `?` leaves next to nothing"),
        ({**with_list(), "decide_safe": True}, "prefilter.decide_safe: unknown field"),
    ],
)
def test_mistakes_are_named_with_their_field(prefilter: dict[str, Any], problem: str) -> None:
    """Nothing that is written wrong is quietly not looked for."""
    assert [each for each in problems(prefilter) if each.startswith(problem)]


def test_a_list_of_a_suppressed_category_is_refused() -> None:
    """A policy cannot want it and not want it."""
    found = problems(with_list(category="Malware"), builtin={"suppress": ["Malware"]})
    assert found == ["prefilter.lists[0].category: the policy suppresses `Malware`"]


def test_a_bad_line_of_a_file_is_named_with_file_and_line(tmp_path: Path) -> None:
    """Whoever keeps the list is told where to look."""
    (tmp_path / "known.txt").write_text(f"# taken down\n{SHA}  a.png\n\nnonsense\n", "utf-8")
    given = with_list(phrases=None, images_file="known.txt")
    path = write_policy(tmp_path, "p.yaml", prefilter=given)
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(tmp_path / "known.txt"), 4)
    assert "`policy digest IMAGE`" in problem.fix


def test_a_file_holds_one_entry_a_line(tmp_path: Path) -> None:
    """Comments, blank lines, a byte-order mark and Windows line ends are no entries."""
    content = "\ufeff# spam\r\n\r\n  buy now \r\nbuy now\r\n\\#crypto\r\n"
    (tmp_path / "spam.txt").write_text(content, "utf-8", newline="")
    given = with_list(phrases_file="spam.txt", phrases=["free money"])
    policy = load_policy(write_policy(tmp_path, "p.yaml", prefilter=given))
    assert policy.prefilter is not None
    assert policy.prefilter.lists[0].entries == ("free money", "buy now", "#crypto")


def sha(**fields: Any) -> str:
    return make_policy(**fields).sha256


def test_what_a_prefilter_decides_by_is_hashed_and_the_order_of_entries_is_not() -> None:
    """Equal hashes judge alike: every change of a list shows, a sorted list is the same list."""
    base = {**with_list(), "allow": ["Bitcoin Museum"]}
    changed = [
        None,
        {**base, "allow": ["Museum"]},
        {**base, "judge_too": True},
        {**with_list(decide="reason"), "allow": ["Bitcoin Museum"]},
        {**with_list(match="loose"), "allow": ["Bitcoin Museum"]},
        {**with_list(severity="low"), "allow": ["Bitcoin Museum"]},
        {**with_list(category="Malware"), "allow": ["Bitcoin Museum"]},
        {**with_list(phrases=["free money"]), "allow": ["Bitcoin Museum"]},
        {**with_list(name="other"), "allow": ["Bitcoin Museum"]},
    ]
    hashes = {sha(prefilter=each) for each in [base, *changed]}
    assert len(hashes) == 1 + len(changed)
    turned = {**with_list(phrases=["free money", "double your bitcoin"])}
    assert sha(prefilter=turned) == sha(prefilter=with_list())


def test_the_content_of_a_file_is_hashed(tmp_path: Path) -> None:
    """A changed list is another policy, whoever keeps it."""
    path = write_policy(
        tmp_path, "p.yaml", prefilter=with_list(phrases=None, phrases_file="spam.txt")
    )

    def now(content: str) -> Policy:
        (tmp_path / "spam.txt").write_text(content, "utf-8")
        return load_policy(path)

    first, same, other = now("one\ntwo\n"), now("# note\ntwo\none\n"), now("one\n")
    assert first.sha256 == same.sha256 != other.sha256
    assert [change.field for change in diff(first, other)] == ["prefilter.lists.scams.file"]


async def test_a_changed_list_goes_live_like_a_changed_policy(tmp_path: Path) -> None:
    """No one has to touch the policy itself."""
    given = with_list(phrases=None, phrases_file="spam.txt")
    (tmp_path / "spam.txt").write_text("one\n", "utf-8")
    write_policy(tmp_path, "p.yaml", topics=["t"], prefilter=given)
    registry = PolicyRegistry(tmp_path)
    registry.load()
    await registry.activate()
    before = registry.select("t")
    assert not await registry.reload()
    (tmp_path / "spam.txt").write_text("one\ntwo\n", "utf-8")
    untouched(tmp_path / "spam.txt")
    assert await registry.reload()
    after = registry.select("t")
    assert before is not None
    assert after is not None
    assert after.prefilter is not None
    assert after.prefilter.lists[0].loaded == ("one", "two")
    (tmp_path / "spam.txt").write_text("?\n", "utf-8")
    untouched(tmp_path / "spam.txt")
    assert not await registry.reload()
    assert registry.select("t") is after
    assert [problem.file for problem in registry.problems] == [str(tmp_path / "spam.txt")]


def test_a_policy_with_a_prefilter_survives_being_written_out() -> None:
    """What an import writes, a check reads."""
    given = {**with_list(match="loose", severity="low"), "allow": ["Bitcoin Museum"]}
    policy = make_policy(prefilter=given, cache=False)
    again = parse_policy(dump_policy(policy), file=policy.file)
    assert again == policy
    plain = parse_policy(policy_yaml(), file="policies/sample.yaml")
    assert "prefilter" not in dump_policy(plain)


def test_examples_may_expect_a_category_that_only_a_list_knows() -> None:
    """Lists bring categories of their own."""
    examples = [{"text": "free money", "expect": "unsafe", "categories": ["Spam"]}]
    make_policy(prefilter=with_list(category="Spam"), examples=examples)


def test_what_is_listed_is_counted_and_never_printed() -> None:
    """``policy show`` may be read by whoever should not have to read the list."""
    shown = "\n".join(policy_lines(make_policy(prefilter=with_list(), cache=False)))
    assert "scams: 2 phrases (normalised), unsafe, Fraud/Deception" in shown
    assert "bitcoin" not in shown
    assert "cache         off" in shown


def test_the_switch_of_the_cache_reaches_the_judge_and_is_no_other_rule() -> None:
    """Policies that differ in it only have one hash, and still each their own way."""
    on, off = make_policy(), make_policy(cache=False)
    assert on.sha256 == off.sha256
    assert [each.cache for each in (*passes(on), *passes(off))] == [True, False]
    assert [str(change) for change in diff(on, off)] == ["cache: True -> False"]
