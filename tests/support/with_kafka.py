"""Run a command beside a broker of its own: ``python -m tests.support.with_kafka COMMAND …``.

The command finds the broker in ``MODERATION_KAFKA__BOOTSTRAP_SERVERS``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.kafka import LEFT_OUT, available, cluster


def main(command: list[str]) -> int:
    """The command's exit code; 2 where no broker can be run here."""
    if not available():
        print(LEFT_OUT, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory, cluster(Path(directory), 1) as running:
        address = {"MODERATION_KAFKA__BOOTSTRAP_SERVERS": running.bootstrap_servers}
        return subprocess.run(command, env={**os.environ, **address}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
