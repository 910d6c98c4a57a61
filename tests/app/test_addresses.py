"""The pages are where ``web.host`` says, in both families, or the process says why not."""

from __future__ import annotations

import asyncio
import http.client
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tools import REPOSITORY
from tests.support.worker_place import WorkerPlace
from tests.support.worker_process import WorkerProcess

PROBE = REPOSITORY / "deploy" / "probe.py"


def has_ipv6() -> bool:
    """Whether this machine has an IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def answers(host: str, port: int) -> bool:
    """Whether anybody answers ``/healthz`` there."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def probed(port: int) -> int:
    """Exit code of the image's probe."""
    return subprocess.run(
        [sys.executable, str(PROBE), "/healthz"],
        env={"MODERATION_WEB__PORT": str(port)},
        capture_output=True,
        timeout=30,
        check=False,
    ).returncode


@pytest.mark.parametrize(
    ("host", "at"),
    [
        ("::", ("127.0.0.1", "::1")),
        ("::1", ("::1",)),
        ("[::1]", ("::1",)),
        ("127.0.0.1", ("127.0.0.1",)),
    ],
)
@pytest.mark.skipif(not has_ipv6(), reason="left out: this machine has no IPv6 loopback")
async def test_the_pages_are_where_the_host_says_and_the_probe_finds_them(
    host: str, at: tuple[str, ...], place: WorkerPlace, tmp_path: Path
) -> None:
    """A cluster of IPv6 alone has no 127.0.0.1 that would be of any use to the kubelet."""
    place.change(web={"host": host})
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        found = lambda: all(answers(each, worker.port) for each in at)  # noqa: E731
        await asyncio.to_thread(worker.until, found, f"serving on {at}")
        others = {"127.0.0.1", "::1"} - set(at)
        assert not any(answers(each, worker.port) for each in others)
        assert await asyncio.to_thread(probed, worker.port) == 0


async def test_an_address_that_cannot_be_bound_is_said_before_the_model_is_loaded(
    place: WorkerPlace, tmp_path: Path
) -> None:
    """Faust alone ends without a word."""
    place.change(web={"host": "203.0.113.1"})
    with WorkerProcess(place.config, tmp_path / "log") as worker:
        assert await asyncio.to_thread(worker.ended) == 2
        assert "web.host 203.0.113.1" in worker.said()
