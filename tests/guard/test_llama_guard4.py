"""Llama Guard 4 where it differs from other families: codes, two prompts, numbered categories."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from tests.support import llama_guard
from tests.support.guards import Answers, TableWriter, played, text_of
from tests.support.openai_server import Body, OpenAIServer
from tests.support.policies import policy_yaml
from tests.support.remote_judges import remote_settings
from worker.errors import ConfigurationError, PolicyError, Undecided
from worker.guard.llama_guard4 import FLOOR, LLAMA_GUARD4
from worker.judge.remote.judge import RemoteJudge
from worker.judgement import JudgeRequest, Rubric
from worker.policy.parse import parse_policy
from worker.policy.passes import builtin_rubric, passes
from worker.settings import load_settings

NAME = "meta-llama/Llama-Guard-4-12B"
STOCK = builtin_rubric((), LLAMA_GUARD4)


def own_rubric(*names: str) -> Rubric:
    taxonomy = [{"name": name} for name in names]
    fields = {"builtin": {"enabled": False}, "custom": {"taxonomy": taxonomy}}
    return passes(parse_policy(policy_yaml(**fields), guard=LLAMA_GUARD4))[0].rubric


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[list[Any]]:
    things: list[Any] = []
    yield things
    for each in things:
        await (each.stop() if isinstance(each, RemoteJudge) else each.close())


async def serve(
    opened: list[Any], answers: Answers, prompt: Any = llama_guard.prompt
) -> OpenAIServer:
    server = OpenAIServer(TableWriter(answers, prompt), names=(NAME,))
    await server.open()
    opened.append(server)
    return server


async def judge_of(opened: list[Any], server: OpenAIServer, **remote: Any) -> RemoteJudge:
    fields = {"model": NAME, "timeout_s": 20.0} | remote
    judge = RemoteJudge(remote_settings(server, **fields))
    opened.append(judge)
    await judge.start()
    server.requests.clear()
    return judge


@pytest.mark.parametrize(
    ("line", "rubric", "names"),
    [
        ("S1", STOCK, ("Violent Crimes",)),
        ("S10", STOCK, ("Hate",)),
        ("S1,S10,S14", STOCK, ("Violent Crimes", "Hate", "Code Interpreter Abuse")),
        ("s4, S4", STOCK, (FLOOR,)),
        ("S15", STOCK, ("S15",)),
        ("S15,S16", own_rubric("Secrets", "Rumours"), ("Secrets", "Rumours")),
        ("S4,S1", own_rubric("Privacy"), (FLOOR, "Violent Crimes")),
        ("S15", own_rubric("Privacy"), ("Privacy",)),
    ],
)
def test_a_code_is_the_category_that_the_prompt_numbered_so(
    line: str, rubric: Rubric, names: tuple[str, ...]
) -> None:
    """``S1`` begins ``S10``, and a policy's own categories are counted from S15 on."""
    answer = LLAMA_GUARD4.parse(f"\n\nunsafe\n{line}", ("user",), rubric)
    assert answer.categories == names


@pytest.mark.parametrize(
    "text",
    [
        "unsafe\nViolent Crimes",
        "unsafe\nS1\nS2",
        "unsafe S1",
        "unsafe\nS",
        "unsafe\nS0",
        "safe\nS1",
    ],
)
def test_a_line_that_is_not_of_codes_is_malformed(text: str) -> None:
    with pytest.raises(Undecided):
        LLAMA_GUARD4.parse(text, ("user",), STOCK)


def test_its_own_categories_stay_clear_of_the_floors_code() -> None:
    """S40 would begin like S4, the floor: 25 of a policy's own are numbered up to S39."""
    text = own_rubric(*(f"Number {number}" for number in range(25))).text or ""
    assert text.split("\n")[-1].startswith("S39: ")
    with pytest.raises(PolicyError, match="at most 25"):
        own_rubric(*(f"Number {number}" for number in range(26)))


