"""Promises of the registry: what is live, what stays live, and what is said about it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import NumberDataPoint

from tests.support.policies import policy_yaml, write_policy
from worker.errors import ConfigurationError, DependencyUnavailable, PolicyError
from worker.policy.checks import ExampleOutcome, ExampleResult, check_examples
from worker.policy.model import Example, Policy
from worker.policy.registry import PolicyRegistry
from worker.telemetry.instruments import policy_reloads
from worker.telemetry.names import Attribute


class WordCheck:
    """Runs examples on a judge that calls ``bad`` unsafe; counts policies, can be away."""

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.away = False
        self.error: Exception = DependencyUnavailable("judge")
        self.turned_away = asyncio.Event()

    async def __call__(self, policy: Policy) -> Sequence[ExampleResult]:
        if self.away:
            self.turned_away.set()
            raise self.error
        self.checked.append(policy.name)
        return await check_examples(policy, self._judge, checkpoint=None)

    async def _judge(self, policy: Policy, example: Example) -> ExampleOutcome:
        return ExampleOutcome(outcome="unsafe" if "bad" in example.text else "safe")


HOLDS = [{"text": "bad", "expect": "unsafe"}]
FAILS = [{"text": "good", "expect": "unsafe"}]


async def live(directory: Path, check: WordCheck | None = None) -> PolicyRegistry:
    registry = PolicyRegistry(directory, check=check)
    registry.load()
    await registry.activate()
    return registry


def put(directory: Path, file: str = "a.yaml", **fields: Any) -> Path:
    fields = {"name": "a", "topics": ["t"], **fields}
    return write_policy(directory, file, **fields)


def version_of(registry: PolicyRegistry, topic: str) -> int | None:
    policy = registry.select(topic)
    return None if policy is None else policy.version


async def test_a_topic_has_the_policy_that_binds_it(tmp_path: Path) -> None:
    """Topic to policy, and nothing for other topics."""
    put(tmp_path, topics=["t", "u"])
    put(tmp_path, "b.yaml", name="b", topics=["v"])
    (tmp_path / "notes.txt").write_text("not a policy")

    registry = await live(tmp_path)

    named = {topic: registry.snapshot.by_topic[topic].name for topic in registry.topics()}
    assert named == {"t": "a", "u": "a", "v": "b"}
    assert registry.select("w") is None
    assert (registry.problems, registry.unready_topics()) == ((), ())


async def test_nothing_is_live_before_it_is_activated(tmp_path: Path) -> None:
    """Topics are known for subscribing, and unready until the examples ran."""
    put(tmp_path)
    registry = PolicyRegistry(tmp_path)
    registry.load()

    assert registry.topics() == registry.unready_topics() == ("t",)
    assert registry.select("t") is None


def test_a_bad_file_is_refused_at_start(tmp_path: Path) -> None:
    """A worker does not start on half of its policies."""
    put(tmp_path)
    put(tmp_path, "b.yaml", name="b", version=0)
    put(tmp_path, "c.yaml", name="c", owner=None)

    with pytest.raises(PolicyError) as caught:
        PolicyRegistry(tmp_path).load()

    assert len(caught.value.problems) == 2


def test_two_policies_on_one_topic_are_refused_and_both_named(tmp_path: Path) -> None:
    """Nobody has to guess which of the two judged an event."""
    put(tmp_path)
    put(tmp_path, "b.yaml", name="b")

    with pytest.raises(PolicyError, match=r"b\.yaml.*`t` is bound by .*a\.yaml"):
        PolicyRegistry(tmp_path).load()


def test_two_policies_of_one_name_are_refused(tmp_path: Path) -> None:
    """Names stand in verdicts and metrics."""
    put(tmp_path)
    put(tmp_path, "b.yaml", topics=["u"])

    with pytest.raises(PolicyError, match=r"`a` is the name of .*a\.yaml too"):
        PolicyRegistry(tmp_path).load()


def test_an_input_topic_without_a_policy_is_refused(tmp_path: Path) -> None:
    """The error names the topic and where to add it."""
    put(tmp_path)
    registry = PolicyRegistry(tmp_path)
    registry.load()

    registry.require(["t"])
    with pytest.raises(ConfigurationError, match="no policy for input topic u"):
        registry.require(["t", "u"])


def test_a_policy_on_an_output_topic_is_refused(tmp_path: Path) -> None:
    """Verdicts must not be judged again."""
    put(tmp_path)
    registry = PolicyRegistry(tmp_path)
    registry.load()

    with pytest.raises(ConfigurationError, match="cannot be an input"):
        registry.require(outputs=["t"])


def test_a_directory_that_binds_nothing_is_refused(tmp_path: Path) -> None:
    """A worker without topics would look healthy and do nothing."""
    registry = PolicyRegistry(tmp_path)
    registry.load()

    with pytest.raises(ConfigurationError, match="bound to a topic"):
        registry.require()


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The error names the setting."""
    with pytest.raises(PolicyError, match=r"policies\.directory"):
        PolicyRegistry(tmp_path / "none").load()


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


async def test_a_snapshot_taken_earlier_does_not_change(tmp_path: Path) -> None:
    """Work in flight keeps the policy it began with."""
    put(tmp_path)
    registry = await live(tmp_path)
    before = registry.snapshot
    put(tmp_path, version=2)
    await registry.reload()

    assert before.by_topic["t"].version == 1
    with pytest.raises(TypeError):
        before.by_topic["t"] = before.by_topic["t"]  # type: ignore[index]


async def test_a_candidate_is_no_live_policy(tmp_path: Path) -> None:
    """The next version lies beside the present one and binds nothing."""
    put(tmp_path, candidate={"version": 2, "file": "a-v2.yaml"})
    put(tmp_path, "a-v2.yaml", version=2)

    registry = await live(tmp_path)

    assert version_of(registry, "t") == 1
    assert registry.snapshot.candidates["a"].version == 2


@pytest.mark.parametrize(
    ("candidate", "fields", "problem"),
    [
        ({"version": 2, "file": "none.yaml"}, {}, "not a valid policy of this directory"),
        ({"version": 1, "file": "a.yaml"}, {}, "its own candidate"),
        ({"version": 3, "file": "b.yaml"}, {}, "is version 2, not 3"),
        ({"version": 2, "file": "b.yaml"}, {"name": "b"}, "is a version of `b`"),
    ],
)
def test_a_candidate_that_does_not_fit_is_refused(
    tmp_path: Path, candidate: dict[str, Any], fields: dict[str, Any], problem: str
) -> None:
    """A shadow that compares the wrong thing would mislead."""
    put(tmp_path, candidate=candidate)
    put(tmp_path, "b.yaml", version=2, **fields)

    with pytest.raises(PolicyError, match=problem):
        PolicyRegistry(tmp_path).load()


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


def reloads(result: str) -> float:
    points = policy_reloads.read(0).data_points
    return sum(
        point.value
        for point in points
        if isinstance(point, NumberDataPoint)
        and (point.attributes or {}).get(Attribute.RELOAD_RESULT) == result
    )


async def test_reloads_are_counted_by_result(tmp_path: Path) -> None:
    """One count for each policy that went live, and one for each new problem, not for each look."""
    applied, refused = reloads("applied"), reloads("refused")
    path = put(tmp_path)
    registry = await live(tmp_path)
    path.write_text("name: a\n")
    await registry.reload()
    path.write_text("name: a\n\n")
    await registry.reload()
    put(tmp_path, version=2, on_undecided="block")
    await registry.reload()

    assert (reloads("applied") - applied, reloads("refused") - refused) == (2, 1)


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
