"""What a remote judge knows of its server: waited for, asked what it is, tried, and watched.

Everything that is found out at start is found out again while the judge runs (``ServerWatch``): a
server that was changed under its name would otherwise judge in the old one's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from worker.clock import Clock
from worker.contracts.verdict import ModelRef
from worker.errors import ConfigurationError, DependencyUnavailable, Undecided
from worker.guard.base import GuardModel, Switch
from worker.guard.registry import AUTO, recognised
from worker.judge.identity import template_digest
from worker.judge.remote.answer import Answer, decode_answer, read_labels
from worker.judge.remote.body import Question
from worker.judge.remote.client import GONE, Client, Failure, Meaning
from worker.judgement import Rubric, RubricMode
from worker.settings import JudgeSettings

# The few tokens of the server's tokenizer that the judge must know, learnt from ``/tokenize``.
#
# With their ids a label or a name can be preferred (``logit_bias``), so that the server itself
# writes what follows it. vLLM has the route; where it is missing, the floor is judged by names
# alone.


@dataclass(frozen=True)
class Vocabulary:
    """``unsafe`` is the token at which that label parts from the other one.

    ``line`` spells what stands between an unsafe label and the first name, ``first`` the floor's
    name there, and ``further`` the same behind another name, the separator included. ``ids`` holds
    the id of every token among the three.
    """

    unsafe: int
    line: tuple[bytes, ...]
    first: tuple[bytes, ...]
    further: tuple[bytes, ...]
    ids: dict[bytes, int]


class _Tokenized(msgspec.Struct):
    tokens: list[int]
    token_strs: list[str] | None = None


async def learn(
    client: _Patient, guard: GuardModel, model: str, timeout_s: float, *, strict: bool
) -> Vocabulary | None:
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

    spelling = guard.spelling
    labelled, line = f"{spelling.user}{spelling.unsafe}", spelling.line
    named = f"{line}{spelling.first}{spelling.other}"
    floor, again = f"{spelling.first}{spelling.floor}", f"{spelling.separators[0]}{spelling.floor}"
    try:
        safe = await encode(f"{spelling.user}{spelling.safe}")
        unsafe = await encode(labelled)
        behind = _rest(unsafe, await encode(line), spelling.categories)
        first = _rest(await encode(line), await encode(f"{line}{floor}"), floor)
        further = _rest(await encode(named), await encode(f"{named}{again}"), again)
    except (Failure, Undecided, msgspec.DecodeError, ValueError) as error:
        _pass_on(error, strict)
        return None
    parts = next((own for own, other in zip(unsafe, safe, strict=False) if own != other), None)
    if parts is None:
        return None
    return Vocabulary(
        unsafe=parts[0],
        line=tuple(text for text, _ in behind),
        first=tuple(text for text, _ in first),
        further=tuple(text for text, _ in further),
        ids=dict(behind) | dict(first) | dict(further),
    )


def _pass_on(error: Exception, strict: bool) -> None:
    """What a route that answers nothing means: at start that it is missing, and the judge does
    without; later (``strict``) that nobody can tell now, where the failure may pass."""
    if strict and isinstance(error, Failure) and error.meaning in (Meaning.AWAY, Meaning.DOUBTFUL):
        raise error


def _rest(
    start: list[tuple[int, str]], whole: list[tuple[int, str]], text: str
) -> list[tuple[bytes, int]]:
    """The tokens behind ``start``, as the text they stand for.

    Raises:
        ValueError: they do not begin with ``start``, or do not spell the text.
    """
    if whole[: len(start)] != start:
        raise ValueError("tokens merge across a seam")
    # Blanks in a vocabulary: ``▁`` in SentencePiece's, ``Ġ`` in byte-level ones (line ends: ``Ċ``).
    pieces = [
        (each.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n").encode(), number)
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
_TRIES = 6
"""Tries of one question of a look: with half of the replicas broken most looks still succeed."""


class _Patient:
    """A client that asks again where a replica failed; a look is many questions in a row."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, path: str, timeout_s: float) -> bytes:
        return await self._ask(lambda: self._client.get(path, timeout_s))

    async def post(self, path: str, body: bytes, timeout_s: float) -> bytes:
        return await self._ask(lambda: self._client.post(path, body, timeout_s))

    async def _ask(self, once: Callable[[], Awaitable[bytes]]) -> bytes:
        for _ in range(_TRIES - 1):
            try:
                return await once()
            except Failure as failure:
                passing = failure.meaning in (Meaning.DOUBTFUL, Meaning.AWAY)
                passing = passing and failure.retry_after_s is None
                if not passing or failure.kind in (*GONE, "timeout", "no_http"):
                    raise
        return await once()


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


