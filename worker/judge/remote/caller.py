"""One question to the server: sent, retried, and blamed on the server or on the event.

Every failed try is told to the circuit breaker, with its weight against the event::

    refused    400, 422, an answer that cannot be read     1      the same again: one is enough
    doubtful   500, a time-out, a body cut off            1/3     beside others that are answered
    setting    401, 403, 404, 405, 407, a redirect        1/3     a gateway's rule against this one
                                                                  event, or nothing passes at all
    away       refused connection, 408, 425, 429,         1/6     busy; counts once a question,
               502, 503, 504                                      after its last try

Where several events fail at the same time a replica is likelier to be broken than each of them,
and the weight is a small part of that. A question is tried ``judge.remote.attempts`` times, and
longer while others are answered: with half of the replicas broken one of the next tries finds a
healthy one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from opentelemetry.trace import SpanKind

from worker.clock import Clock
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, Undecided
from worker.judge.remote.client import Failure, Meaning
from worker.resilience.breaker import Blame, CircuitBreaker, RetryBudget
from worker.settings.sections import RemoteSettings
from worker.telemetry import instruments
from worker.telemetry.names import Attribute, Span, named
from worker.telemetry.tracing import stage

PROVIDER = "openai"
"""Whose API is spoken; the semantic conventions have no word for servers that are alike."""

T = TypeVar("T")
Send = Callable[[], Awaitable[T]]
"""Sends one request and reads its answer; raises ``Failure`` or ``Undecided``."""
STRIKES = {
    Meaning.REFUSED: 1.0,
    Meaning.DOUBTFUL: 1 / 3,
    Meaning.SETTINGS: 1 / 3,
    Meaning.AWAY: 1 / 6,
}
CROWD_SHARE = 16
"""Of several events that fail of late each gets this part of a strike. It is not nothing: events
that break the server every time must come to an end, however many they are."""
PATIENCE = 4
"""While others are answered a question is tried this many times as often."""
PROBES = 3
"""Requests that are known to be good, of which one must be answered: a server of several replicas
is not away because one of them is."""


class Caller:
    """Sends questions within the limits of the settings. ``probe`` asks one that must succeed."""

    def __init__(
        self, settings: RemoteSettings, clock: Clock, probe: Callable[[], Awaitable[object]]
    ) -> None:
        self._settings, self._clock, self._probe = settings, clock, probe
        self.breaker = CircuitBreaker(
            "judge", clock, lambda is_open: instruments.remote_breaker.set(int(is_open))
        )
        self._budget = RetryBudget(clock)
        self._probing: asyncio.Task[str | None] | None = None
        self._inflight: dict[object, float] = {}

    async def ask(
        self, send: Send[T], lane: asyncio.Semaphore, *, attempts: int, subject: Hashable
    ) -> tuple[T, float]:
        """The answer, and the seconds that were waited for a place in the lane.

        ``subject`` is equal for equal requests: what failed before is held against the next try.

        Raises:
            Undecided: the event's own fault: it failed every time while others were answered.
            DependencyUnavailable: the server is away, or it is too early to tell.
        """
        waited, attempt, first = 0.0, 0, self._clock.monotonic()
        while True:
            attempt += 1
            queued = self._clock.monotonic()
            async with lane:
                # Only now: the server may have gone away while this one waited for its place.
                await self._admit()
                began = self._clock.monotonic()
                waited += began - queued
                try:
                    return await self._once(send, began, subject), waited
                except Failure as failure:
                    problem = failure
            most = attempts * (PATIENCE if self.breaker.served_since(first) else 1)
            # Where no retries are left this try is the last, and says so to the breaker.
            last = attempt >= most or not self._budget.take()
            await self._blame(problem, began, subject, last=last)
            if last:
                raise DependencyUnavailable("judge", problem.detail)
            await self._pause(problem, attempt)

    def stalled_s(self) -> float:
        """Seconds that the oldest request has been in flight."""
        oldest = min(self._inflight.values(), default=None)
        return 0.0 if oldest is None else max(0.0, self._clock.monotonic() - oldest)

    async def stop(self) -> None:
        """End a probe that is under way."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _once(self, send: Send[T], began: float, subject: Hashable) -> T:
        mark = object()
        self._inflight[mark] = began
        result, model = "ok", self._settings.model or ""
        attributes = {Attribute.GEN_AI_OPERATION: "chat", Attribute.GEN_AI_PROVIDER: PROVIDER}
        if model:
            attributes[Attribute.GEN_AI_MODEL] = model
        try:
            with stage(named(Span.REMOTE, model), attributes, SpanKind.CLIENT):
                answer = await send()
        except Failure as failure:
            result = failure.kind
            raise
        except Undecided as undecided:
            result = undecided.reason.value
            if undecided.reason is UndecidedReason.CONTEXT_TOO_LONG:
                raise  # the server says so of this event, and that is an answer
            raise Failure(
                Meaning.REFUSED, result, reason=undecided.reason, detail=undecided.detail
            ) from undecided
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        finally:
            del self._inflight[mark]
            labels = {Attribute.RESULT: result}
            instruments.remote_duration.record(self._clock.monotonic() - began, labels)
        self.breaker.served(began, subject)
        self._budget.earn()
        return answer

    async def _admit(self) -> None:
        """Let nothing through an open breaker but a probe, and behind it a few that try."""
        if self.breaker.needs_probe:
            problem = await self._serves()
            if self.breaker.needs_probe:  # the first of those who shared the answer reports it
                self.breaker.probed(problem is None)
            if problem is not None:
                raise DependencyUnavailable("judge", f"the server is away: {problem}")
        await self.breaker.enter()

    async def _blame(
        self, failure: Failure, began: float, subject: Hashable, *, last: bool
    ) -> None:
        """Tell the breaker of a failed try; returns where another may help."""
        strike = STRIKES[failure.meaning]
        if failure.meaning is not Meaning.REFUSED and self.breaker.crowded:
            strike /= CROWD_SHARE
        if failure.meaning is Meaning.AWAY and not last:
            strike = 0.0
        blame = self.breaker.failed(began, subject, strike=strike)
        if blame is Blame.PROBE:
            if failure.meaning is Meaning.AWAY and not last:
                return  # it says itself that it takes nothing now: the next try asks again
            passed = await self._serves() is None
            blame = self.breaker.settle(subject, passed, strike)
        if blame is Blame.SUBJECT:
            raise Undecided(failure.reason, detail=failure.detail)
        if blame is Blame.DEPENDENCY:
            raise DependencyUnavailable("judge", failure.detail) from failure

    async def _serves(self) -> str | None:
        """None if the server answers a question of our own; all who want to know share one."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._ask_probe(), name="judge-probe")
        return await asyncio.shield(self._probing)

    async def _ask_probe(self) -> str | None:
        problem = ""
        for _ in range(PROBES):
            began = self._clock.monotonic()
            try:
                await self._probe()
            except (Failure, Undecided) as failure:
                problem = str(failure)
                continue
            self.breaker.proved(began)
            self._budget.earn()
            return None
        return problem

    async def _pause(self, failure: Failure, attempt: int) -> None:
        """Wait before the next try, or give it up."""
        settings = self._settings
        longest = min(settings.retry_initial_s * 2 ** (attempt - 1), settings.retry_max_s)
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, hides nothing
        if failure.retry_after_s is not None:
            if failure.retry_after_s > settings.retry_max_s:
                if await self._serves() is not None:
                    self.breaker.open()
                raise DependencyUnavailable("judge", f"{failure.detail}, not before long")
            delay = max(delay, failure.retry_after_s)
        instruments.remote_retries.add(1, {Attribute.RESULT: failure.kind})
        await asyncio.sleep(delay)
