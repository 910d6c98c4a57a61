"""The Judge interface and its values. No torch here: everything that calls a judge imports this."""

from __future__ import annotations

from typing import Protocol

from worker.contracts.verdict import ModelRef
from worker.judgement import Judgement, JudgeRequest, Rubric


class Judge(Protocol):
    """Judges passes. Calls run concurrently; batching is the judge's own business.

    Conformance: tests/judge/conformance.py. ``judge`` raises ``Undecided`` for a fault of this one
    request and ``DependencyUnavailable`` for a fault of the whole judge (device lost, server down).
    """

    def model(self, adapter: str | None = None) -> ModelRef:
        """Identity of the model under an adapter, as verdicts name it."""
        ...

    async def start(self) -> None:
        """Load and warm up; returns when the first request would be judged without delay."""
        ...

    async def prepare(self, rubric: Rubric, adapter: str | None = None) -> None:
        """Make the first event under a rubric as fast as the next ones, before it goes live.

        Raises:
            ConfigurationError: no event can be judged under it: it leaves no room in the context,
                or its adapter does not fit.
        """
        ...

    async def judge(self, request: JudgeRequest) -> Judgement: ...

    def stalled_s(self) -> float:
        """Seconds the oldest batch has been on the device; 0 when idle. Feeds the watchdog."""
        ...

    async def stop(self) -> None:
        """Finish what is on the device, refuse the rest, release the device."""
        ...
