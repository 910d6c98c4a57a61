"""A server that cannot judge is found out at start, with the setting to change."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.openai_server import Body, Fault, OpenAIServer, Written
from tests.support.openai_writers import CheckpointWriter, ScriptWriter, script, token
from tests.support.remote_judges import remote_settings
from worker.contracts.verdict import ModelRef
from worker.errors import ConfigurationError, DependencyUnavailable
from worker.guard.nemotron35 import NEMOTRON35
from worker.judge.cache import CachingJudge
from worker.judge.factory import open_judge
from worker.judge.identity import template_digest
from worker.judge.remote.judge import RemoteJudge
from worker.settings import load_settings

Serve = Callable[..., Awaitable[OpenAIServer]]
JudgeOf = Callable[..., Awaitable[RemoteJudge]]


def safe(_: Body) -> Written:
    return script(token("User Safety:"), token(" safe", 0.98, {" unsafe": 0.01}))


async def refusal(server: OpenAIServer, **remote: object) -> str:
    judge = RemoteJudge(remote_settings(server, **remote))
    with pytest.raises(ConfigurationError) as caught:
        await judge.start()
    return str(caught.value)


class Deaf(ScriptWriter):
    """Renders one prompt, whatever the switches say."""

    def write(self, body: Body) -> Written:
        return super().write(body | {"chat_template_kwargs": {}})


async def test_a_server_that_ignores_the_policy_is_refused(serve: Serve) -> None:
    """It would judge every policy by the stock taxonomy, and nobody would notice."""
    assert "chat_template_kwargs" in await refusal(await serve(Deaf(safe)))


def _without_usage(body: Body) -> None:
    body.pop("usage")


def _without_logprobs(body: Body) -> None:
    body["choices"][0]["logprobs"] = None


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (Fault(change=_without_usage), "usage.prompt_tokens"),
        (Fault(change=_without_logprobs), "no logprobs"),
        (Fault(status=400, message="top_logprobs must be at most 5"), "top_logprobs"),
        (Fault(status=401), "api_key_file"),
        (Fault(status=404), "base_url"),
        (Fault(raw=b"<html>"), "base_url"),
    ],
)
async def test_a_server_that_cannot_give_scores_is_refused(
    serve: Serve, fault: Fault, named: str
) -> None:
    server = await serve(ScriptWriter(safe))
    server.faults[""] = fault
    assert named in await refusal(server)


async def test_a_chat_model_is_refused(serve: Serve) -> None:
    server = await serve(ScriptWriter(lambda _: script(token("Here is a recipe."))))
    assert "content safety checkpoint" in await refusal(server)


async def test_the_model_must_be_served_and_be_the_one_that_is_meant(serve: Serve) -> None:
    server = await serve(ScriptWriter(safe), names=("one", "two"))
    assert "judge.remote.model" in await refusal(server)
    assert "one, two" in await refusal(server, model="three")


async def test_an_address_without_an_api_is_refused(serve: Serve) -> None:
    server = await serve(ScriptWriter(safe))
    assert "/v1" in await refusal(server, base_url=server.url.removesuffix("/v1"))


async def test_a_wrong_key_is_refused_and_never_shown(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the error, not in a log line, not in the settings' own text."""
    server = await serve(ScriptWriter(safe))
    server.key = "right"
    caplog.set_level(logging.DEBUG)
    said = await refusal(server, api_key="wrong-secret")
    settings = remote_settings(server, api_key="wrong-secret")
    assert "api_key_file" in said
    assert "wrong-secret" not in said + caplog.text + repr(settings) + settings.model_dump_json()


async def test_a_server_that_is_still_loading_is_waited_for(serve: Serve) -> None:
    """A model takes minutes to load; a worker that starts beside it is no reason for a restart."""
    server = await serve(ScriptWriter(safe))
    await server.close()
    judge = RemoteJudge(remote_settings(server, start_timeout_s=30.0))
    starting = asyncio.ensure_future(judge.start())
    await asyncio.sleep(0)
    await server.open()
    await starting
    assert judge.model().id == "tiny"
    await judge.stop()


async def test_a_server_that_never_comes_is_an_outage(serve: Serve) -> None:
    server = await serve(ScriptWriter(safe))
    await server.close()
    with pytest.raises(DependencyUnavailable):
        await RemoteJudge(remote_settings(server)).start()


async def test_what_nobody_can_know_of_the_model_is_said(serve: Serve, judge_of: JudgeOf) -> None:
    """The API tells a name and a version; the commit is the operator's word, or ``unstated``."""
    ref = (await judge_of(await serve(ScriptWriter(safe)))).model()
    assert ref == ModelRef(
        id="tiny",
        revision="unstated",
        adapter=None,
        template_sha256=template_digest("", NEMOTRON35),
        numerics="remote/0.0.test",
    )


async def test_a_copy_of_the_template_gives_its_digest(
    serve: Serve, judge_of: JudgeOf, tmp_path: Path
) -> None:
    file = tmp_path / "chat_template.jinja"
    file.write_text("{{ messages }}")
    judge = await judge_of(await serve(ScriptWriter(safe)), chat_template=str(file))
    assert judge.model().template_sha256 == template_digest("{{ messages }}", NEMOTRON35)


@pytest.mark.model
async def test_the_servers_template_is_checked_where_it_shows_its_prompts(
    serve: Serve, judge_of: JudgeOf, tiny_writer: CheckpointWriter
) -> None:
    """vLLM's /tokenize renders prompts: a template without a switch is refused, as a local one."""
    judge = await judge_of(await serve(tiny_writer), timeout_s=30.0)
    assert judge.model().template_sha256 != template_digest("", NEMOTRON35)

    class WithoutThink(ScriptWriter):
        def prompt(self, messages: Any, kwargs: Any) -> list[int]:
            return super().prompt(messages, {k: v for k, v in kwargs.items() if k[:6] != "enable"})

    server = await serve(WithoutThink(safe, like=tiny_writer))
    assert "enable_thinking" in await refusal(server)


def test_settings_that_cannot_work_name_what_to_change() -> None:
    for remote, named in (
        ({}, "judge.remote.base_url"),
        ({"base_url": "vllm:8000"}, "http://"),
        ({"base_url": "http://user:secret@vllm/v1"}, "api_key_file"),
        ({"base_url": "http://vllm/v1", "timeout_s": 60}, "batch_deadline_s"),
        ({"base_url": "http://vllm/v1", "api_key": "a", "api_key_file": "b"}, "not both"),
        ({"base_url": "http://vllm/v1", "template_kwargs": {"custom_policy": "x"}}, "policy"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load_settings(judge={"backend": "remote", "remote": remote})
        assert named in str(caught.value)
        assert "secret" not in str(caught.value)


async def test_the_factory_opens_it(serve: Serve) -> None:
    settings = remote_settings(await serve(ScriptWriter(safe)))
    judge = open_judge(settings)
    assert isinstance(judge, CachingJudge)
    await judge.start()
    assert judge.model().id == "tiny"
    await judge.stop()


def test_the_remote_judge_loads_no_model_library() -> None:
    """A worker that only asks a server needs no torch in its image."""
    code = (
        "import sys, worker.judge.remote.judge; "
        "print([n for n in ('torch', 'transformers', 'peft', 'safetensors') if n in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
