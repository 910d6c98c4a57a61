"""The real worker as a process: started, watched over HTTP, stopped and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.kafka import free_ports

ROOT = Path(__file__).resolve().parents[2]
LOOK_EVERY_S = 0.05
START_S = 120.0


def run_command(config: Path) -> list[str]:
    """What a user starts."""
    return [sys.executable, "-m", "worker", "run", "--config", str(config)]


def misjudge_command(config: Path) -> list[str]:
    """The same process with a judge that misbehaves on demand."""
    return [sys.executable, "-m", "tests.support.misjudging_worker", "--config", str(config)]


class WorkerProcess:
    """``with WorkerProcess(config, log) as worker``: a process of its own, gone afterwards.

    Standard output and error go to ``log``, one file a process. ``command`` makes the command line
    of a settings file.
    """

    def __init__(
        self,
        config: Path,
        log: Path,
        *,
        command: Callable[[Path], Sequence[str]] = run_command,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.port = free_ports(1)[0]
        ours = {"PYTHONPATH": str(ROOT), "MODERATION_WEB__PORT": str(self.port)}
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                list(command(config)),
                stdout=stream,
                stderr=stream,
                env={**os.environ, **ours, **(env or {})},
                cwd=ROOT,
            )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page; (0, b"") where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON body of ``/healthz`` or ``/readyz``."""
        status, body = self.get(path)
        return status, json.loads(body or b"{}")

    def problems(self, path: str) -> list[str]:
        """Codes of what a probe finds wrong."""
        return [problem["code"] for problem in self.probe(path)[1].get("problems", ())]

    def metrics(self) -> str:
        """The page Prometheus reads."""
        return self.get("/metrics")[1].decode()

    def metric(self, name: str, **labels: str) -> float:
        """Sum over the samples of ``name`` that carry ``labels``."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        found = [
            float(line.rpartition(" ")[2])
            for line in self.metrics().splitlines()
            if line.partition("{")[0].partition(" ")[0] == name
            and all(each in line for each in wanted)
        ]
        return sum(found)

    def said(self) -> str:
        """Everything written to standard output and error so far."""
        return self.log.read_text(errors="replace")

    def until(self, met: Callable[[], bool], what: str, deadline_s: float = START_S) -> None:
        """Look again and again until ``met``; fails after ``deadline_s``, or at its end."""
        deadline = time.monotonic() + deadline_s
        while not met():
            code = self.process.poll()
            assert code is None, f"the worker ended with code {code}:\n{self.said()[-3000:]}"
            assert time.monotonic() < deadline, f"not {what}:\n{self.said()[-3000:]}"
            time.sleep(LOOK_EVERY_S)

    def wait_ready(self) -> None:
        """Wait until ``/readyz`` says so."""
        self.until(lambda: self.get("/readyz")[0] == 200, "ready")

    def wait_web(self) -> None:
        """Wait until anybody answers at all."""
        self.until(lambda: self.get("/healthz")[0] != 0, "serving its pages")

    def terminate(self, deadline_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.ended(deadline_s)

    def ended(self, deadline_s: float = 30.0) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(deadline_s)
