"""Policies change while a worker runs: what is valid goes live, what is not stays out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from tests.support.measured import measured
from tests.support.policies import policy_yaml, untouched
from tests.support.registries import FAILS, HOLDS, WordCheck, live, put, version_of
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, Undecided
from worker.policy.examples import ExampleOutcome, ExampleResult, check_examples
from worker.policy.model import Example, Policy
from worker.policy.parse import parse_policy
from worker.policy.registry import PolicyRegistry
from worker.telemetry.names import Metric


async def test_a_change_goes_live_without_a_restart(tmp_path: Path) -> None:
    """The next event is judged by the new version."""
    put(tmp_path)
    registry = await live(tmp_path)
    put(tmp_path, version=2, on_undecided="block")

    assert await registry.reload()
    assert version_of(registry, "t") == 2
    assert not await registry.reload()


async def test_a_bad_change_keeps_the_previous_version(tmp_path: Path) -> None:
    """Other policies still move on, and the problem stays visible until it is mended."""
    path = put(tmp_path)
    put(tmp_path, "b.yaml", name="b", topics=["u"])
    registry = await live(tmp_path)
    path.write_text("name: a\nversion: zwei\n")
    untouched(path)
    put(tmp_path, "b.yaml", name="b", topics=["u"], version=2)

    assert await registry.reload()
    assert (version_of(registry, "t"), version_of(registry, "u")) == (1, 2)
    assert await registry.reload() is False
    assert "a.yaml:2: version" in str(registry.problems[0])

    put(tmp_path, version=3)
    await registry.reload()
    assert (version_of(registry, "t"), registry.problems) == (3, ())


async def test_examples_gate_a_change(tmp_path: Path) -> None:
    """A version whose examples fail never judges an event."""
    check = WordCheck()
    put(tmp_path, examples=HOLDS)
    registry = await live(tmp_path, check)
    put(tmp_path, version=2, examples=FAILS)

    assert await registry.reload() is False
    assert version_of(registry, "t") == 1
    assert "1 of 1 examples do not hold" in str(registry.problems[0])
    assert registry.unready_topics() == ()

    put(tmp_path, version=3, examples=HOLDS)
    assert await registry.reload()
    assert (version_of(registry, "t"), registry.problems) == (3, ())


async def test_without_an_earlier_version_the_topic_is_unready(tmp_path: Path) -> None:
    """It is subscribed and paused, and the others run."""
    put(tmp_path, examples=FAILS)
    put(tmp_path, "b.yaml", name="b", topics=["u"])

    registry = await live(tmp_path, WordCheck())

    assert registry.unready_topics() == ("t",)
    assert registry.topics() == ("t", "u")
    assert registry.select("t") is None
    assert registry.problems[0].file.endswith("a.yaml")


async def test_unchanged_policies_are_not_checked_again(tmp_path: Path) -> None:
    """Examples cost device time: each content pays once."""
    check = WordCheck()
    put(tmp_path, examples=HOLDS)
    registry = await live(tmp_path, check)
    put(tmp_path, "b.yaml", name="b", topics=["u"])
    await registry.reload()
    os.utime(tmp_path / "a.yaml")
    await registry.reload()

    assert check.checked == ["a", "b"]


async def test_a_judge_that_is_away_delays_a_change_and_loses_nothing(tmp_path: Path) -> None:
    """The previous version stays; the next look takes the change in."""
    check = WordCheck()
    put(tmp_path, examples=HOLDS)
    registry = await live(tmp_path, check)
    put(tmp_path, version=2, examples=HOLDS, on_undecided="pass")
    check.away = True

    with pytest.raises(DependencyUnavailable):
        await registry.reload()
    assert version_of(registry, "t") == 1

    check.away = False
    assert await registry.reload()
    assert version_of(registry, "t") == 2


async def test_a_judge_that_is_away_at_start_delays_readiness(tmp_path: Path) -> None:
    """Activation can be called again, by hand or by the next reload."""
    check = WordCheck()
    check.away = True
    put(tmp_path, examples=HOLDS)
    registry = PolicyRegistry(tmp_path, check=check)
    registry.load()

    with pytest.raises(DependencyUnavailable):
        await registry.activate()
    assert registry.unready_topics() == ("t",)

    check.away = False
    assert await registry.reload()
    assert version_of(registry, "t") == 1


async def test_a_newcomer_cannot_take_a_topic_that_is_bound(tmp_path: Path) -> None:
    """The live policy stays whichever file comes first, and both files are named."""
    put(tmp_path, "m.yaml")
    registry = await live(tmp_path)
    for newcomer in ("a.yaml", "z.yaml"):
        put(tmp_path, newcomer, name="other", version=7)
        await registry.reload()

        assert version_of(registry, "t") == 1
        assert "m.yaml" in str(registry.problems[0])
        assert newcomer in str(registry.problems[0])
        (tmp_path / newcomer).unlink()


async def test_a_topic_can_move_between_policies_in_one_step(tmp_path: Path) -> None:
    """Both files change together, so there is no clash."""
    put(tmp_path, topics=["t", "u"])
    put(tmp_path, "b.yaml", name="b", topics=["v"])
    registry = await live(tmp_path)
    put(tmp_path, topics=["t"])
    put(tmp_path, "b.yaml", name="b", topics=["v", "u"])

    assert await registry.reload()
    assert registry.snapshot.by_topic["u"].name == "b"
    assert registry.problems == ()


async def test_a_half_moved_topic_stays_where_it_was(tmp_path: Path) -> None:
    """One file gives up a topic and fails its examples: the other cannot have it yet."""
    check = WordCheck()
    put(tmp_path, topics=["t", "u"])
    put(tmp_path, "b.yaml", name="b", topics=["v"])
    registry = await live(tmp_path, check)
    put(tmp_path, topics=["t"], version=2, examples=FAILS)
    put(tmp_path, "b.yaml", name="b", topics=["v", "u"], version=2)

    await registry.reload()

    assert registry.snapshot.by_topic["u"].name == "a"
    assert version_of(registry, "v") == 1
    assert len(registry.problems) == 2


async def test_a_file_that_goes_away_leaves_its_last_version(tmp_path: Path) -> None:
    """A subscribed topic never loses its policy by accident, and the loss is reported."""
    path = put(tmp_path, topics=["t", "u"])
    put(tmp_path, "b.yaml", name="b", topics=["v"])
    registry = await live(tmp_path)
    path.unlink()

    await registry.reload()

    assert (version_of(registry, "t"), version_of(registry, "u")) == (1, 1)
    assert "the file is gone" in str(registry.problems[0])

    put(tmp_path, "b.yaml", name="b", topics=["v", "t"], version=2)
    await registry.reload()
    assert (version_of(registry, "t"), version_of(registry, "u")) == (2, 1)


async def test_a_renamed_file_is_the_same_policy(tmp_path: Path) -> None:
    """Files can be reordered freely."""
    path = put(tmp_path)
    registry = await live(tmp_path)
    path.rename(tmp_path / "z.yaml")

    await registry.reload()

    policy = registry.select("t")
    assert policy is not None
    assert policy.file.endswith("z.yaml")
    assert registry.problems == ()


async def test_a_directory_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    """A volume that blinks takes no policy with it, and the problem goes when it is back."""
    directory = tmp_path / "policies"
    directory.mkdir()
    put(directory)
    registry = await live(directory)
    directory.rename(tmp_path / "aside")

    assert await registry.reload() is False
    assert version_of(registry, "t") == 1
    assert registry.problems

    (tmp_path / "aside").rename(directory)
    await registry.reload()
    assert registry.problems == ()


async def test_a_configmap_swap_is_seen_whole(tmp_path: Path) -> None:
    """Kubernetes swaps one link for a whole directory; contents come from one side of it."""
    for version in (1, 2):
        data = tmp_path / f"..{version}"
        data.mkdir()
        put(data, "a.yaml", version=version, on_undecided="hold" if version == 1 else "block")
        put(data, "b.yaml", name="b", topics=["u"], version=version, thresholds={"unsafe": 0.4})
    (tmp_path / "..data").symlink_to("..1")
    for file in ("a.yaml", "b.yaml"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    registry = await live(tmp_path)
    assert registry.topics() == ("t", "u")

    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")

    assert await registry.reload()
    assert (version_of(registry, "t"), version_of(registry, "u")) == (2, 2)
    assert registry.problems == ()


async def test_readers_see_one_snapshot_or_the_next(tmp_path: Path) -> None:
    """Two policies that change together are never seen half changed."""
    check = WordCheck()

    def put_both(version: int) -> None:
        for name, topic in (("a", "t"), ("b", "u")):
            put(tmp_path, f"{name}.yaml", name=name, topics=[topic], version=version,
                thresholds={"unsafe": version / 100}, examples=HOLDS)  # fmt: skip

    put_both(1)
    registry = await live(tmp_path, check)
    seen: set[tuple[int, int]] = set()
    done = False

    async def read() -> None:
        while not done:
            by_topic = registry.snapshot.by_topic
            seen.add((by_topic["t"].version, by_topic["u"].version))
            await asyncio.sleep(0)

    reader = asyncio.create_task(read())
    for version in range(2, 12):
        put_both(version)
        await registry.reload()
        await asyncio.sleep(0)
    done = True
    await reader

    assert all(one == two for one, two in seen)
    assert len(seen) > 5


@pytest.mark.parametrize("error", [DependencyUnavailable("judge"), RuntimeError("a bug")])
async def test_watching_takes_changes_in_by_itself(tmp_path: Path, error: Exception) -> None:
    """No signal and no restart; neither a judge that is away nor a bug ends the watch."""
    check = WordCheck()
    check.error = error
    path = put(tmp_path)
    registry = await live(tmp_path, check)
    watch = asyncio.create_task(registry.watch(0.01))
    check.away = True
    path.write_text(policy_yaml(name="a", topics=["t"], version=2, on_undecided="block"))
    async with asyncio.timeout(10):
        await check.turned_away.wait()
    check.away = False
    async with asyncio.timeout(10):
        while version_of(registry, "t") != 2:  # noqa: ASYNC110 - polls a public value
            await asyncio.sleep(0.01)
    watch.cancel()

    assert registry.problems == ()


async def test_reloads_are_counted_by_result(tmp_path: Path) -> None:
    """One count for each policy that went live, and one for each new problem, not for each look."""
    with measured() as found:
        path = put(tmp_path)
        registry = await live(tmp_path)
        path.write_text("name: a\n")
        untouched(path)
        await registry.reload()
        path.write_text("name: a\n\n")
        untouched(path)
        await registry.reload()
        put(tmp_path, version=2, on_undecided="block")
        await registry.reload()

        counted = [
            found.total(Metric.POLICY_RELOADS, moderation_policy_reload_result=result)
            for result in ("applied", "refused")
        ]
    assert counted == [2, 1]


async def test_a_reload_that_changed_something_names_everything_that_is_live(
    tmp_path: Path,
) -> None:
    """What did not change too: so that it can be kept warm in front of what was replaced."""
    told: list[list[tuple[str, int]]] = []

    async def reloaded(policies: Collection[Policy]) -> None:
        told.append(sorted((policy.name, policy.version) for policy in policies))

    put(tmp_path)
    put(tmp_path, "b.yaml", name="b", topics=["u"])
    registry = PolicyRegistry(tmp_path, reloaded=reloaded)
    registry.load()
    await registry.activate()
    assert not await registry.reload()
    put(tmp_path, version=2)
    assert await registry.reload()
    assert told == [[("a", 2), ("b", 1)]]


async def test_a_policy_that_changes_under_its_version_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Verdicts of two policies would carry one name and number: only the hash tells them apart."""
    put(tmp_path)
    registry = await live(tmp_path)
    put(tmp_path, version=2)
    await registry.reload()
    assert "under version" not in caplog.text
    put(tmp_path, version=2, on_undecided="block")
    await registry.reload()
    assert "policy a changed under version 2" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "b", "version": 1, "owner": "x", "topics": ["u"], "description": "\\ud83d"}',
        'name: b\nversion: 1\nowner: x\ntopics: [u]\nexamples: [{text: "\\ud83d", expect: safe}]\n',
        "\x00\x01",
        "a: &a [*a]\n",
    ],
)
async def test_one_bad_file_is_one_problem_and_stops_no_other(tmp_path: Path, text: str) -> None:
    """Whatever is wrong with it, other policies go on changing."""
    put(tmp_path)
    registry = await live(tmp_path)
    (tmp_path / "b.yaml").write_text(text)
    untouched(tmp_path / "b.yaml")
    put(tmp_path, version=2)
    assert await registry.reload()
    assert version_of(registry, "t") == 2
    assert {problem.file for problem in registry.problems} == {str(tmp_path / "b.yaml")}


