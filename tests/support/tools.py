"""Programs written in Go that tests drive: installed on demand into .tools/bin, then kept."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = REPOSITORY / ".tools" / "bin"
INSTALL_TIMEOUT_S = 900


class GoTool(NamedTuple):
    """A command of a Go module, at one version.

    ``go install`` refuses a module whose ``go.mod`` replaces others (``replaces``); such a command
    is built as a dependency of an empty module.
    """

    name: str
    package: str
    version: str
    replaces: bool = False

    @property
    def path(self) -> Path:
        """Where it lies; the version is part of the name, so a new pin is installed anew."""
        return BIN / f"{self.name}-{self.version}"


HELM = GoTool("helm", "helm.sh/helm/v3/cmd/helm", "v3.19.0")
COMPOSE = GoTool("compose-go", "github.com/compose-spec/compose-go/v2/cmd", "v2.16.2")
PROMTOOL = GoTool(
    "promtool", "github.com/prometheus/prometheus/cmd/promtool", "v0.305.0", replaces=True
)
"""Prometheus 3.5, the version of compose; its Go module counts otherwise."""


def helm() -> Path:
    """Path of the real ``helm``; skips the test, saying so, where there is no Go."""
    return installed(HELM)


def compose_go() -> Path:
    """Path of the loader that Docker Compose itself uses."""
    return installed(COMPOSE)


def promtool() -> Path:
    """Path of Prometheus' own checker, which runs rules over series of a test."""
    return installed(PROMTOOL)


def installed(tool: GoTool) -> Path:
    """Path of the tool, installed if it is not there. Safe to call from several processes."""
    if tool.path.is_file():
        return tool.path
    go = shutil.which("go")
    if go is None:
        pytest.skip(f"left out: {tool.name} {tool.version} needs a Go toolchain to install it")
    BIN.mkdir(parents=True, exist_ok=True)
    with (BIN / f"{tool.path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tool.path.is_file():
            _install(go, tool)
    return tool.path


def _install(go: str, tool: GoTool) -> None:
    with tempfile.TemporaryDirectory(dir=BIN) as target:
        if tool.replaces:
            _go(go, target, "mod", "init", "tools")
            _go(go, target, "get", f"{tool.package}@{tool.version}")
            _go(go, target, "build", "-trimpath", "-o", tool.name, tool.package)
        else:
            _go(go, target, "install", "-trimpath", f"{tool.package}@{tool.version}")
        (built,) = (each for each in Path(target).iterdir() if os.access(each, os.X_OK))
        built.replace(tool.path)


def _go(go: str, target: str, *arguments: str) -> None:
    done = subprocess.run(
        [go, *arguments],
        cwd=target,
        env={**os.environ, "GOBIN": target, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"go {' '.join(arguments)}: {done.stderr[-2000:]}")
