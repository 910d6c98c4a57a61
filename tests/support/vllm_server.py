"""A real vLLM server on this machine's CPU, for as long as a ``with`` block lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.support.s3 import free_port
from tests.support.vllm_environment import command

START_S = 900.0
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


@contextlib.contextmanager
def vllm_serving(directory: Path, log: Path, *, dtype: str = "float32") -> Iterator[str]:
    """Serve a checkpoint as ``tiny``; yields where the API begins. Its output goes to ``log``."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    vllm = command()
    arguments = [
        *(str(vllm), "serve", str(directory), "--served-model-name", "tiny"),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", dtype),
        *("--max-model-len", "4096", "--max-num-seqs", "16"),
        *("--limit-mm-per-prompt", '{"image": 1}'),
    ]
    threads = os.environ.get("OMP_NUM_THREADS", "2")
    path = f"{vllm.parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | _QUIET | {"PATH": path, "OMP_NUM_THREADS": threads}
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait(process, f"{url}/health", log)
            yield f"{url}/v1"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"vLLM ended at start:\n{log.read_text(errors='replace')[-3000:]}")
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1.0)
    raise TimeoutError(f"vLLM was not ready within {START_S:.0f} s")
