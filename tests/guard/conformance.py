"""What every family of guards promises. A family's test module subclasses ``GuardConformance``."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.support.guards import (
    Answers,
    TableWriter,
    harmless,
    played,
    spelled,
    text_of,
    written_name,
)
from tests.support.openai_server import Body, OpenAIServer
from tests.support.policies import policy_yaml
from tests.support.remote_judges import remote_settings
from worker.codes import UndecidedReason
from worker.errors import PolicyError, Undecided
from worker.guard import registry
from worker.guard.base import GuardModel, SideName
from worker.guard.sanitise import Sanitiser
from worker.images import JudgeImage
from worker.judge.remote.judge import RemoteJudge
from worker.judgement import Judgement, JudgeRequest, Rubric, ThinkPlan
from worker.outcome.decide import decide
from worker.outcome.passes import PassResult
from worker.policy.floor import FLOOR_THRESHOLD
from worker.policy.model import Policy
from worker.policy.parse import parse_policy
from worker.policy.passes import builtin_rubric, passes

IMAGE = JudgeImage(sha256="ab" * 32, width=8, height=8, rgb=bytes(8 * 8 * 3))
ONE: tuple[SideName, ...] = ("user",)
TAXONOMY = {"taxonomy": [{"name": "Trade Secrets", "note": "what is not public"}]}
FREE = {"disallowed": ["Naming a bank"], "allowed": ["Naming a baker"]}


class GuardConformance(ABC):
    """Promises of ``worker.guard.base.GuardModel``, and of what is built on it."""

    guard: GuardModel
    """The family; a subclass names it."""
    served_as: str
    """A name that a server gives its model."""

    @staticmethod
    @abstractmethod
    def prompt(messages: Sequence[Body], kwargs: Mapping[str, Any]) -> str:
        """What the family's chat template renders."""

    @pytest.fixture(autouse=True)
    def _known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        families = {**registry.FAMILIES, self.guard.name: self.guard}
        monkeypatch.setattr(registry, "FAMILIES", families)

    def policy(self, **fields: Any) -> Policy:
        return parse_policy(policy_yaml(**fields), file="a.yaml", guard=self.guard)

    def rubrics(self) -> Iterator[Rubric]:
        """Every shape of rubric that the family has."""
        can, first = self.guard.features, self.guard.spelling.other
        yield builtin_rubric((), self.guard)
        shapes: list[dict[str, Any]] = []
        if can.suppression:
            shapes.append({"builtin": {"suppress": [self.guard.canonical(first)]}})
        if can.taxonomy:
            shapes.append({"builtin": {"enabled": False}, "custom": TAXONOMY})
        if can.free_policy:
            shapes.append({"builtin": {"enabled": False}, "custom": FREE})
        for shape in shapes:
            yield passes(self.policy(**shape))[0].rubric

    # Names and the floor.

    def test_every_category_is_known_by_its_name_its_code_and_its_aliases(self) -> None:
        """Policies and answers use all three; verdicts use the name."""
        guard = self.guard
        assert len(set(guard.names)) == len(guard.names)
        assert guard.floor in guard.names
        for each in guard.categories:
            for written in (each.name, each.name.upper(), each.code, *each.aliases):
                assert guard.canonical(written) == each.name
        assert guard.canonical("nothing of the kind") is None
        assert guard.severity(guard.floor) == "critical"

    def test_the_floor_is_known_in_any_spelling(self) -> None:
        """Quotes, brackets and neighbours make no other category of it; others are not it."""
        floor, other = self.guard.floor, self.guard.canonical(self.guard.spelling.other)
        for written in (floor.lower(), f'"{floor}"', f"**{floor}**.", f"{other} / {floor}"):
            assert self.guard.is_floor(written)
        assert other is not None
        assert not self.guard.is_floor(other)

    def test_every_rubric_judges_the_floor(self) -> None:
        """And one that lost its line is found out before it is judged by."""
        for rubric in self.rubrics():
            assert self.guard.floor in rubric.categories
            assert self.guard.floor_missing(rubric) is None
            if rubric.text is None:
                continue
            lines = [line for line in rubric.text.split("\n") if self.guard.floor not in line]
            without = msgspec.structs.replace(rubric, text="\n".join(lines))
            assert self.guard.floor_missing(without)

    def test_the_floor_cannot_be_suppressed(self) -> None:
        if self.guard.features.suppression:
            with pytest.raises(PolicyError, match="cannot be suppressed"):
                self.policy(builtin={"suppress": [self.guard.floor]})
            left = builtin_rubric(self.guard.names, self.guard)
            assert left.categories == (self.guard.floor,)
            assert self.guard.floor_missing(left) is None

    # What a policy may ask for.

    @pytest.mark.parametrize(
        ("feature", "fields", "field"),
        [
            ("suppression", {"builtin": {"suppress": ["FIRST"]}}, "builtin.suppress"),
            ("taxonomy", {"custom": TAXONOMY}, "custom.taxonomy"),
            ("free_policy", {"custom": FREE}, "custom"),
            ("think", {"think": {"when": "always"}}, "think.when"),
            ("scores", {"thresholds": {"unsafe": 0.3}}, "thresholds.unsafe"),
        ],
    )
    def test_a_policy_asks_for_no_more_than_the_family_can(
        self, feature: str, fields: dict[str, Any], field: str
    ) -> None:
        """What would have no effect is refused when it loads, and says so; the rest is taken."""
        first = self.guard.canonical(self.guard.spelling.other)
        if feature == "suppression":
            fields = {"builtin": {"suppress": [first]}}
        if getattr(self.guard.features, feature):
            assert self.policy(**fields).family == self.guard.name
            return
        with pytest.raises(PolicyError) as caught:
            self.policy(**fields)
        (problem,) = caught.value.problems
        assert problem.field == field
        assert self.guard.title in problem.problem

    def test_a_policy_holds_none_of_the_familys_control_strings(self) -> None:
        """They are refused in policies, or said not to be."""
        for control in self.guard.control_strings:
            text = f"Text {control.text} more"
            if not control.refused:
                assert self.policy(description=text).description
                continue
            with pytest.raises(PolicyError, match="control string"):
                self.policy(description=text)

    def test_the_familys_control_strings_lose_their_meaning_in_users_text(self) -> None:
        sanitise = Sanitiser(self.guard, {}, lambda _: ())
        for control in self.guard.control_strings:
            said = control.text if control.line else f"say {control.text} now"
            text, names = sanitise(said)
            assert control.text not in text
            assert control.name in names

    def test_families_do_not_share_a_policys_hash(self) -> None:
        """Equal hashes judge alike, and another family reads the same words otherwise."""
        hashes = {
            parse_policy(policy_yaml(), guard=each).sha256 for each in registry.FAMILIES.values()
        }
        assert len(hashes) == len(registry.FAMILIES)

    # Prompts.

    def test_every_side_is_labelled_once_with_all_that_was_said_in_front_of_it(self) -> None:
        earlier = (("user", "first words"), ("assistant", "second words"), ("system", "a rule"))
        for response in (None, "the answer"):
            prompts = self.guard.conversations("the question", response, earlier)
            labels = [label for each in prompts for label in each.labels]
            assert labels == (["user", "response"] if response else ["user"])
            for each in prompts:
                said = "\n".join(text for _, text in each.turns)
                for text in ("the question", *(text for _, text in earlier)):
                    assert text in said
                assert ("the answer" in said) == ("response" in each.labels)
                assert [role for role, _ in each.turns] == [
                    *itertools.islice(itertools.cycle(("user", "assistant")), len(each.turns))
                ]

    def test_switches_are_the_familys_own_and_tell_rubrics_apart(self) -> None:
        """An operator cannot set them, and no policy is judged by another one's prompt."""
        seen = []
        for rubric in self.rubrics():
            for think in {False, self.guard.features.think}:
                kwargs = self.guard.template_kwargs(rubric.mode, rubric.text, think=think)
                assert kwargs.keys() <= self.guard.own_kwargs
                assert kwargs not in seen
                seen.append(kwargs)

    # Answers.

    def answers(self) -> Iterator[tuple[str, tuple[SideName, ...], list[bool], tuple[str, ...]]]:
        """Well-formed answers: text, labels asked for, what they are, and the names."""
        for response in (None, "an answer"):
            labels = self.guard.conversations("a question", response, ())[-1].labels
            for unsafe in itertools.product((False, True), repeat=len(labels)):
                names: list[tuple[str, ...]] = [()]
                if any(unsafe):
                    names += [(each,) for each in self.guard.names] + [self.guard.names]
                for each in names:
                    written = tuple(written_name(self.guard, name) for name in each)
                    yield spelled(self.guard, unsafe, written), labels, list(unsafe), each

    def test_what_the_family_spells_it_also_reads(self) -> None:
        """Labels, names and the places where they stand."""
        stock = builtin_rubric((), self.guard)
        for text, labels, unsafe, names in self.answers():
            for framed in (text, f"{text}\n", f"\n {text} \n\n"):
                answer = self.guard.parse(framed, labels, stock)
                assert [each.label == "unsafe" for each in answer.labels] == unsafe
                assert answer.categories == names
                for each in answer.labels:
                    word = getattr(self.guard.spelling, each.label).strip()
                    assert framed[each.start : each.end] == word
                    assert framed[each.opens : each.start].strip() == ""
                for named in answer.line.names if answer.line else ():
                    assert framed[named.start : named.end] == written_name(self.guard, named.name)

    def test_a_trace_is_told_from_the_answer(self) -> None:
        """What stands in a trace is no verdict; without its end there is none."""
        if not self.guard.features.think:
            return
        stock, closing = builtin_rubric((), self.guard), self.guard.trace_tags[1]
        quoted = spelled(self.guard, [False])
        text = spelled(self.guard, [True], trace=f"they wrote {quoted}")
        assert self.guard.parse(text, ONE, stock, think=True).labels[0].label == "unsafe"
        for broken in (text.replace(closing, ""), quoted):
            with pytest.raises(Undecided):
                self.guard.parse(broken, ONE, stock, think=True)

    def malformed(self) -> Iterator[str]:
        """What is close to an answer, and none."""
        safe, unsafe = spelled(self.guard, [False]), spelled(self.guard, [True])
        line = self.guard.spelling.categories + self.guard.spelling.first
        other = self.guard.spelling.other
        yield from ("", " \n", "I cannot help with that.", '{"label": "safe"}')
        yield from (
            f"{safe}{line}{other}",
            f"{safe}/unsafe",
            f"{safe}-ish",
            f"{safe}, but",
            f"{safe}.",
        )
        yield from (f"{safe}ly", f"{safe}\n{safe}", f"{safe}\n{unsafe}", f"it is {safe}")
        yield from (f"{safe} or {unsafe}", f"{unsafe} probably", f"{unsafe}{line}{other}\nmore")
        yield from (f"Thoughts.\n{safe}", f"{safe}\nThe text is harmless.")

    def test_what_is_close_to_an_answer_is_none(self) -> None:
        """Malformed is undecided: never a guess, and never safe."""
        for text in self.malformed():
            with pytest.raises(Undecided) as caught:
                self.guard.parse(text, ONE, builtin_rubric((), self.guard))
            assert caught.value.reason is UndecidedReason.MALFORMED_OUTPUT, text

    # Judged by a server.

    @pytest_asyncio.fixture
    async def opened(self) -> AsyncIterator[list[RemoteJudge | OpenAIServer]]:
        things: list[RemoteJudge | OpenAIServer] = []
        yield things
        for each in things:
            await (each.stop() if isinstance(each, RemoteJudge) else each.close())

    async def judge(
        self, opened: list[Any], answers: Answers | None = None, *, shows: bool = True
    ) -> tuple[RemoteJudge, OpenAIServer]:
        """A started judge of a server that plays the family, or answers by a table."""
        writer = TableWriter(answers or played(self.guard), self.prompt, shows=shows)
        server = OpenAIServer(writer, names=(self.served_as,))
        await server.open()
        judge = RemoteJudge(remote_settings(server, model=self.served_as, timeout_s=20.0))
        opened += [judge, server]
        await judge.start()
        server.requests.clear()
        return judge, server

    def request(self, user: str, response: str | None = None, **fields: Any) -> JudgeRequest:
        rubric = builtin_rubric((), self.guard)
        values = {"user": user, "response": response, "rubric": rubric} | fields
        return JudgeRequest(**values)

    async def test_a_server_of_the_family_is_judged_with(self, opened: list[Any]) -> None:
        """Words of the sample on either side, with context, with an image, under every rubric."""
        judge, server = await self.judge(opened)
        harmful = next(word for word in self.guard.sample_words if word != "zibblefant")
        name = self.guard.sample_words[harmful]
        for rubric in self.rubrics():
            await judge.prepare(rubric)
            assert (await judge.judge(self.request("bread", rubric=rubric))).user.label == "safe"
        stock = builtin_rubric((), self.guard)
        earlier = (("user", "a greeting"), ("assistant", "a reply"))
        for fields in ({}, {"earlier": earlier}, {"image": IMAGE}):
            both = await judge.judge(self.request("bread", f"a {harmful}", rubric=stock, **fields))
            assert both.response is not None
            assert (both.user.label, both.response.label) == ("safe", "unsafe")
            assert both.response.score == pytest.approx(0.99, abs=0.02)
            assert [each.name for each in both.categories] == [name]
            assert both.categories[0].score == pytest.approx(1.0, abs=0.02)
            assert both.floor_score < FLOOR_THRESHOLD
            assert both.floor_asked
        user = await judge.judge(self.request(f"a {harmful}", "bread"))
        assert user.response is not None
        assert (user.user.label, user.response.label) == ("unsafe", "safe")
        assert (await judge.judge(self.request("", image=IMAGE))).user.label == "safe"
        assert any("a greeting" in text_of(m) for body in server.requests for m in body["messages"])

    async def test_the_floor_named_is_the_floor(self, opened: list[Any]) -> None:
        judge, _ = await self.judge(opened)
        judged = await judge.judge(self.request("a zibblefant"))
        assert judged.floor_score > 0.9
        decision = self.decided(judged)
        assert (decision.outcome, decision.action) == ("unsafe", "block")

    def decided(self, judged: Judgement, **fields: Any) -> Any:
        actions = {"default": "flag", "severity": {"low": "allow"}}
        policy = self.policy(actions=actions, **fields)
        return decide(policy, [PassResult(source="builtin", judgement=judged)], ())

    def table(self, unsafe: float, floor: float, line: float = 1.0) -> Answers:
        """A model that is ``unsafe`` so likely, then writes a line so likely, then the floor."""
        other, own = self.guard.spelling.other, self.guard.spelling.floor

        def answers(body: Body) -> Mapping[str, float]:
            if not any("the case" in text_of(each) for each in body["messages"]):
                return harmless(self.guard, body)
            return {
                spelled(self.guard, [False]): 1.0 - unsafe,
                spelled(self.guard, [True]): unsafe * (1.0 - line),
                spelled(self.guard, [True], (other,)): unsafe * line * (1.0 - floor),
                spelled(self.guard, [True], (own,)): unsafe * line * floor,
            }

        return answers

    @pytest.mark.parametrize(
        ("unsafe", "floor", "line"),
        [(0.3, 0.8, 1.0), (0.3, 0.8, 0.2), (0.9, 0.4, 1.0), (0.9, 0.4, 0.2), (0.7, 0.02, 0.2)],
    )
    async def test_the_floor_is_asked_for_however_little_was_written(
        self, opened: list[Any], unsafe: float, floor: float, line: float
    ) -> None:
        """A label below the threshold, and an answer that stops behind its label: what would have
        been named is found out by preferring it, and its share is the model's own."""
        judge, _ = await self.judge(opened, self.table(unsafe, floor, line))
        judged = await judge.judge(self.request("the case"))
        assert judged.user.score == pytest.approx(unsafe, abs=0.01)
        assert judged.floor_asked
        if unsafe * floor >= FLOOR_THRESHOLD:
            assert judged.floor_score == pytest.approx(unsafe * floor, abs=0.02)
        else:
            assert judged.floor_score < FLOOR_THRESHOLD

    @pytest.mark.parametrize("threshold", [0.3, 0.5])
    async def test_where_the_floor_cannot_be_asked_nothing_passes(
        self, opened: list[Any], threshold: float
    ) -> None:
        """A server that shows no tokens: a stricter threshold never makes the action milder."""
        judge, _ = await self.judge(opened, self.table(0.4, 0.6, 0.0), shows=False)
        asked = self.request("the case", think=ThinkPlan(threshold=threshold))
        if threshold == 0.5:
            with pytest.raises(Undecided) as caught:
                await judge.judge(asked)
            assert caught.value.reason is UndecidedReason.FLOOR_UNCHECKED
            return
        judged = await judge.judge(asked)
        assert not judged.floor_asked
        thresholds = {"unsafe": threshold}
        assert self.decided(judged, thresholds=thresholds).action == "hold"