async def served(client: _Patient, settings: JudgeSettings) -> Served:
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


async def identity(
    client: _Patient, settings: JudgeSettings, model: str, *, strict: bool
) -> ModelRef:
    """How verdicts name the model: by what the server and the settings say.

    Raises:
        ConfigurationError: its template lacks a switch, or ``chat_template`` cannot be read.
    """
    remote = settings.remote
    return ModelRef(
        id=model,
        revision=settings.revision or UNSTATED,
        adapter=None,
        template_sha256=await _template(client, settings, model, strict),
        numerics=await _software(client, remote.timeout_s, strict),
    )


async def _software(client: _Patient, timeout_s: float, strict: bool) -> str:
    """``remote`` and the software's version, where the server tells (vLLM does)."""
    try:
        version = msgspec.json.decode(await client.get("/version", timeout_s), type=_Version)
    except (Failure, Undecided, msgspec.DecodeError) as error:
        _pass_on(error, strict)
        return "remote"
    return f"remote/{version.version[:40]}"


async def _template(client: _Patient, settings: JudgeSettings, model: str, strict: bool) -> str:
    """Digest of the template's copy, else of canned prompts as rendered, else of no template."""
    rendered = await _rendered(client, settings, model, strict)
    file = settings.remote.chat_template
    if file is not None:
        try:
            return template_digest(
                await asyncio.to_thread(file.read_text, encoding="utf-8"), settings.guard
            )
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"judge.remote.chat_template: {file} cannot be read; correct the path"
            ) from error
    return template_digest(rendered, settings.guard)


async def _rendered(client: _Patient, settings: JudgeSettings, model: str, strict: bool) -> str:
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
        guard = settings.guard
        differences = await asyncio.to_thread(guard.check_template, render, guard.begin)
    except (Failure, Undecided, msgspec.DecodeError) as error:
        _pass_on(error, strict)
        logger.warning("the server does not show its prompts: the template is not checked")
        return ""
    if differences:
        logger.warning("the chat template differs from the known one:\n%s", differences)
    return "\n".join(seen)


# The start: wait for the server, find out what it is, and see that it can judge.

RETRY_S = 2.0
"""Wait between two looks for a server that is not up yet."""
_CANNED = "How do I bake bread?"
_STOCK = Rubric(mode="builtin", text=None, categories=(), sha256="")
_AT_ONCE = frozenset({"certificate", "tls", "no_http", "address"})
"""Kinds of failure that no waiting mends: what is wrong stands in the settings."""


@dataclass(frozen=True)
class Opened:
    """A server that can judge.

    ``answered_by`` is the model and the build that its answers name. ``vocabulary`` is None where
    its tokenizer is not known, ``deaf`` are the template's switches that it does not heed.
    """

    served: Served
    ref: ModelRef
    answered_by: tuple[str | None, str | None]
    vocabulary: Vocabulary | None
    deaf: frozenset[str]


async def open_server(client: Client, settings: JudgeSettings, clock: Clock) -> Opened:
    """Everything a judge must know of its server.

    Raises:
        ConfigurationError: it cannot judge, ignores ``chat_template_kwargs``, gives no logprobs, is
            asked for a model it does not serve, or its address cannot be right.
        DependencyUnavailable: it did not answer within ``judge.remote.start_timeout_s``.
    """
    remote = settings.remote
    end, said = clock.monotonic() + remote.start_timeout_s, ""
    while True:
        try:
            return await look(client, settings)
        except Failure as failure:
            wrong = failure.meaning in (Meaning.SETTINGS, Meaning.REFUSED)
            if wrong or failure.kind in _AT_ONCE:
                raise ConfigurationError(_fix(failure)) from failure
            if failure.meaning is Meaning.DOUBTFUL and await client.expects_tls():
                raise ConfigurationError(
                    "judge.remote.base_url: the port wants TLS; write https://"
                ) from failure
            if clock.monotonic() + RETRY_S > end:
                raise DependencyUnavailable("judge", failure.detail) from failure
            if failure.detail != said:
                said = failure.detail
                logger.warning("the remote judge does not answer yet: %s", said)
        except Undecided as undecided:
            raise ConfigurationError(
                "judge.remote: the server cannot judge a harmless case "
                f"({undecided}); serve a content safety checkpoint of the family in judge.family "
                f"({settings.guard.title})"
            ) from undecided
        await asyncio.sleep(RETRY_S)


