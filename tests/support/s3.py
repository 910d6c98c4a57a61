"""A real S3 API over HTTP for tests: versitygw, or moto's server where there is no Go.

``pytest_plugins`` is not used; a suite's conftest imports the fixture ``s3_server`` by name.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest

VERSITYGW = "v1.8.0"
_MODULE = "github.com/versity/versitygw/cmd/versitygw"
_TOOLS = Path(__file__).parents[2] / ".tools" / "bin"
ACCESS_KEY = "test-access"
SECRET_KEY = "test-secret-key"


class S3Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server that runs: where, what it is, and the keys it takes."""

    endpoint_url: str
    implementation: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = "us-east-1"

    def client(self) -> Any:
        """A client with every right, for arranging objects."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
        )

    def environment(self) -> dict[str, str]:
        """Credentials as the worker takes them."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def versitygw() -> Path | None:
    """The pinned gateway, built once into ``.tools/bin``; None where there is no Go."""
    built = _TOOLS / f"versitygw-{VERSITYGW}"
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        return None
    _TOOLS.mkdir(parents=True, exist_ok=True)
    scratch = _TOOLS / f".build-{os.getpid()}"
    subprocess.run(
        [go, "install", f"{_MODULE}@{VERSITYGW}"],
        env={**os.environ, "GOBIN": str(scratch)},
        check=True,
        capture_output=True,
        timeout=900,
    )
    (scratch / "versitygw").replace(built)
    scratch.rmdir()
    return built


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_s3(directory: Path) -> Iterator[S3Server]:
    """Run a server that keeps its objects below ``directory``."""
    gateway, port = versitygw(), free_port()
    if gateway is not None:
        for part in ("objects", "versions", "meta"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        command = [str(gateway), "--port", f"127.0.0.1:{port}", "--access", ACCESS_KEY]
        command += ["--secret", SECRET_KEY, "--quiet", "posix", "--sidecar"]
        command += [str(directory / "meta"), "--versioning-dir", str(directory / "versions")]
        command += [str(directory / "objects")]
    else:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process)
        yield S3Server(endpoint_url=url, implementation="versitygw" if gateway else "moto")
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the S3 server ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except urllib.error.HTTPError as error:
            error.close()
            return  # it answers, and that is all that is asked
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the S3 server did not come up within a minute")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One server for the whole run; every test takes a bucket of its own."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server