async def test_any_error_of_one_policys_examples_stays_with_it(tmp_path: Path) -> None:
    """A bug that one of them meets must not keep the others from changing."""
    put(tmp_path)
    put(tmp_path, "b.yaml", name="b", topics=["u"])

    async def check(policy: Policy) -> Sequence[ExampleResult]:
        if policy.name == "b" and policy.version == 2:
            raise ZeroDivisionError
        return ()

    registry = await live(tmp_path, check)
    put(tmp_path, version=2)
    put(tmp_path, "b.yaml", name="b", topics=["u"], version=2, on_undecided="block")
    assert await registry.reload()
    assert (version_of(registry, "t"), version_of(registry, "u")) == (2, 1)
    assert "ZeroDivisionError" in str(registry.problems[0])


def test_an_emoji_written_as_json_does_is_one_character() -> None:
    """Two halves in the file, one character in the policy."""
    text = policy_yaml(description="x").replace("description: x", 'description: "\\ud83d\\ude00"')
    assert parse_policy(text).description == "\U0001f600"


@pytest.mark.parametrize("outcome", ["undecided", "shed"])
async def test_an_example_that_met_a_passing_fault_is_asked_again(
    tmp_path: Path, outcome: str
) -> None:
    """A time-out, a trace that was shed, an image that was mended since: not for ever."""
    put(tmp_path, examples=HOLDS)
    asked: list[int] = []

    async def check(policy: Policy) -> Sequence[ExampleResult]:
        asked.append(1)
        if len(asked) < 3:
            return await check_examples(policy, at_fault, checkpoint=None)
        return await check_examples(policy, right, checkpoint=None)

    async def at_fault(policy: Policy, example: Example) -> ExampleOutcome:
        if outcome == "undecided":
            raise Undecided(UndecidedReason.JUDGE_TIMEOUT)
        return ExampleOutcome(outcome="safe", shed="overload")

    async def right(policy: Policy, example: Example) -> ExampleOutcome:
        return ExampleOutcome(outcome=example.expect)

    registry = await live(tmp_path, check)
    assert registry.unready_topics() == ("t",)
    looks = 0
    while registry.unready_topics():
        await registry.reload()
        looks += 1
        assert looks < 10
    assert (len(asked), registry.problems) == (3, ())


