"""A circuit breaker with blame: is the dependency away, or is this one request bad?

A subject (an object of the store, a request to the judge) is blamed, and its event becomes
undecided, only after it failed several times while the dependency was seen to serve *others of its
kind* at that very time. Until then the dependency is taken to be away: nothing is called undecided
for it, and the stream pauses and retries.

Closed, requests go out. Open, nothing is sent until a cooldown is over. Then a probe, a request
that is known to be good, is sent; if it passes the breaker is half-open: a few real requests go
out, the first that is served closes it; if all of them fail it opens again, for longer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from enum import StrEnum

from worker.clock import Clock
from worker.errors import DependencyUnavailable

WINDOW_S = 10.0
"""How far back requests count."""
MIN_FAILING = 3
"""Different events that must fail within the window before the ratio counts."""
RATIO = 0.5
"""Share of failures in the window from which the dependency is away."""
CROWD = 0.05
"""Share of failures in the window from which a failure says little about its own event."""
COOLDOWN_S = 1.0
"""It stays open this long before it probes; doubles until a request is served again."""
MAX_COOLDOWN_S = 15.0
TRIALS = 3
"""Real requests that go out half-open."""
STRIKE = 1 / 3
"""Weight of one failure beside a dependency that serves; at 1 the subject is blamed."""
OPENING_STRIKE = 1 / 3
"""One subject gets it each time the breaker opens by its ratio: where bad requests are all there
is, probes pass and every opening brings one of them nearer to its verdict. A dependency that can
serve nothing costs at most one event in three openings, not a flood."""
MAX_STRIKES_KEPT = 4_096
_SLACK = 1e-9


class Blame(StrEnum):
    """Whom a failure is put down to."""

    SUBJECT = "subject"
    DEPENDENCY = "dependency"
    RETRY = "retry"
    """Too early to tell."""
    PROBE = "probe"
    """Nothing was served since it began: only a probe can tell, see ``CircuitBreaker.settle``."""


class CircuitBreaker:
    """Over one dependency, named as errors and metrics name it. One event loop; never blocks.

    ``changed`` is told whether it is open, each time that changes. Times are monotonic seconds.
    """

    def __init__(
        self, dependency: str, clock: Clock, changed: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._dependency = dependency
        self._clock = clock
        self._changed = changed
        self._open_until: float | None = None
        self._trials: int | None = None
        self._failed_trials = 0
        self._cooldown = COOLDOWN_S
        self._served: deque[float] = deque()
        self._failing: dict[Hashable, float] = {}
        self._stumbled: dict[Hashable, float] = {}
        self._last_served_began = float("-inf")
        self._strikes: OrderedDict[Hashable, float] = OrderedDict()
        self._waiting: list[asyncio.Future[None]] = []
        changed(False)

    @property
    def is_open(self) -> bool:
        """Whether the dependency is taken to be away; half-open counts."""
        return self._open_until is not None

    @property
    def needs_probe(self) -> bool:
        """Whether the cooldown is over, so that a probe may ask."""
        return (
            self._open_until is not None
            and self._trials is None
            and self._clock.monotonic() >= self._open_until
        )

    def admit(self) -> None:
        """Let a request pass, unless it is open; half-open, one of few.

        Raises:
            DependencyUnavailable: too early even for a probe, or enough requests are trying.
        """
        if self._open_until is None or self.needs_probe:
            return
        if self._trials is None:
            raise DependencyUnavailable(self._dependency, "waiting before it is probed again")
        if not self._trials and self._clock.monotonic() >= self._open_until:
            self._trials = TRIALS  # those that went out were cancelled, or proved nothing
        if not self._trials:
            raise DependencyUnavailable(self._dependency, "a few requests are trying it")
        self._trials -= 1

    async def enter(self) -> None:
        """As ``admit``; while a few requests try the dependency, wait for what becomes of them.

        Raises:
            DependencyUnavailable: it is away.
        """
        while True:
            try:
                self.admit()
                return
            except DependencyUnavailable:
                if self._trials is None or not await self._tried():
                    raise

    async def _tried(self) -> bool:
        """Wait until half-open ends, at most for a cooldown; False where it does not."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            done, _ = await asyncio.wait([waiting], timeout=COOLDOWN_S)
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
        return bool(done)

    def _tell(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    def probed(self, passed: bool) -> None:
        """The answer of the probe that ``needs_probe`` asked for."""
        if passed:
            self._trials, self._failed_trials = TRIALS, 0
            self._open_until = self._clock.monotonic() + COOLDOWN_S
        else:
            self.open()

    def served(self, began: float, subject: Hashable, *, proof: bool = True) -> None:
        """A request that began at ``began`` was answered.

        ``proof``: it was served as a good request is, so that others may be blamed beside it. A
        refusal (no such object) is an answer and no proof.
        """
        self._served.append(self._clock.monotonic())
        self._strikes.pop(subject, None)
        self._failing.pop(subject, None)
        if proof:
            self._last_served_began = max(self._last_served_began, began)
            self._cooldown = COOLDOWN_S
            self._close()
        self._prune()

    def proved(self, began: float) -> None:
        """A probe that began at ``began`` was served as a good request is."""
        self._last_served_began = max(self._last_served_began, began)

    def served_since(self, began: float) -> bool:
        """Whether a request that began no earlier than this one was served."""
        return self._last_served_began >= began

    @property
    def crowded(self) -> bool:
        """Whether several events failed of late, be they served since: each is less suspicious."""
        failed = len(self._stumbled)
        return failed >= MIN_FAILING and failed >= CROWD * (failed + len(self._served))

    def failed(
        self,
        began: float,
        subject: Hashable,
        *,
        event: Hashable | None = None,
        strike: float = STRIKE,
    ) -> Blame:
        """A request that began at ``began`` failed, the client's own retries included.

        ``event`` stands for all subjects of one event: one event with many bad ones is one.
        ``strike`` is the weight of this failure against its subject, where others are served.
        """
        if self._trials is not None:
            self._failed_trials += 1
            if self._failed_trials >= TRIALS:
                self.open()
            return self._strike(subject, strike, otherwise=Blame.DEPENDENCY)
        if self.is_open:
            return Blame.DEPENDENCY
        whose = subject if event is None else event
        for times in (self._failing, self._stumbled):
            times.pop(whose, None)  # the oldest stays in front
            times[whose] = self._clock.monotonic()
        self._prune()
        failing = len(self._failing)
        if failing >= MIN_FAILING and failing / (failing + len(self._served)) >= RATIO:
            self.open()
            return self._strike(subject, OPENING_STRIKE, otherwise=Blame.DEPENDENCY)
        if self.served_since(began):
            return self._strike(subject, strike)
        return Blame.PROBE

    def settle(self, subject: Hashable, passed: bool, strike: float = STRIKE) -> Blame:
        """What ``PROBE`` comes to, by a probe made after the failure."""
        if self.is_open:
            return Blame.DEPENDENCY  # many fail at once when it goes away: it opens once
        if passed:
            return self._strike(subject, strike)
        self.open()
        return Blame.DEPENDENCY

    def open(self) -> None:
        """Send nothing until the cooldown is over."""
        known = self.is_open
        self._open_until = self._clock.monotonic() + self._cooldown
        self._trials = None
        self._cooldown = min(2 * self._cooldown, MAX_COOLDOWN_S)
        if not known:
            self._changed(True)
        self._tell()

    def _close(self) -> None:
        if not self.is_open:
            return
        self._open_until = self._trials = None
        self._failing.clear()
        self._changed(False)
        self._tell()

    def _strike(self, subject: Hashable, weight: float, otherwise: Blame = Blame.RETRY) -> Blame:
        strikes = self._strikes.pop(subject, 0.0) + weight
        if strikes >= 1 - _SLACK:
            return Blame.SUBJECT
        self._strikes[subject] = strikes
        if len(self._strikes) > MAX_STRIKES_KEPT:
            self._strikes.popitem(last=False)
        return otherwise

    def _prune(self) -> None:
        horizon = self._clock.monotonic() - WINDOW_S
        while self._served and self._served[0] < horizon:
            self._served.popleft()
        for times in (self._failing, self._stumbled):
            while times and next(iter(times.values())) < horizon:
                del times[next(iter(times))]


RETRIES = 10.0
"""Retries that may be made at once."""
RETRIES_A_SECOND = 0.2
"""Retries earned by waiting, so that a dependency that comes back is met with some."""
RETRIES_AN_ANSWER = 1.0
"""Retries earned by an answer: with half of the replicas broken, every answer takes one."""


class RetryBudget:
    """Retries are earned by answers and by time: an outage must not multiply the load."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens, self._at = RETRIES, clock.monotonic()

    def earn(self) -> None:
        """One answer came."""
        self._tokens = min(RETRIES, self._tokens + RETRIES_AN_ANSWER)

    def take(self) -> bool:
        """Whether one more retry may be sent now."""
        now = self._clock.monotonic()
        self._tokens = min(RETRIES, self._tokens + (now - self._at) * RETRIES_A_SECOND)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
