"""Where the demonstration lives: a directory of its own with settings, log and pictures."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import yaml

from moderation_tools.demo.pictures import BUCKET, write_pictures
from worker.errors import ConfigurationError
from worker.settings.load import PREFIX

MARKER = "this-is-a-demonstration"
MAX_CONTEXT = 4096


POLICIES = Path(__file__).parent / "policies"
"""Five policies in the small vocabulary of the demonstration checkpoint."""


def leave_settings_out() -> None:
    """Forget the variables of a real deployment: a demonstration must never write to its Kafka."""
    for name in [each for each in os.environ if each.upper().startswith(PREFIX)]:
        del os.environ[name]


def require_free(port: int) -> None:
    """Refuse a port that is taken, before the files of whoever took it are emptied.

    Raises:
        ConfigurationError: something listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigurationError(
                f"--port {port}: something listens there already, perhaps another demonstration; "
                f'end it, or name another port: make demo ARGS="--port {port % 65_535 + 1}"'
            ) from error


def prepare(directory: Path, port: int) -> Path:
    """Empty ``directory``, lay everything out in it, and return its settings file.

    Raises:
        ConfigurationError: the directory holds something that is not a demonstration.
    """
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARKER).exists():
            raise ConfigurationError(
                f"--directory {directory}: it holds files of others and would be emptied; "
                "name a new or an empty directory"
            )
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARKER).touch()
    write_pictures(directory / "objects")
    settings = {
        "log": {"backend": "local", "directory": str((directory / "log").absolute())},
        "store": {
            "backend": "directory",
            "directory": str((directory / "objects").absolute()),
            "buckets": [BUCKET],
        },
        "judge": {"backend": "local", "model": "tiny", "max_context": MAX_CONTEXT},
        "policies": {"directory": str(POLICIES)},
        "web": {"port": port},
    }
    file = directory / "worker.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return file
