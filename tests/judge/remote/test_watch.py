"""A server that is changed under its name is noticed: nothing is judged in the old one's name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from tests.support.guards import TableWriter, played
from tests.support.openai_server import Body, Fault, OpenAIServer
from worker.clock import ManualClock
from worker.errors import DependencyUnavailable
from worker.guard.nemotron35 import NEMOTRON35, reference_prompt
from worker.judge.remote.judge import RemoteJudge
from worker.judge.remote.server import CHANGED_RETRY_S, CHECK_EVERY_S
from worker.judgement import JudgeRequest
from worker.policy.passes import builtin_rubric

Serve = Callable[..., Awaitable[OpenAIServer]]
JudgeOf = Callable[..., Awaitable[RemoteJudge]]
REQUEST = JudgeRequest(user="bread", response=None, rubric=builtin_rubric(()))


class Prompts:
    """A chat template that can be exchanged while the server runs."""

    def __init__(self) -> None:
        self.changed = self.deaf = False

    def __call__(self, messages: Sequence[Body], kwargs: Mapping[str, Any]) -> str:
        own = {} if self.deaf else kwargs
        response = messages[1]["content"] if len(messages) > 1 else None
        text = reference_prompt(messages[0]["content"], response, **own)
        return text.replace("Safety Categories", "Categories") if self.changed else text


@pytest.fixture
def prompts() -> Prompts:
    return Prompts()


@pytest.fixture
async def server(serve: Serve, prompts: Prompts) -> OpenAIServer:
    return await serve(TableWriter(played(NEMOTRON35), prompts))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def judge(judge_of: JudgeOf, server: OpenAIServer, clock: ManualClock) -> RemoteJudge:
    return await judge_of(server, clock=clock, timeout_s=20.0)


async def paused(judge: RemoteJudge) -> str:
    with pytest.raises(DependencyUnavailable) as caught:
        await judge.judge(REQUEST)
    return str(caught.value)


async def test_every_answer_is_of_the_model_and_the_build_of_the_start(
    server: OpenAIServer, judge: RemoteJudge
) -> None:
    """The very answer that names another model makes no verdict, and none after it does."""
    assert (await judge.judge(REQUEST)).user.label == "safe"
    server.calls_itself = "gpt-4o-mini"
    assert "restart the worker" in await paused(judge)
    sent = len(server.requests)
    assert "restart the worker" in await paused(judge)
    assert len(server.requests) == sent


async def test_another_build_under_the_same_name_pauses(
    server: OpenAIServer, judge: RemoteJudge
) -> None:
    server.fingerprint = "another"
    assert "system_fingerprint" in await paused(judge)


async def test_the_old_server_brought_back_is_judged_with_again(
    server: OpenAIServer, judge: RemoteJudge, clock: ManualClock
) -> None:
    """A pause ends by itself where the mistake is undone."""
    server.fingerprint = "another"
    await paused(judge)
    clock.advance(CHANGED_RETRY_S)
    await paused(judge)
    server.fingerprint = None
    clock.advance(CHANGED_RETRY_S)
    assert (await judge.judge(REQUEST)).user.label == "safe"


async def restart(server: OpenAIServer, judge: RemoteJudge, clock: ManualClock) -> None:
    """The server goes away while an event is asked about, and comes back."""
    await server.close()
    await paused(judge)
    await server.open()
    clock.advance(60.0)  # past the breaker's cooldown


async def test_after_an_outage_the_checks_of_the_start_come_before_the_first_verdict(
    server: OpenAIServer, judge: RemoteJudge, clock: ManualClock, prompts: Prompts
) -> None:
    """A server that came back with a template that ignores policies judges nothing."""
    await restart(server, judge, clock)
    assert (await judge.judge(REQUEST)).user.label == "safe"
    await server.close()
    await paused(judge)
    prompts.deaf = True
    await server.open()
    clock.advance(60.0)
    assert "no effect" in await paused(judge)


@pytest.mark.parametrize("what", ["template", "version", "models"])
async def test_what_came_back_changed_after_an_outage_pauses(
    server: OpenAIServer, judge: RemoteJudge, clock: ManualClock, prompts: Prompts, what: str
) -> None:
    await server.close()
    await paused(judge)
    if what == "template":
        prompts.changed = True
    elif what == "version":
        server.version = "9.9"
    else:
        server.names = ("another",)
    await server.open()
    clock.advance(60.0)
    await paused(judge)


async def test_the_checks_are_repeated_every_few_minutes(
    server: OpenAIServer, judge: RemoteJudge, clock: ManualClock
) -> None:
    """Beside the events, so that none waits; a difference pauses those that follow."""
    server.version = "9.9"
    assert (await judge.judge(REQUEST)).user.label == "safe"
    clock.advance(CHECK_EVERY_S)
    assert (await judge.judge(REQUEST)).user.label == "safe"

    async def until_paused() -> None:
        while True:
            await judge.judge(REQUEST)
            await asyncio.sleep(0.01)

    with pytest.raises(DependencyUnavailable, match="software"):
        async with asyncio.timeout(20.0):
            await until_paused()


async def test_after_a_long_silence_the_checks_come_first(
    server: OpenAIServer, judge: RemoteJudge, clock: ManualClock
) -> None:
    """Nobody asked for an hour: what answers now may be another server."""
    server.version = "9.9"
    clock.advance(3_600.0)
    assert "software" in await paused(judge)


async def test_a_check_that_fails_for_the_moment_is_no_difference(
    server: OpenAIServer, judge: RemoteJudge, clock: ManualClock
) -> None:
    """A server that is busy while it is looked at has not become another one."""
    clock.advance(3_600.0)
    server.faults["How do I bake"] = Fault(status=503)
    assert "restart" not in await paused(judge)
    server.faults.clear()
    clock.advance(60.0)
    assert (await judge.judge(REQUEST)).user.label == "safe"