async def test_a_policy_none_of_whose_examples_ran_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was shown about it: whoever reads the log should know."""
    example = {"text": "x", "expect": "safe", "checkpoint": "nemotron-3.5-content-safety"}
    put(tmp_path, examples=[example])

    async def right(policy: Policy, example: Example) -> ExampleOutcome:
        return ExampleOutcome(outcome="safe")

    async def under(name: str) -> str:
        async def check(policy: Policy) -> Sequence[ExampleResult]:
            return await check_examples(policy, right, checkpoint=name)

        caplog.clear()
        await live(tmp_path, check)
        return caplog.text

    assert "none of its 1 examples was run" in await under("models")
    for name in ("nvidia/Nemotron-3.5-Content-Safety", "nemotron-3.5-content-safety/"):
        assert "examples was run" not in await under(name)


async def test_a_candidate_whose_examples_fail_is_not_replaced_by_the_live_policy(
    tmp_path: Path,
) -> None:
    """A copy of the live policy in its place would be judged in the shadow for nothing."""
    put(tmp_path, examples=HOLDS, candidate={"version": 2, "file": "next.yaml"})
    put(tmp_path, "next.yaml", version=2, examples=FAILS)
    registry = await live(tmp_path, WordCheck())
    policy = registry.select("t")
    assert policy is not None
    assert registry.candidate(policy) is None
    assert any("next.yaml" in str(problem) for problem in registry.problems)


async def test_another_adapter_under_the_same_path_is_another_policy(tmp_path: Path) -> None:
    """The hash follows the adapter's bytes, and a change of them is noticed."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "adapter_config.json").write_text("{}")
    put(tmp_path, adapter="own")
    registry = await live(tmp_path)
    before = registry.select("t")
    (own / "adapter_config.json").write_text("[]")
    looks = 0
    while not await registry.reload():
        looks += 1
        assert looks < 3
    after = registry.select("t")
    assert before is not None
    assert after is not None
    assert before.sha256 != after.sha256