async def test_a_response_is_a_prompt_of_its_own(opened: list[Any]) -> None:
    """The user's turn is labelled without the response beside it, as the model was trained."""
    server = await serve(opened, played(LLAMA_GUARD4))
    judge = await judge_of(opened, server)
    earlier = (("assistant", "welcome"), ("user", "hi"), ("system", "be kind"))
    request = JudgeRequest(
        user="bread", response="a grenade", earlier=earlier, rubric=STOCK, adapter=None
    )
    judged = await judge.judge(request)
    assert len(server.requests) == 2
    turns = sorted(
        ([text_of(each) for each in body["messages"]] for body in server.requests), key=len
    )
    assert turns[0][-1] == "bread"
    assert turns[1] == [*turns[0], "a grenade"]
    assert judged.response is not None
    assert (judged.user.label, judged.response.label) == ("safe", "unsafe")
    assert judged.context.included == 3


async def test_suppressed_and_own_categories_go_through_the_templates_switches(
    opened: list[Any],
) -> None:
    server = await serve(opened, played(LLAMA_GUARD4))
    judge = await judge_of(opened, server)
    for rubric in (builtin_rubric(("Elections", "Privacy"), LLAMA_GUARD4), own_rubric("Secrets")):
        await judge.judge(JudgeRequest(user="bread", response=None, rubric=rubric))
    assert [body["chat_template_kwargs"] for body in server.requests] == [
        {"excluded_category_keys": ["S7", "S13"]},
        {"categories": {"S4": f"{FLOOR}.", "S15": "Secrets."}},
    ]


async def test_a_code_scores_what_it_has_where_it_ends(opened: list[Any]) -> None:
    """``S1`` was written with 0.9, and went on to ``S10`` with 0.6 of that: it has the rest."""

    def answers(body: Body) -> Mapping[str, float]:
        if "the case" not in text_of(body["messages"][-1]):
            return {"safe": 0.99, "unsafe": 0.01}
        return {"safe": 0.1, "unsafe\nS1": 0.55, "unsafe\nS10": 0.35}

    judge = await judge_of(opened, await serve(opened, answers))
    judged = await judge.judge(JudgeRequest(user="the case", response=None, rubric=STOCK))
    (named,) = judged.categories
    assert named.name == "Violent Crimes"
    assert named.score == pytest.approx(0.55 / 0.9, abs=0.02)
    assert not math.isnan(judged.floor_score)


async def test_a_template_without_a_switch_refuses_the_policies_that_need_it(
    opened: list[Any],
) -> None:
    """Custom categories are probed at start: a policy of them does not go live, others do."""

    def fixed(messages: Any, kwargs: Mapping[str, Any]) -> str:
        own = {key: value for key, value in kwargs.items() if key != "categories"}
        return llama_guard.prompt(messages, own)

    judge = await judge_of(opened, await serve(opened, played(LLAMA_GUARD4), fixed))
    await judge.prepare(STOCK)
    await judge.prepare(builtin_rubric(("Elections",), LLAMA_GUARD4))
    with pytest.raises(ConfigurationError, match="categories"):
        await judge.prepare(own_rubric("Secrets"))


async def test_a_template_whose_floor_is_another_category_is_refused(opened: list[Any]) -> None:
    """Its codes were numbered otherwise: what breaks the floor would be called something else."""

    def shifted(messages: Any, kwargs: Mapping[str, Any]) -> str:
        return llama_guard.prompt(messages, kwargs).replace("S4: ", "S5: ")

    server = await serve(opened, played(LLAMA_GUARD4), shifted)
    with pytest.raises(ConfigurationError, match="S4 is not"):
        await judge_of(opened, server)


async def test_a_server_of_another_family_than_policies_were_checked_for_is_refused(
    opened: list[Any],
) -> None:
    """With ``family: auto`` and no name in the settings only the server can tell, at start."""
    server = await serve(opened, played(LLAMA_GUARD4))
    with pytest.raises(ConfigurationError, match=r"judge\.family: .*llama-guard-4"):
        await judge_of(opened, server, model=None)


def test_settings_say_which_family_judges() -> None:
    """By name, or by the served model's; what runs on a server only is refused locally."""
    remote = {"base_url": "http://guard/v1"}
    named = load_settings(judge={"backend": "remote", "remote": remote | {"model": NAME}})
    assert named.judge.guard is LLAMA_GUARD4
    family = {"backend": "remote", "family": "llama-guard-4", "remote": remote}
    assert load_settings(judge=family).judge.guard is LLAMA_GUARD4
    for local in ({"family": "llama-guard-4"}, {"model": NAME}):
        with pytest.raises(ConfigurationError, match=r"judge\.family"):
            load_settings(judge=local)
