"""Telling "the store is away" from "this object is bad".

An object is blamed (its event becomes undecided) only after it failed several times while the store
was seen to serve at that very time. Until then the store is taken to be away: nothing is called
undecided for it, and the stream pauses and retries.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Literal

from worker.clock import Clock
from worker.errors import DependencyUnavailable
from worker.media.base import ObjectKey

Blame = Literal["object", "store", "retry", "probe"]
"""``retry``: too early to tell. ``probe``: only a probe can tell, see ``Outage.settle``."""

WINDOW_S = 10.0
"""How far back reads count."""
MIN_EVENTS = 3
"""Different events that must fail within the window before the ratio counts."""
RATIO = 0.5
"""Share of failures in the window from which the store is away."""
COOLDOWN_S = 1.0
"""The breaker stays open this long before it probes; doubles until an object is read again."""
MAX_COOLDOWN_S = 15.0
STRIKES = 3
"""Failures of one object, each beside a store that serves, after which the object is blamed."""
MAX_STRIKES_KEPT = 4_096


class Outage:
    """A breaker over one store. Used on one event loop only; never blocks.

    Closed: reads go out. Open: ``admit`` refuses until the cooldown is over. Then half-open: the
    caller probes the store once (``needs_probe``) and reports ``probed``.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open_until: float | None = None
        self._cooldown = COOLDOWN_S
        self._successes: deque[float] = deque()
        self._failures: dict[ObjectKey, float] = {}
        self._last_success_began = float("-inf")
        self._strikes: OrderedDict[ObjectKey, int] = OrderedDict()

    @property
    def is_open(self) -> bool:
        """Whether the store is taken to be away; true until a probe passes."""
        return self._open_until is not None

    @property
    def needs_probe(self) -> bool:
        """Whether the cooldown is over, so that one probe may ask for the store."""
        return self._open_until is not None and self._clock.monotonic() >= self._open_until

    def admit(self) -> None:
        """Raise ``DependencyUnavailable`` while open and cooling down."""
        if self.is_open and not self.needs_probe:
            raise DependencyUnavailable("store", "waiting before it is probed again")

    def probed(self, passed: bool) -> None:
        """The half-open probe's answer: closes the breaker, or keeps it open for longer."""
        if passed:
            self._open_until = None
            self._failures.clear()
        else:
            self._open()

    def answered(self, key: ObjectKey, began: float) -> None:
        """The store answered a read that began at ``began`` (monotonic), be it with a refusal."""
        self._last_success_began = max(self._last_success_began, began)
        self._successes.append(self._clock.monotonic())
        self._strikes.pop(key, None)
        self._cooldown = COOLDOWN_S
        self._prune()

    def failed(self, key: ObjectKey, began: float, *, event: ObjectKey) -> Blame:
        """A read of ``key`` that began at ``began`` (monotonic) failed, client retries included.

        ``event`` stands for all objects of one event: one event with many bad objects is one.
        """
        if self.is_open:
            return "store"
        self._failures[event] = self._clock.monotonic()
        self._prune()
        failures = len(self._failures)
        share = failures / (failures + len(self._successes))
        if failures >= MIN_EVENTS and share >= RATIO:
            self._open()
            # One strike each time it opens: where bad objects are all there is to read, probes pass
            # and every opening brings one of them nearer to its verdict. A store that cannot read
            # anything costs at most one event in three openings, not a flood.
            return "object" if self._strike(key) == "object" else "store"
        return self._strike(key) if self._last_success_began >= began else "probe"

    def settle(self, key: ObjectKey, passed: bool) -> Blame:
        """What ``probe`` comes to, by a probe made after the failure."""
        if self.is_open:
            return "store"  # many reads fail at once when a store goes away: it opens once
        if passed:
            return self._strike(key)
        self._open()
        return "store"

    def _strike(self, key: ObjectKey) -> Blame:
        strikes = self._strikes.pop(key, 0) + 1
        if strikes >= STRIKES:
            return "object"
        self._strikes[key] = strikes
        if len(self._strikes) > MAX_STRIKES_KEPT:
            self._strikes.popitem(last=False)
        return "retry"

    def _open(self) -> None:
        self._open_until = self._clock.monotonic() + self._cooldown
        self._cooldown = min(2 * self._cooldown, MAX_COOLDOWN_S)

    def _prune(self) -> None:
        horizon = self._clock.monotonic() - WINDOW_S
        while self._successes and self._successes[0] < horizon:
            self._successes.popleft()
        for event in [key for key, at in self._failures.items() if at < horizon]:
            del self._failures[event]
