"""The local log keeps what every log promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.log.conformance import LogConformance
from tests.support.log_backends import LocalBackend


class TestLocalLog(LogConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> LocalBackend:
        return LocalBackend(tmp_path)