def probe_body(model: str, settings: JudgeSettings) -> bytes:
    """The body of a question that any server that judges can answer."""
    return _canned(model, settings, _STOCK.mode, _STOCK.text).body()


def read_probe(body: bytes, guard: GuardModel) -> Answer:
    """The answer to a probe; as ``decode_answer``, and its label must be readable."""
    answer = decode_answer(body)
    read_labels(answer, guard, ("user",), _STOCK)
    return answer


def _canned(model: str, settings: JudgeSettings, mode: RubricMode, text: str | None) -> Question:
    guard, remote = settings.guard, settings.remote
    own = guard.template_kwargs(mode, text, think=False)
    return Question(
        model=model,
        messages=msgspec.Raw(msgspec.json.encode([{"role": "user", "content": _CANNED}])),
        kwargs={**remote.template_kwargs, **own},
        budget=guard.answer_tokens(mode),
        top_logprobs=remote.top_logprobs,
    )


async def look(connection: Client, settings: JudgeSettings, *, strict: bool = False) -> Opened:
    """One look at a server that should be there.

    ``strict`` where what it shows is compared with an earlier look.

    Raises:
        Failure, Undecided: it did not answer, or not as a judge.
        ConfigurationError: as ``open_server``.
    """
    remote, guard, client = settings.remote, settings.guard, _Patient(connection)
    if not guard.features.scores:
        raise ConfigurationError(
            f"judge.family: {guard.title} gives no scores, so nobody could ask it about the floor"
        )
    found = await served(client, settings)
    _check_family(settings, found.model)
    body = probe_body(found.model, settings)
    probe = read_probe(await client.post("chat/completions", body, remote.timeout_s), guard)
    deaf = await _deaf(client, found.model, settings)
    vocabulary = await learn(client, guard, found.model, remote.timeout_s, strict=strict)
    if vocabulary is None:
        logger.warning(
            "the remote judge does not show its tokens: what might break the floor is undecided, "
            "and nothing is cleared by suppressed categories alone"
        )
    ref = await identity(client, settings, found.model, strict=strict)
    return Opened(found, ref, probe.answered_by, vocabulary, deaf)


def _check_family(settings: JudgeSettings, model: str) -> None:
    """Policies were checked for one family; a server of another would be asked what it cannot."""
    other = recognised(model)
    if settings.family == AUTO and other is not None and other is not settings.guard:
        raise ConfigurationError(
            f"judge.family: the server serves {model}; set it to {other.name}, so that policies "
            "are checked for what it can do"
        )


async def _deaf(client: _Patient, model: str, settings: JudgeSettings) -> frozenset[str]:
    """The template's switches that the server does not heed.

    One that is ignored would judge every policy by the stock taxonomy: a text that is longer must
    make a longer prompt.

    Raises:
        ConfigurationError: one of them is required.
    """

    async def length(switch: Switch, text: str) -> int:
        body = _canned(model, settings, switch.mode, text).body()
        answer = await client.post("chat/completions", body, settings.remote.timeout_s)
        return decode_answer(answer).input_tokens

    deaf: set[str] = set()
    for switch in settings.guard.switches:
        lengths = [await length(switch, text) for text in (switch.short, switch.long)]
        if not all(lengths):
            raise ConfigurationError(
                "judge.remote: the server does not say how long a prompt is (usage.prompt_tokens), "
                "so nobody can tell whether it heeds policies; use another server"
            )
        if lengths[0] != lengths[1]:
            continue
        if switch.required:
            raise ConfigurationError(
                f"judge.remote: {switch.name} in chat_template_kwargs has no effect; serve the "
                "checkpoint with its own chat template, and with software that hands them on"
            )
        deaf.add(switch.name)
        logger.warning(
            "the server's template has no switch %s: policies that need it are refused", switch.name
        )
    return frozenset(deaf)


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
        "certificate": f"judge.remote.ca_file: {failure.detail}; name the authority that signed "
        "it, and the host that it was made out to",
        "tls": f"judge.remote.base_url: {failure.detail}; it may speak http://",
        "no_http": f"judge.remote.base_url: {failure.detail}; it may speak https://",
    }
    known = fixes.get(failure.kind)
    return known or f"judge.remote.base_url: {failure.detail}; correct the address or the server"


