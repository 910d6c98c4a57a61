"""What the server serves: the model, its version, and the prompt its template renders.

Weights and commit cannot be asked for over this API. A verdict repeats what the operator says of
them, or ``unstated``; it never claims what nobody checked.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from worker.contracts.verdict import ModelRef
from worker.errors import ConfigurationError, Undecided
from worker.judge.identity import template_digest
from worker.judge.remote.client import Client
from worker.judge.remote.failure import Failure
from worker.judge.template import check_template
from worker.settings import JudgeSettings

logger = logging.getLogger(__name__)

UNSTATED = "unstated"


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model]


class _Version(msgspec.Struct):
    version: str


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Prompt(msgspec.Struct):
    prompt: str


@dataclass(frozen=True)
class Served:
    """``model`` is asked for; ``names`` are all that may be, adapters among them."""

    model: str
    names: frozenset[str]


async def served(client: Client, settings: JudgeSettings) -> Served:
    """The model to ask for.

    Raises:
        Failure, Undecided: the server does not say.
        ConfigurationError: it does not serve the model, or several and none was chosen.
    """
    remote = settings.remote
    answer = await client.get("models", remote.timeout_s)
    try:
        names = [each.id for each in msgspec.json.decode(answer, type=_Models).data]
    except msgspec.DecodeError as error:
        raise ConfigurationError(
            "judge.remote.base_url: what answers there is no OpenAI-compatible API; the address "
            "ends with the version, as in http://vllm:8000/v1"
        ) from error
    listed = ", ".join(names) or "none"
    if remote.model is None:
        if len(names) != 1:
            raise ConfigurationError(
                f"judge.remote.model: the server lists {listed}; name the one that judges"
            )
        return Served(names[0], frozenset(names))
    if remote.model not in names:
        raise ConfigurationError(
            f"judge.remote.model: the server does not serve {remote.model}, but {listed}"
        )
    return Served(remote.model, frozenset(names))


async def identity(client: Client, settings: JudgeSettings, model: str) -> ModelRef:
    """How verdicts name the model: by what the server and the settings say.

    Raises:
        ConfigurationError: its template lacks a switch, or ``chat_template`` cannot be read.
    """
    remote = settings.remote
    return ModelRef(
        id=model,
        revision=settings.revision or UNSTATED,
        adapter=None,
        template_sha256=await _template(client, settings, model),
        numerics=await _software(client, remote.timeout_s),
    )


async def _software(client: Client, timeout_s: float) -> str:
    """``remote`` and the software's version, where the server tells (vLLM does)."""
    try:
        version = msgspec.json.decode(await client.get("/version", timeout_s), type=_Version)
    except (Failure, Undecided, msgspec.DecodeError):
        return "remote"
    return f"remote/{version.version[:40]}"


async def _template(client: Client, settings: JudgeSettings, model: str) -> str:
    """Digest of the template's copy, else of canned prompts as rendered, else of no template."""
    rendered = await _rendered(client, settings, model)
    file = settings.remote.chat_template
    if file is not None:
        try:
            return template_digest(await asyncio.to_thread(file.read_text, encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"judge.remote.chat_template: {file} cannot be read; correct the path"
            ) from error
    return template_digest(rendered)


async def _rendered(client: Client, settings: JudgeSettings, model: str) -> str:
    """Canned prompts as the server renders them; empty where it does not show them (vLLM does)."""
    loop, seen = asyncio.get_running_loop(), dict[str, None]()

    async def ask(user: object, response: str | None, kwargs: dict[str, object]) -> str:
        messages = [{"role": "user", "content": user}]
        if response is not None:
            messages.append({"role": "assistant", "content": response})
        body = {
            "model": model,
            "messages": messages,
            "add_generation_prompt": True,
            "chat_template_kwargs": settings.remote.template_kwargs | kwargs,
        }
        timeout_s = settings.remote.timeout_s
        answer = await client.post("/tokenize", msgspec.json.encode(body), timeout_s)
        tokens = msgspec.json.decode(answer, type=_Tokens).tokens
        body = {"model": model, "tokens": tokens}
        answer = await client.post("/detokenize", msgspec.json.encode(body), timeout_s)
        return msgspec.json.decode(answer, type=_Prompt).prompt

    def render(user: object, response: str | None = None, **kwargs: object) -> str:
        text = asyncio.run_coroutine_threadsafe(ask(user, response, kwargs), loop).result()
        seen[text] = None
        return text

    try:
        differences = await asyncio.to_thread(check_template, render, "<bos>")
    except (Failure, Undecided, msgspec.DecodeError):
        logger.warning("the server does not show its prompts: the template is not checked")
        return ""
    if differences:
        logger.warning("the chat template differs from the known one:\n%s", differences)
    return "\n".join(seen)
