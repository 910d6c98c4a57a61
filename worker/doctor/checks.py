"""What can be wrong with a deployment, each thing looked at by itself, each with its fix."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from worker.errors import ConfigurationError, WorkerError
from worker.judge.factory import open_judge
from worker.judge.identity import is_demonstration, refuse_demonstration
from worker.log.admin import check_topics, output_topics
from worker.log.factory import open_admin
from worker.media.factory import open_store
from worker.policy.registry import PolicyRegistry
from worker.settings import Settings

CONNECT_S = 20.0


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``fix`` is empty where it is ``ok``."""

    check: str
    ok: bool
    detail: str = ""
    fix: str = ""


Check = Callable[[Settings], Awaitable[list[Diagnosis]]]


async def diagnose(settings: Settings, *, model: bool = True) -> AsyncIterator[Diagnosis]:
    """Every check in turn; one that fails stops no other. ``model`` loads the model too."""
    checks: list[tuple[str, str, Check]] = [
        ("policies", "correct the file that is named, then run `policy check`", _policies),
        (f"log ({settings.log.backend})", _log_fix(settings), _topics),
        (f"store ({settings.store.backend})", _store_fix(settings), _store),
        ("web", "stop what listens there, or set web.host and web.port", _web),
    ]
    if model:
        checks.append(("model", _model_fix(settings), _model))
    for name, fix, check in checks:
        try:
            found = await check(settings)
        except WorkerError as error:
            found = [Diagnosis(check=name, ok=False, detail=str(error), fix=fix)]
        except Exception as error:
            detail = f"{type(error).__name__}: {error}"
            found = [Diagnosis(check=name, ok=False, detail=detail, fix=fix)]
        for each in found:
            yield each


def _log_fix(settings: Settings) -> str:
    if settings.log.backend == "local":
        return "make log.directory writable"
    return "correct kafka.bootstrap_servers and kafka.security.*, or start the brokers"


def _model_fix(settings: Settings) -> str:
    if settings.judge.backend == "remote":
        return "correct judge.remote.base_url, judge.remote.model or the key, or start the server"
    return "correct judge.model, judge.revision, judge.adapter or judge.device"


def _store_fix(settings: Settings) -> str:
    if settings.store.backend == "directory":
        return "create store.directory"
    return "correct store.endpoint_url, store.region, store.buckets or the credentials"


async def _policies(settings: Settings) -> list[Diagnosis]:
    registry = PolicyRegistry(settings.policies.directory)
    registry.load()
    registry.require(outputs=output_topics(settings))
    detail = f"{len(registry.topics())} input topics: {', '.join(registry.topics())}"
    return [Diagnosis(check="policies", ok=True, detail=detail)]


async def _topics(settings: Settings) -> list[Diagnosis]:
    registry = PolicyRegistry(settings.policies.directory)
    with contextlib.suppress(ConfigurationError):  # told already; the rest can still be looked at
        registry.load()
    async with asyncio.timeout(CONNECT_S):
        async with open_admin(settings) as admin:
            findings = await check_topics(admin, settings, registry.topics())
    return [
        Diagnosis(
            check=f"topic {finding.topic}", ok=finding.ok, detail=finding.problem, fix=finding.fix
        )
        for finding in findings
    ]


async def _store(settings: Settings) -> list[Diagnosis]:
    store = open_store(settings.store)
    try:
        await asyncio.to_thread(store.check)
    finally:
        store.close()
    buckets = ", ".join(settings.store.buckets)
    detail = f"buckets: {buckets}"
    if not buckets:  # right where there is text alone, so no failure
        detail = "no bucket is allowed: an event with an image is undecided; see store.buckets"
    return [Diagnosis(check="store", ok=True, detail=detail)]


async def _web(settings: Settings) -> list[Diagnosis]:
    host, port = settings.web.host.strip("[]"), settings.web.port
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(address)
        except OSError as error:
            if not await asyncio.to_thread(_a_worker_answers, host, port):
                raise ConfigurationError(
                    f"web.port {port} on {host} cannot be listened on ({error.strerror})"
                ) from error
            detail = f"a worker listens on {host}, port {port}, already"
            return [Diagnosis(check="web", ok=True, detail=detail)]
    return [Diagnosis(check="web", ok=True, detail=f"{host}, port {port or 'any free one'}")]


def _a_worker_answers(host: str, port: int) -> bool:
    """Whether what listens there is a worker: the one that is being looked at, most likely."""
    try:
        connection = http.client.HTTPConnection(host, port, timeout=2)
        connection.request("GET", "/healthz")
        answer = json.loads(connection.getresponse().read(10_000))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return isinstance(answer, dict) and "checks" in answer


async def _model(settings: Settings) -> list[Diagnosis]:
    # Who runs this wants to know now, not when a server has come up.
    remote = settings.judge.remote.model_copy(update={"start_timeout_s": CONNECT_S})
    judge = open_judge(settings.judge.model_copy(update={"remote": remote}))
    try:
        await judge.start()
        ref = judge.model()
    finally:
        await judge.stop()
    detail = f"{ref.id}@{ref.revision[:12]} in {ref.numerics}"
    refuse_demonstration(settings, ref.id)
    if is_demonstration(ref.id):
        detail += ": made for demonstrations, it cannot tell what is harmful"
    return [Diagnosis(check="model", ok=True, detail=detail)]
