"""The judge that the settings ask for. The model's libraries are imported only where it runs."""

from __future__ import annotations

from worker.judge.base import Judge
from worker.judge.cache import CachingJudge
from worker.judge.scripted import ScriptedJudge
from worker.settings import JudgeSettings


def open_judge(settings: JudgeSettings) -> Judge:
    """An unstarted judge; ``start`` loads it and raises ``ConfigurationError`` where it cannot."""
    judge = _judge(settings)
    return CachingJudge(judge, settings.cache_bytes) if settings.cache_bytes else judge


def _judge(settings: JudgeSettings) -> Judge:
    if settings.backend == "scripted":
        return ScriptedJudge(guard=settings.guard)
    if settings.backend == "remote":
        # Imported here: only who asks a server needs a client.
        from worker.judge.remote.judge import RemoteJudge

        return RemoteJudge(settings)
    # Imported here: torch takes seconds, and most commands never judge.
    from worker.judge.local.judge import LocalJudge

    return LocalJudge(settings)
