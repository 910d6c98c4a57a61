"""The command starts fast: asking for a judge does not load the model's libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["factory", "scripted", "base", "context", "scheduler"])
def test_only_the_local_judge_loads_torch(module: str) -> None:
    code = (
        f"import sys, worker.judge.{module}; "
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
