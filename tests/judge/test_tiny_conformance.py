"""The local judge keeps the Judge contract on the bundled checkpoint, in the format it writes."""

from __future__ import annotations

import pytest

from tests.judge.conformance import JudgeConformance
from worker.judge.base import Judge
from worker.judge.factory import open_judge
from worker.settings import JudgeSettings


@pytest.mark.model
class TestTinyJudge(JudgeConformance):
    def make(self) -> Judge:
        return open_judge(JudgeSettings(model="tiny"))
