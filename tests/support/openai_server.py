"""A small OpenAI-compatible server over real HTTP, as vLLM answers, that can be told to misbehave.

What it answers comes from a writer: the demonstration checkpoint through ``generate`` of
transformers (``tests.support.openai_writers``), or a script. Beside ``/v1/chat/completions`` it has
``/v1/models``, ``/version``, ``/tokenize`` and ``/detokenize`` where the writer has a tokenizer.
"""

from __future__ import annotations

import asyncio
import math
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

Body = dict[str, Any]


@dataclass(frozen=True)
class WrittenToken:
    """One token, its log-probability, and the likeliest tokens at its place (itself included)."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Written:
    """One answer; ``finish`` is ``stop`` or ``length``."""

    tokens: tuple[WrittenToken, ...]
    content: str
    finish: str = "stop"
    prompt_tokens: int = 100
    reasoning: str | None = None


class TooLong(Exception):
    """The prompt does not fit."""


class Writer(Protocol):
    """Writes answers. ``tokenizer`` is a transformers tokenizer, or None."""

    tokenizer: Any

    def write(self, body: Body) -> Written:
        """Blocking; raises ``TooLong``."""
        ...

    def prompt(self, messages: Sequence[Body], kwargs: Mapping[str, Any]) -> list[int]:
        """The prompt's tokens."""
        ...


@dataclass
class Fault:
    """What happens to a request, ``times`` times; ``thinking`` spares those that do not think.

    ``share`` of the requests meet it, by dice of a fixed seed: a replica of several is broken.

    The first of these that is set happens.

    ``hang``: no answer until the server ends. ``raw``: this body, with ``status``. ``cut``: half of
    the right body, then the end of the connection. ``change``: the right answer, changed.
    ``status`` other than 200: an error as vLLM words it.
    """

    times: float = math.inf
    share: float = 1.0
    thinking: bool = False
    hang: bool = False
    raw: bytes | None = None
    cut: bool = False
    change: Callable[[Body], None] | None = None
    status: int = 200
    message: str = "something went wrong"
    headers: Mapping[str, str] = field(default_factory=dict)


class OpenAIServer:
    """``async with OpenAIServer(writer) as server``: it listens at ``server.url``.

    ``faults`` maps a marker to what happens to requests whose text holds it ("" is every one);
    ``requests`` are the bodies of all chat completions, ``headers`` what came with them.
    ``calls_itself`` and ``fingerprint`` are who its answers say wrote them.
    """

    def __init__(self, writer: Writer, *, names: Sequence[str] = ("tiny",)) -> None:
        self.writer, self.names = writer, names
        self.faults: dict[str, Fault] = {}
        self.requests: list[Body] = []
        self.headers: list[Mapping[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self.url = ""
        self.port = 0
        self.key: str | None = None
        self.calls_itself: str | None = None
        self.fingerprint: str | None = None
        self.version = "0.0.test"
        self.tls: ssl.SSLContext | None = None
        self._runner: web.AppRunner | None = None
        self._ending = asyncio.Event()
        self._dice = random.Random(7)

    async def __aenter__(self) -> OpenAIServer:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Listen: on a free port the first time, on the same one after ``close``."""
        self._ending = asyncio.Event()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/version", self._version)
        app.router.add_post("/v1/chat/completions", self._chat)
        if self.writer.tokenizer is not None:
            app.router.add_post("/tokenize", self._tokenize)
            app.router.add_post("/detokenize", self._detokenize)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1"

    async def close(self) -> None:
        """Answer nothing more; connections are refused."""
        self._ending.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def texts(self) -> list[str]:
        """The user texts that were asked about, in order."""
        return [_text(body) for body in self.requests]

    async def _models(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        listed = [{"id": name, "object": "model", "max_model_len": 8192} for name in self.names]
        return web.json_response({"object": "list", "data": listed})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    def _refused(self, request: web.Request) -> web.Response | None:
        if self.key is None or request.headers.get("Authorization") == f"Bearer {self.key}":
            return None
        return _error(401, "Unauthorized")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        body: Body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request, body)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request, body: Body) -> web.StreamResponse:
        fault = self._fault(body)
        if fault.hang:
            await self._ending.wait()
            return _error(503, "ending")
        if fault.raw is not None:
            return web.Response(body=fault.raw, status=fault.status, headers=fault.headers)
        if fault.status != 200:
            return _error(fault.status, fault.message, fault.headers)
        if body["model"] not in self.names:
            return _error(404, f"The model `{body['model']}` does not exist.")
        try:
            written = await asyncio.to_thread(self.writer.write, body)
        except TooLong:
            return _error(400, "This model's maximum context length is 8192 tokens. However, ...")
        completion = _completion(body, written)
        completion["model"] = self.calls_itself or body["model"]
        completion["system_fingerprint"] = self.fingerprint
        if fault.change is not None:
            fault.change(completion)
        response = web.json_response(completion)
        if not fault.cut:
            return response
        assert isinstance(response.body, bytes)
        half = web.StreamResponse(headers={"Content-Length": str(len(response.body))})
        await half.prepare(request)
        await half.write(response.body[: len(response.body) // 2])
        assert request.transport is not None
        request.transport.close()
        return half

    def _fault(self, body: Body) -> Fault:
        text = _text(body)
        for marker, fault in self.faults.items():
            if fault.thinking and not body["chat_template_kwargs"].get("enable_thinking"):
                continue
            if marker in text and fault.times > 0 and self._dice.random() < fault.share:
                fault.times -= 1
                return fault
        return Fault()

    async def _tokenize(self, request: web.Request) -> web.Response:
        body: Body = await request.json()
        tokenizer = self.writer.tokenizer
        if "messages" in body:
            ids = self.writer.prompt(body["messages"], body.get("chat_template_kwargs") or {})
        else:
            ids = tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
        found = {"count": len(ids), "max_model_len": 8192, "tokens": ids, "token_strs": None}
        if body.get("return_token_strs"):
            found["token_strs"] = tokenizer.convert_ids_to_tokens(ids)
        return web.json_response(found)

    async def _detokenize(self, request: web.Request) -> web.Response:
        body: Body = await request.json()
        return web.json_response({"prompt": self.writer.tokenizer.decode(body["tokens"])})


def _text(body: Body) -> str:
    parts = []
    for message in body["messages"]:
        content = message["content"]
        if isinstance(content, str):
            parts.append(content)
        else:
            parts += [part["text"] for part in content if part["type"] == "text"]
    return "\n".join(parts)


def _error(status: int, message: str, headers: Mapping[str, str] = {}) -> web.Response:
    error = {"message": message, "type": "Error", "param": None, "code": status}
    return web.json_response({"error": error}, status=status, headers=headers)


def _completion(body: Body, written: Written) -> Body:
    wanted = body.get("top_logprobs") or 0

    def entry(text: str, logprob: float) -> Body:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    content = [
        entry(token.text, token.logprob)
        | {"top_logprobs": [entry(*other) for other in token.top[:wanted]]}
        for token in written.tokens
    ]
    message = {
        "role": "assistant",
        "content": written.content or None,
        "reasoning_content": written.reasoning,
    }
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": {"content": content} if body.get("logprobs") else None,
                "finish_reason": written.finish,
            }
        ],
        "usage": {
            "prompt_tokens": written.prompt_tokens,
            "completion_tokens": len(written.tokens),
            "total_tokens": written.prompt_tokens + len(written.tokens),
        },
    }
