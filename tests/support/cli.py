"""The command line as a user has it: a process, its exit code and what it printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.support.worker_process import ROOT


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended."""

    code: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def moderation_worker(
    *arguments: object,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
) -> Answer:
    """Run ``moderation-worker`` with these arguments; ``stdin`` is piped in."""
    done = subprocess.run(
        [sys.executable, "-m", "worker", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )
    return Answer(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


def written(path: Path, text: str) -> Path:
    """``path`` with ``text`` in it."""
    path.write_text(text, encoding="utf-8")
    return path
