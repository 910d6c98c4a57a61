"""The start of a remote judge: the server is waited for, asked what it is, and tried."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from worker.clock import Clock
from worker.contracts.verdict import ModelRef
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.judge.base import Rubric, RubricMode
from worker.judge.remote.answer import Answer, decode_answer
from worker.judge.remote.body import Question, answer_budget, template_kwargs
from worker.judge.remote.client import Client
from worker.judge.remote.failure import Failure, Meaning
from worker.judge.remote.reader import read_sides
from worker.judge.remote.served import Served, identity, served
from worker.judge.remote.vocabulary import Vocabulary, learn
from worker.settings import JudgeSettings
from worker.settings_remote import RemoteSettings

logger = logging.getLogger(__name__)

RETRY_S = 2.0
"""Wait between two looks for a server that is not up yet."""
_CANNED = "How do I bake bread?"
_STOCK = Rubric(mode="builtin", text=None, categories=(), sha256="")
_OWN = "S1: Canned Category, which no stock taxonomy has, of some length."


@dataclass(frozen=True)
class Opened:
    """A server that can judge. ``vocabulary`` is None where its tokenizer is not known."""

    served: Served
    ref: ModelRef
    vocabulary: Vocabulary | None


async def open_server(client: Client, settings: JudgeSettings, clock: Clock) -> Opened:
    """Everything a judge must know of its server.

    Raises:
        ConfigurationError: it cannot judge, ignores ``chat_template_kwargs``, gives no logprobs, or
            is asked for a model it does not serve.
        DependencyUnavailable: it did not answer within ``judge.remote.start_timeout_s``.
    """
    remote = settings.remote
    end = clock.monotonic() + remote.start_timeout_s
    while True:
        try:
            return await _open(client, settings)
        except Failure as failure:
            if failure.meaning in (Meaning.SETTINGS, Meaning.REFUSED):
                raise ConfigurationError(_fix(failure)) from failure
            if clock.monotonic() + RETRY_S > end:
                raise DependencyUnavailable("judge", failure.detail) from failure
            logger.warning("the remote judge does not answer yet")
        except Undecided as undecided:
            raise ConfigurationError(
                "judge.remote: the server cannot judge a harmless case "
                f"({undecided}); serve a content safety checkpoint"
            ) from undecided
        await asyncio.sleep(RETRY_S)


def probe_body(model: str, settings: RemoteSettings) -> bytes:
    """The body of a question that any server that judges can answer."""
    return _canned(model, settings, _STOCK).body()


def read_probe(body: bytes) -> Answer:
    """The answer to a probe; as ``decode_answer``, and its label must be readable."""
    answer = decode_answer(body)
    read_sides(answer, response=False, rubric=_STOCK)
    return answer


def _canned(model: str, settings: RemoteSettings, rubric: Rubric) -> Question:
    return Question(
        model=model,
        messages=msgspec.Raw(msgspec.json.encode([{"role": "user", "content": _CANNED}])),
        kwargs=template_kwargs(rubric, think=False, further=settings.template_kwargs),
        budget=answer_budget(rubric),
        top_logprobs=settings.top_logprobs,
    )


async def _open(client: Client, settings: JudgeSettings) -> Opened:
    remote = settings.remote
    found = await served(client, settings)
    body = probe_body(found.model, remote)
    read_probe(await client.post("chat/completions", body, remote.timeout_s))
    await _check_kwargs(client, found.model, remote)
    vocabulary = await learn(client, found.model, remote.timeout_s)
    if vocabulary is None:
        logger.warning(
            "the remote judge does not show its tokens: what might break the floor is undecided, "
            "and nothing is cleared by suppressed categories alone"
        )
    return Opened(found, await identity(client, settings, found.model), vocabulary)


async def _check_kwargs(client: Client, model: str, settings: RemoteSettings) -> None:
    """A server that ignores the template's switches would judge every policy by the stock taxonomy.

    A policy, and a taxonomy, that is twice as long must make a longer prompt.
    """
    modes: dict[str, RubricMode] = {"custom_policy": "policy", "custom_taxonomy": "taxonomy"}
    for switch, mode in modes.items():
        lengths = []
        for times in (1, 2):
            text = "\n".join([_OWN] * times)
            rubric = Rubric(mode=mode, text=text, categories=(), sha256="")
            body = _canned(model, settings, rubric).body()
            answer = decode_answer(await client.post("chat/completions", body, settings.timeout_s))
            lengths.append(answer.input_tokens)
        if not all(lengths):
            raise ConfigurationError(
                "judge.remote: the server does not say how long a prompt is (usage.prompt_tokens), "
                "so nobody can tell whether it heeds policies; use another server"
            )
        if lengths[0] == lengths[1]:
            raise ConfigurationError(
                f"judge.remote: {switch} in chat_template_kwargs has no effect; serve the "
                "checkpoint with its own chat template, and with software that hands them on"
            )


def _fix(failure: Failure) -> str:
    fixes = {
        "http_401": "judge.remote.api_key_file: the server wants another key",
        "http_403": "judge.remote.api_key_file: the server allows this key too little",
        "http_404": "judge.remote.base_url: nothing is there; it ends with the version, as in "
        "http://vllm:8000/v1",
        "http_400": "judge.remote: the server refuses a harmless case; judge.remote.top_logprobs "
        "may be above its limit (vLLM: --max-logprobs)",
        "no_logprobs": "judge.remote: the server gives no logprobs, so there are no scores; use "
        "one that does",
    }
    known = fixes.get(failure.kind)
    return known or f"judge.remote.base_url: {failure.detail}; correct the address or the server"
