"""Where the demonstration lives: a directory of its own with settings, log and pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from worker.demo.pictures import BUCKET, write_pictures
from worker.errors import ConfigurationError

MARKER = "this-is-a-demonstration"
MAX_CONTEXT = 4096


POLICIES = Path(__file__).parent / "policies"
"""Five policies in the small vocabulary of the demonstration checkpoint."""


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
