"""The start of a remote judge: the server is waited for, asked what it is, and tried."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import msgspec

from worker.clock import Clock
from worker.contracts.verdict import ModelRef
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.guard.taxonomy import BUILTIN, FLOOR
from worker.guard.template import check_template
from worker.judge.identity import template_digest
from worker.judge.local.label_scores import CATEGORIES, USER
from worker.judge.remote.answer import Answer, decode_answer, read_sides
from worker.judge.remote.body import Question, answer_budget, template_kwargs
from worker.judge.remote.client import Client, Failure, Meaning
from worker.judgement import Rubric, RubricMode
from worker.settings import JudgeSettings
from worker.settings.sections import RemoteSettings

# The few tokens of the server's tokenizer that the judge must know, learnt from ``/tokenize``.
#
# With their ids a label or a name can be preferred (``logit_bias``), so that the server itself
# writes
# what follows it. vLLM has the route; where it is missing, the floor is judged by names alone.

_LINE = f"{USER} unsafe{CATEGORIES}"


@dataclass(frozen=True)
class Vocabulary:
    """``unsafe`` is the label's token; ``first`` and ``further`` spell the floor's name.

    ``first`` is the name behind the line's colon, ``further`` behind another name, its comma
    included. ``ids`` holds the id of every token among them.
    """

    unsafe: int
    first: tuple[bytes, ...]
    further: tuple[bytes, ...]
    ids: dict[bytes, int]


class _Tokenized(msgspec.Struct):
    tokens: list[int]
    token_strs: list[str] | None = None


async def learn(client: Client, model: str, timeout_s: float) -> Vocabulary | None:
    """Ask the server how it spells the answer; None where it has no such route, or spells it in
    pieces that do not add up."""

    async def encode(text: str) -> list[tuple[int, str]]:
        body = {
            "model": model,
            "prompt": text,
            "add_special_tokens": False,
            "return_token_strs": True,
        }
        answer = await client.post("/tokenize", msgspec.json.encode(body), timeout_s)
        found = msgspec.json.decode(answer, type=_Tokenized)
        return list(zip(found.tokens, found.token_strs or (), strict=True))

    try:
        safe, unsafe = [await encode(f"{USER} {label}") for label in ("safe", "unsafe")]
        first = _rest(await encode(_LINE), await encode(f"{_LINE} {FLOOR}"), f" {FLOOR}")
        other = f"{_LINE} {BUILTIN[0]}"
        further = _rest(await encode(other), await encode(f"{other}, {FLOOR}"), f", {FLOOR}")
    except (Failure, Undecided, msgspec.DecodeError, ValueError):
        return None
    if len(safe) != len(unsafe) or safe[:-1] != unsafe[:-1] or safe[-1] == unsafe[-1]:
        return None
    pieces = dict(first) | dict(further)
    return Vocabulary(
        unsafe=unsafe[-1][0],
        first=tuple(text for text, _ in first),
        further=tuple(text for text, _ in further),
        ids=pieces,
    )


def _rest(
    start: list[tuple[int, str]], whole: list[tuple[int, str]], text: str
) -> list[tuple[bytes, int]]:
    """The tokens behind ``start``, as the text they stand for.

    Raises:
        ValueError: they do not begin with ``start``, or do not spell the text.
    """
    if whole[: len(start)] != start:
        raise ValueError("tokens merge across a seam")
    # Blanks in a vocabulary: ``▁`` in SentencePiece's, ``Ġ`` in byte-level ones.
    pieces = [
        (each.replace("▁", " ").replace("Ġ", " ").encode(), number)
        for number, each in whole[len(start) :]
    ]
    if b"".join(piece for piece, _ in pieces) != text.encode():
        raise ValueError("the tokens do not spell the text")
    return pieces


# What the server serves: the model, its version, and the prompt its template renders.
#
# Weights and commit cannot be asked for over this API. A verdict repeats what the operator says of
# them, or ``unstated``; it never claims what nobody checked.

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
