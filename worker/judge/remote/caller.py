"""One question to the server: sent, retried, and blamed on the server or on the event.

An event is blamed only for a failure that repeats while the server is seen to answer others; until
then the server is taken to be away, nothing is called undecided for it, and the stream retries.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from worker.clock import Clock
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable, Undecided
from worker.judge.remote.breaker import Breaker, RetryBudget
from worker.judge.remote.client import Failure, Meaning
from worker.settings.sections import RemoteSettings
from worker.telemetry import instruments
from worker.telemetry.names import Attribute, Span
from worker.telemetry.spans import stage

T = TypeVar("T")
Send = Callable[[], Awaitable[T]]
"""Sends one request and reads its answer; raises ``Failure`` or ``Undecided``."""


class Caller:
    """Sends questions within the limits of the settings. ``probe`` asks one that must succeed."""

    def __init__(
        self, settings: RemoteSettings, clock: Clock, probe: Callable[[], Awaitable[object]]
    ) -> None:
        self._settings, self._clock, self._probe = settings, clock, probe
        self.breaker = Breaker(settings, clock)
        self._budget = RetryBudget(settings.retry_ratio, clock)
        self._probing: asyncio.Task[bool] | None = None
        self._inflight: dict[object, float] = {}

    async def ask(
        self, send: Send[T], lane: asyncio.Semaphore, *, attempts: int
    ) -> tuple[T, float]:
        """The answer, and the seconds that were waited for a place in the lane.

        Raises:
            Undecided: the event's own fault: it failed every time while others were answered.
            DependencyUnavailable: the server is away, or it is too early to tell.
        """
        waited, blamed = 0.0, 0
        for attempt in range(1, attempts + 1):
            queued = self._clock.monotonic()
            async with lane:
                # Only now: the server may have gone away while this one waited for its place.
                await self._admit()
                began = self._clock.monotonic()
                waited += began - queued
                try:
                    return await self._once(send, began), waited
                except Failure as failure:
                    problem = failure
            blamed += await self._blames_event(problem, began)
            if problem.meaning is Meaning.REFUSED or blamed == attempts:
                raise Undecided(problem.reason, detail=problem.detail)
            if attempt == attempts:
                break
            await self._pause(problem, attempt)
        raise DependencyUnavailable("judge", problem.detail)

    def stalled_s(self) -> float:
        """Seconds that the oldest request has been in flight."""
        oldest = min(self._inflight.values(), default=None)
        return 0.0 if oldest is None else max(0.0, self._clock.monotonic() - oldest)

    async def stop(self) -> None:
        """End a probe that is under way."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _once(self, send: Send[T], began: float) -> T:
        mark = object()
        self._inflight[mark] = began
        result = "ok"
        try:
            with stage(Span.REMOTE):
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
        self.breaker.served(began)
        self._budget.earn()
        return answer

    async def _admit(self) -> None:
        """Let nothing through an open breaker but the probe that may close it."""
        if not self.breaker.is_open:
            return
        if self.breaker.cooling or not await self._serves():
            raise DependencyUnavailable("judge", "the server is away")

    async def _blames_event(self, failure: Failure, began: float) -> bool:
        """Whether the event may be to blame; raises where it cannot and nothing else will help."""
        if failure.meaning is Meaning.SETTINGS:
            self.breaker.open()
            raise DependencyUnavailable("judge", failure.detail) from failure
        if failure.meaning is Meaning.AWAY:
            self.breaker.failed()
            return False
        if self.breaker.served_since(began):
            return True
        if self.breaker.cooling or not await self._serves():
            raise DependencyUnavailable("judge", failure.detail) from failure
        return True

    async def _serves(self) -> bool:
        """Ask the server a question of our own; all who want to know share one answer."""
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._ask_probe(), name="judge-probe")
        return await asyncio.shield(self._probing)

    async def _ask_probe(self) -> bool:
        began = self._clock.monotonic()
        try:
            await self._probe()
        except (Failure, Undecided):
            self.breaker.open()
            return False
        self.breaker.served(began)
        self.breaker.close()
        self._budget.earn()
        return True

    async def _pause(self, failure: Failure, attempt: int) -> None:
        """Wait before the next attempt, or give it up."""
        settings = self._settings
        longest = min(settings.retry_initial_s * 2 ** (attempt - 1), settings.retry_max_s)
        delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, hides nothing
        if failure.retry_after_s is not None:
            if failure.retry_after_s > settings.retry_max_s:
                self.breaker.open()
                raise DependencyUnavailable("judge", f"{failure.detail}, not before long")
            delay = max(delay, failure.retry_after_s)
        if not self._budget.take():
            raise DependencyUnavailable("judge", f"{failure.detail}, and no retries are left")
        instruments.remote_retries.add(1, {Attribute.RESULT: failure.kind})
        await asyncio.sleep(delay)
