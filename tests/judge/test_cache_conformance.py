"""A judge that remembers keeps every promise of the judge behind it."""

from __future__ import annotations

from tests.judge.conformance import JudgeConformance
from worker.judge.base import Judge
from worker.judge.cache import CachingJudge
from worker.judge.scripted import ScriptedJudge


class TestCachingJudge(JudgeConformance):
    """The conformance suite on a cache in front of the scripted judge."""

    def make(self) -> Judge:
        return CachingJudge(ScriptedJudge(), 1 << 20)
