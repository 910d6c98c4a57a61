"""The command starts fast: asking for a judge does not load the model's libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "judge.factory",
        "judge.scripted",
        "judge.base",
        "judge.cache",
        "judge.remote.judge",
        "guard.registry",
    ],
)
def test_only_the_local_judge_loads_torch(module: str) -> None:
    code = (
        f"import sys, worker.{module}; "
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"
