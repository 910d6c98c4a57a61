"""Reading one image again and again until it is there, it is to blame, or the store is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

from worker.clock import Clock
from worker.codes import UndecidedReason
from worker.errors import DependencyUnavailable
from worker.media.base import ObjectKey
from worker.media.budget import Lease
from worker.media.cache import Decoded
from worker.media.probing import StoreProbe
from worker.media.read import Job, Reader
from worker.resilience.breaker import Blame, CircuitBreaker
from worker.telemetry.instruments import fetch_cache_hits
from worker.telemetry.names import Attribute

BACKOFF_S = 0.1
"""Pause after a first failed read, on top of the client's own retries; triples each time."""


class EventDeadline:
    """When the reads of one event must be answered. It starts with the first read that starts.

    Waiting for a thread is the worker's own load and no fault of the event.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until: float | None = None

    def begin(self) -> None:
        """A read of the event has started."""
        if self._until is None:
            self._until = self._clock.monotonic() + self._seconds

    def left(self) -> float:
        """Seconds left, 0 when it is over."""
        if self._until is None:
            return self._seconds
        return max(0.0, self._until - self._clock.monotonic())


class Attempts:
    """Reads of one store, judged by one breaker."""

    def __init__(
        self,
        reader: Reader,
        pool: Executor,
        breaker: CircuitBreaker,
        probe: StoreProbe,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._pool = pool
        self._breaker = breaker
        self._probe = probe
        self._clock = clock

    async def read(
        self,
        key: ObjectKey,
        leases: Mapping[ObjectKey, Lease],
        event: ObjectKey,
        deadline: EventDeadline,
    ) -> tuple[str | None, Decoded]:
        """Digest and content of one image; its lease is cut to what it really holds.

        Raises:
            DependencyUnavailable: the store is away, or it is too early to tell.
        """
        pause = BACKOFF_S
        while True:
            began = self._clock.monotonic()
            problem = "no answer within the event's deadline"
            try:
                done = await self._once(key, leases[key], deadline)
            except DependencyUnavailable as error:
                problem, done = error.detail, None
            if done is not None:
                # A refusal is an answer; only a body that was read shows that bodies can be.
                read = done[0] is not None
                self._breaker.served(began, key, proof=read)
                if read:
                    self._probe.known_good = key
                return done
            blame = self._breaker.failed(began, key, event=event)
            if blame is Blame.PROBE:
                weight = self._probe.strike
                passed = await self._probe.ask() is None
                blame = self._breaker.settle(key, passed, weight)
            if blame is Blame.SUBJECT:
                timeout = UndecidedReason.IMAGE_TIMEOUT.value
                return None, Decoded(error=timeout, detail="not readable while other objects are")
            if blame is Blame.DEPENDENCY or deadline.left() <= pause:
                raise DependencyUnavailable("store", problem)
            await asyncio.sleep(pause)
            pause *= 3

    async def _once(
        self, key: ObjectKey, lease: Lease, deadline: EventDeadline
    ) -> tuple[str | None, Decoded] | None:
        """One read in a thread; None where the deadline passed before the store answered."""
        job = Job(self._reader, key, self._pool)
        finished = False
        try:
            await _first(job.started, job.result)
            deadline.begin()
            # Decoding is bounded work of this machine: only the store is held to the deadline.
            await _first(job.answered, job.result, seconds=deadline.left())
            if not job.answered.done() and not job.result.done():
                return None
            digest, decoded, known = await job.result
            finished = True
            lease.shrink(decoded.size)
            if known:
                fetch_cache_hits.add(1, {Attribute.RESULT: "content"})
            return digest, decoded
        except DependencyUnavailable:
            finished = True
            raise
        finally:
            if not finished:
                lease.hold()
                job.abandon(lease.unhold)


async def _first(*futures: asyncio.Future[Any], seconds: float | None = None) -> None:
    await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
