"""The compose file is what Docker Compose accepts, and its parts fit each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from moderation_tools.demo.pictures import BUCKET, PICTURES
from tests.support.tools import REPOSITORY, compose_go
from worker.settings import Settings

Compose = dict[str, Any]
ONE_SHOT = {"s3-setup", "pictures", "topics", "producer"}
OURS = ("worker", "topics", "producer", "pictures")
NO_PROBE = {"collector", "jaeger"}
"""Images without a shell or a client: nothing inside them could ask for their health."""


def test_a_file_compose_would_refuse_is_refused_here(tmp_path: Path) -> None:
    """Guards the fixture: the loader is the real one and it is strict."""
    (tmp_path / "compose.yml").write_text("services: {a: {image: x:1, port: [1]}}\n")
    done = subprocess.run(
        [str(compose_go()), "compose.yml"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0


def test_every_image_is_pinned_to_a_version(compose: Compose) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), name


def test_nothing_but_the_one_shot_volume_setup_runs_as_root(compose: Compose) -> None:
    """kafka's image names its own user; the worker's is in the Dockerfile."""
    for name, service in compose["services"].items():
        if name in ("kafka", *OURS):
            assert "user" not in service
        elif name == "s3-setup":
            assert service["network_mode"] == "none"
        else:
            assert not service["user"].startswith("0"), name


def test_ports_are_open_to_this_machine_only(compose: Compose) -> None:
    for service in compose["services"].values():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))


def test_everything_waits_for_what_it_needs(compose: Compose) -> None:
    """Healthy where there is a health check, completed where it ends by itself."""
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_started" if needed in NO_PROBE else "service_healthy"
            wanted = "service_completed_successfully" if needed in ONE_SHOT else wanted
            assert how["condition"] == wanted, f"{name} -> {needed}"
    assert set(services["worker"]["depends_on"]) == {"kafka", "s3", "topics"}
    assert set(services["producer"]["depends_on"]) == {"worker"}


def test_every_lasting_service_comes_back_and_says_how_it_is(compose: Compose) -> None:
    for name, service in compose["services"].items():
        assert (service.get("restart") == "unless-stopped") == (name not in ONE_SHOT), name
        assert ("healthcheck" in service) == (name not in ONE_SHOT | NO_PROBE), name


def test_every_mounted_file_is_in_the_repository(compose: Compose) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume["source"]
                assert volume["read_only"] is True
            else:
                assert volume["source"] in compose["volumes"]


def test_the_worker_may_read_the_bucket_the_demonstrations_pictures_are_in(
    compose: Compose,
) -> None:
    allowed = json.loads(compose["services"]["worker"]["environment"]["MODERATION_STORE__BUCKETS"])
    assert allowed == [BUCKET]


def test_the_pictures_are_written_where_the_store_looks_for_objects(
    compose: Compose, tmp_path: Path
) -> None:
    """The service's own program, run here: it fails where the package moves on without it."""
    service = compose["services"]["pictures"]
    (program,) = service["command"]
    done = subprocess.run(
        [sys.executable, "-c", program.replace("/data", str(tmp_path))],
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert {path.name for path in (tmp_path / BUCKET).iterdir()} == set(PICTURES)
    assert service["volumes"][0]["target"] == "/data"
    assert compose["services"]["s3"]["command"][-1] == "/data"


def test_a_stop_leaves_the_worker_time_to_drain(compose: Compose) -> None:
    defaults = Settings.model_construct()
    needed = defaults.stream.drain_s + defaults.kafka.transaction_timeout_s
    assert seconds(compose["services"]["worker"]["stop_grace_period"]) > needed


def seconds(duration: str) -> int:
    """Seconds of a Go duration without fractions."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([hms])", duration))


def test_the_broker_takes_the_largest_record_the_worker_produces(compose: Compose) -> None:
    broker = int(compose["services"]["kafka"]["environment"]["KAFKA_MESSAGE_MAX_BYTES"])
    assert broker > Settings.model_construct().kafka.max_message_bytes


def test_addresses_name_services_and_ports_that_are_there(compose: Compose) -> None:
    """Every ``host:port`` of a configuration is a service of this file."""
    services = set(compose["services"]) | {"localhost", "0.0.0.0", "127.0.0.1"}
    texts = [str(service.get("environment", {})) for service in compose["services"].values()]
    texts += [config.read_text() for config in (REPOSITORY / "deploy").rglob("*.y*ml")]
    hosts = set()
    for text in texts:
        hosts |= set(re.findall(r"(?:https?://|endpoint: )\"?([a-z0-9.]+):\d{4,5}", text))
    assert hosts <= services
    assert {"kafka:29092", "s3:7070", "collector:4318"} <= {
        match for text in texts for match in re.findall(r"[a-z0-9]+:\d{4,5}", text)
    }


def test_the_collector_uses_only_what_it_configures() -> None:
    config = yaml.safe_load((REPOSITORY / "deploy" / "collector" / "config.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(config[part])


@pytest.mark.parametrize("name", OURS)
def test_the_worker_runs_without_privileges_on_a_read_only_image(
    compose: Compose, name: str
) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["build"]["dockerfile"] == "Dockerfile"
