"""The local judge keeps the Judge contract, on a checkpoint of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.judge.conformance import JudgeConformance
from worker.judge.base import Judge
from worker.judge.local.judge import LocalJudge
from worker.settings import JudgeSettings


class TestLocalJudge(JudgeConformance):
    @pytest.fixture(autouse=True)
    def _checkpoint(self, checkpoint: Path) -> None:
        self.settings = JudgeSettings(model=str(checkpoint))

    def make(self) -> Judge:
        return LocalJudge(self.settings, min_constant=0.0)
