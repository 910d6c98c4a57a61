"""The runbook was run: every command of a ``console`` block prints what the page shows."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.test_alerts import alerts
from tests.support.pods import SCRIPTS
from tests.support.tools import REPOSITORY
from tests.support.worker_place import WorkerPlace, said
from tests.support.worker_place import place as place
from tests.support.worker_process import WorkerProcess
from worker.records import Output

PAGE = (REPOSITORY / "docs" / "runbook.md").read_text(encoding="utf-8")
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
TYPED = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
ENTRIES = dict(re.findall(r"^### (\w+)\n(.*?)(?=^### |^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
NOTE = r'\{"code": "demonstration", "detail": "[^"]*"\}(, )?'
BROKEN = "name: broken\nversion: one\nowner: a@example.com\ntopics: [chat]\n"


def typed(text: str) -> Iterator[tuple[str, str]]:
    """Commands of console blocks, and what they print."""
    for block in CONSOLE.findall(text):
        yield from TYPED.findall(block)


def test_every_alert_has_an_entry_and_every_entry_its_parts() -> None:
    """Meaning, three commands, a decision, a mend, and when it is over."""
    assert set(ENTRIES) == {rule["alert"] for rule in alerts("gpu-keda-sasl")}
    for name, text in ENTRIES.items():
        for part in ("**Means.**", "**Then.**", "**Mend.**", "**Over when**"):
            assert part in text, f"{name}: {part}"
        asked = len(list(typed(text)))
        asked += sum(len(block.strip().splitlines()) for block in SHELL.findall(text))
        assert asked >= 3, name


class Sick:
    """A worker with a history, and a shell in which ``in_pod`` runs commands beside it."""

    def __init__(self, place: WorkerPlace, worker: WorkerProcess, folder: Path) -> None:
        self.place, self.worker = place, worker
        self.tools = folder / "bin"
        self.tools.mkdir()
        for name, script in {**SCRIPTS, "moderation-worker": None}.items():
            start = f"{script}" if script else "-m worker"
            file = self.tools / name
            file.write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
            file.chmod(0o755)

    def type(self, command: str) -> str:
        """What a command prints; places of this machine are written as in the pod."""
        here = {
            "/etc/moderation-worker/worker.yaml": str(self.place.config),
            "/policies": str(self.place.policies),
            ":6066/": f":{self.worker.port}/",
            "port 6066,": f"port {self.worker.port},",
        }
        for inside, outside in here.items():
            command = command.replace(inside, outside)
        done = subprocess.run(
            ["bash", "-c", f'in_pod() {{ "$@"; }}\n{command}'],
            cwd=self.place.directory,
            env={
                **os.environ,
                "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
                "MODERATION_WEB__PORT": str(self.worker.port),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        printed = done.stdout
        for inside, outside in here.items():
            printed = printed.replace(outside, inside)
        printed = re.sub(NOTE, "", printed)  # the page shows a model that is none
        printed = re.sub(r', "demonstration": "[^"]*"', "", printed)
        return re.sub(r"(version 1  )[0-9a-f]{12}", r"\1POLICYHASH", printed)


@pytest.mark.slow
async def test_every_command_of_the_runbook_prints_what_the_page_shows(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """At three in the morning a command that does not exist costs more than none."""
    wrong = []
    with WorkerProcess(place.config, tmp_path / "worker.log") as worker:
        await asyncio.to_thread(worker.wait_ready)
        lost = {"uri": "s3://pics/lost.png"}
        await place.write([said("hello", number) for number in range(3)])
        await place.write([said("murder", 3), said("look", 4, images=[lost])])
        await place.write([Output(topic="chat", key=b"k", value=b"not json", headers=())])
        await place.until(5, 1)
        sick = Sick(place, worker, tmp_path)
        for name, text in {"": PAGE.partition("\n## ")[0], **ENTRIES}.items():
            if name == "ModerationPolicyRefused":
                (place.policies / "broken.yaml").write_text(BROKEN)
                await asyncio.to_thread(
                    worker.until, lambda: worker.metric("moderation_policy_problems") > 0, "refused"
                )
            for command, shown in typed(text):
                printed = await asyncio.to_thread(sick.type, command)
                if printed != shown:
                    wrong.append(f"{name}\n$ {command}\n--- shown\n{shown}--- printed\n{printed}")
    assert not wrong, "\n\n".join(wrong)
