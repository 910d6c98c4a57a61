"""Runs a rendered container as a process, the image's and the pod's environment merged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.tools import REPOSITORY

_FIELDS = {"metadata.name": "pod-0"}
_REFERENCE = re.compile(r"\$\((\w+)\)")
SCRIPTS = {
    "moderation-worker-fetch-model": REPOSITORY / "deploy" / "fetch_model.py",
    "moderation-worker-probe": REPOSITORY / "deploy" / "probe.py",
}


def image_environment() -> dict[str, str]:
    """What the last stage of the Dockerfile, and the stage it builds on, set with ENV."""
    lines = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    stages: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        words = rest.split()
        if name == "FROM":
            current = dict(stages.get(words[0], {}))
            stages[words[2]] = current
        elif name == "ENV":
            current |= dict(word.split("=", 1) for word in words)
    return current


class Place:
    """Where a pod's paths are on this machine: each mount is a directory under ``root``."""

    def __init__(self, root: Path, secrets: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.root = root
        self.secrets = secrets or {}

    def path(self, inside: str) -> Path:
        """A path of the pod, here."""
        return self.root / inside.lstrip("/")

    def here(self, text: str, container: Mapping[str, Any]) -> str:
        """A text of the pod, its mounts replaced."""
        mounts = (each["mountPath"] for each in container["volumeMounts"])
        longest = "|".join(map(re.escape, sorted(mounts, key=len, reverse=True)))
        pattern = rf"(?<![\w/])(?:{longest})(?![\w.-])"
        return re.sub(pattern, lambda found: str(self.path(found[0])), text)

    def environment(self, container: Mapping[str, Any]) -> dict[str, str]:
        """The image's ENV with the container's over it, as the kubelet merges them."""
        merged = image_environment()
        for each in container.get("env", []):
            merged[each["name"]] = self._value(each, merged)
        return {name: self.here(value, container) for name, value in merged.items()}

    def _value(self, entry: Mapping[str, Any], before: Mapping[str, str]) -> str:
        source = entry.get("valueFrom", {})
        if "secretKeyRef" in source:
            wanted = source["secretKeyRef"]
            return self.secrets[wanted["name"]][wanted["key"]]
        if "fieldRef" in source:
            return _FIELDS[source["fieldRef"]["fieldPath"]]
        text = str(entry.get("value", ""))
        return _REFERENCE.sub(lambda found: before.get(found[1], found[0]), text)

    def run(
        self, container: Mapping[str, Any], *more: str, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run the container's command to its end; ``more`` arguments stand in place of its own
        after the program's name."""
        for mount in container["volumeMounts"]:
            self.path(mount["mountPath"]).mkdir(parents=True, exist_ok=True)
        program, *arguments = container["command"]
        tools = Path(sys.executable).parent
        start = [str(tools / program)]
        if program in SCRIPTS:
            start = [sys.executable, str(SCRIPTS[program])]
        elif program == "moderation-worker":
            start = [sys.executable, "-m", "worker"]
        given = list(more) or [self.here(each, container) for each in arguments]
        environment = self.environment(container)
        # The image's PATH names places that are not here; coverage and locale are the machine's.
        environment["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"
        environment["PYTHONPATH"] = str(REPOSITORY)
        return subprocess.run(
            [*start, *given],
            env=environment,
            cwd=self.path("/tmp"),  # the pod's
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What a process said, for a failing assertion."""
    return json.dumps(
        {"rc": done.returncode, "out": done.stdout[-2000:], "err": done.stderr[-2000:]}
    )
