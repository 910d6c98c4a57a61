"""Instruments are the process's own: every test starts and ends with none measured."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from worker.telemetry import instruments


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    instruments.clear()
    yield
    instruments.clear()
