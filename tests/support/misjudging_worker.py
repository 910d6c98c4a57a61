"""The real worker, but for its judge, which misbehaves on demand: ``… --config FILE``.

A user text that holds ``deadly`` ends the process, ``hangs`` never comes back where
``MISJUDGE_HANG`` is set. While the file that ``MISJUDGE_AWAY`` names is there, the judge is away.
``MISJUDGE_DELAY_S`` is slept before every answer, ``MISJUDGE_START_S`` in a thread while the model
would be loaded.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from worker import service
from worker.cli.run import run
from worker.errors import DependencyUnavailable
from worker.judge.base import Judge
from worker.judge.scripted import ScriptedJudge
from worker.judgement import Judgement, JudgeRequest, Rubric
from worker.settings import JudgeSettings


class MisbehavingJudge(ScriptedJudge):
    """A scripted judge with the faults that only a process can show."""

    def __init__(self) -> None:
        super().__init__(delay_s=float(os.environ.get("MISJUDGE_DELAY_S", "0")))
        away = os.environ.get("MISJUDGE_AWAY")
        self._away = Path(away) if away else None
        self._hangs = "MISJUDGE_HANG" in os.environ
        self._hung_at: float | None = None

    async def start(self) -> None:
        await asyncio.to_thread(time.sleep, float(os.environ.get("MISJUDGE_START_S", "0")))
        await super().start()

    async def judge(self, request: JudgeRequest) -> Judgement:
        if "deadly" in request.user:
            os._exit(9)
        if self._hangs and "hangs" in request.user:
            self._hung_at = time.monotonic()
            await asyncio.Event().wait()
        if self._away is not None and self._away.exists():
            raise DependencyUnavailable("judge", "on demand")
        return await super().judge(request)

    async def prepare(self, rubric: Rubric, adapter: str | None = None) -> None:
        """Nothing to prepare."""

    def stalled_s(self) -> float:
        return 0.0 if self._hung_at is None else time.monotonic() - self._hung_at


def _open(settings: JudgeSettings) -> Judge:
    return MisbehavingJudge()


if __name__ == "__main__":
    vars(service)["open_judge"] = _open
    run()