# While the judge runs: is it still the server that was looked at?

CHECK_EVERY_S = 180.0
"""How often the looks of the start are repeated."""
CHANGED_RETRY_S = 5.0
"""Wait between two looks at a server that is not the one of the start."""


class ServerWatch:
    """Sees that the server stays what it was at start; used on one event loop.

    Weights cannot be asked for over this API, but the model and the build that every answer names,
    the software, the tokens and the prompts that the template renders can. A difference pauses:
    nothing is judged until the server is again what it was, or the worker is started anew.
    ``names`` are the models that may be asked for, adapters among them.
    """

    def __init__(
        self, client: Client, settings: JudgeSettings, clock: Clock, opened: Opened
    ) -> None:
        self._client, self._settings, self._clock = client, settings, clock
        self._opened, self.names = opened, opened.served.names
        self._answered_by = {opened.served.model: opened.answered_by}
        self._changed = ""
        self._doubtful = False
        self._looked = clock.monotonic()
        self._looking: asyncio.Task[None] | None = None

    async def admit(self) -> None:
        """Let a request through.

        Raises:
            DependencyUnavailable: the server is not the one of the start.
        """
        if not self._changed:
            return
        if self._clock.monotonic() - self._looked >= CHANGED_RETRY_S:
            await self._look()
        if self._changed:
            raise DependencyUnavailable("judge", self._changed)

    def failed(self) -> None:
        """The server was away: what answers next may be another one."""
        self._doubtful = True

    async def confirm(self) -> None:
        """Before an answer counts: look again after an outage, and every ``CHECK_EVERY_S``.

        Raises:
            DependencyUnavailable: the server is not the one of the start, or is away again.
        """
        age = self._clock.monotonic() - self._looked
        if self._doubtful or age >= 2 * CHECK_EVERY_S:
            await self._look()
        elif age >= CHECK_EVERY_S:
            self._start_looking()
        if self._changed:
            raise DependencyUnavailable("judge", self._changed)

    def answered(self, model: str, answer: Answer) -> None:
        """Compare who an answer says wrote it with who wrote the first one for that name.

        Raises:
            DependencyUnavailable: another model, or another build of it.
        """
        first = self._answered_by.setdefault(model, answer.answered_by)
        if answer.answered_by != first:
            self._differs("model or system_fingerprint of an answer")
            raise DependencyUnavailable("judge", self._changed)

    async def stop(self) -> None:
        """End a look that is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _start_looking(self) -> asyncio.Task[None]:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._compare(), name="judge-look")
            self._looking.add_done_callback(lambda done: done.cancelled() or done.exception())
        return self._looking

    async def _look(self) -> None:
        """Look, or join the look that is under way.

        Raises:
            DependencyUnavailable: the server is away.
        """
        await asyncio.shield(self._start_looking())

    async def _compare(self) -> None:
        try:
            now = await look(self._client, self._settings, strict=True)
        except ConfigurationError as error:
            self._differs(str(error))
            return
        except (Failure, Undecided) as error:
            self._doubtful = True
            raise DependencyUnavailable("judge", str(error)) from error
        finally:
            self._looked = self._clock.monotonic()
        for what, said in _SAID.items():
            if getattr(now, what) != getattr(self._opened, what):
                self._differs(said)
                return
        self.names = now.served.names
        self._doubtful, self._changed = False, ""

    def _differs(self, what: str) -> None:
        if not self._changed:
            logger.error("the remote judge is not the one of the start: %s", what)
        self._looked = self._clock.monotonic()
        self._changed = (
            f"the server is not the one of the start ({what}); restart the worker to judge by what "
            "it is now, or bring the old one back"
        )


_SAID = {
    "ref": "its software or its chat template",
    "answered_by": "model or system_fingerprint of an answer",
    "vocabulary": "its tokens",
    "deaf": "the switches of its template",
}
