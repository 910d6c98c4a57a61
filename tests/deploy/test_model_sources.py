"""Each source of the model, run for real: the init container's command in the pod's environment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import container, pod_spec, render, worker_yaml
from tests.support.fake_hub import FakeHub, fake_hub
from tests.support.pods import Place, image_environment, told
from tests.support.s3 import S3Server
from tests.support.s3 import s3_server as s3_server
from worker.checkpoints import TINY

REPOSITORY = "nvidia/Nemotron-3.5-Content-Safety"
REVISION = "35645ed3543b7e7ffaed2e788699e57a5051497c"
CONFIG = "/etc/moderation-worker"
FILES = {
    path.relative_to(TINY).as_posix(): path.read_bytes()
    for path in sorted(Path(TINY).rglob("*"))
    if path.is_file()
}
SECRETS = {
    "hub-token": {"token": "hf_secret"},
    "s3-credentials": {"access-key-id": "test-access", "secret-access-key": "test-secret-key"},
}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """The pinned repository; in it, the demonstration checkpoint."""
    with fake_hub(REPOSITORY, REVISION, FILES) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "pod", SECRETS)


def fetching(*sets: str, values: str = "s3-irsa") -> dict[str, Any]:
    """The init container that fetches the model."""
    found: dict[str, Any] = pod_spec(render(values, *sets))["initContainers"][0]
    assert found["name"] == "fetch-model"
    return found


def model_here(place: Place, *sets: str, values: str = "s3-irsa") -> Path:
    """Where the worker of this pod, offline, finds its model: asked of the loader itself."""
    manifests = render(values, *sets)
    worker = container(manifests)
    file = place.path(CONFIG) / "worker.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(place.here(worker_yaml(manifests), worker))
    program = (
        "import sys; from pathlib import Path; from worker.settings import load_settings; "
        "from worker.judge.local.loading import read_words, resolve; "
        "from transformers.utils import cached_file; "
        "source = resolve(load_settings(Path(sys.argv[1])).judge); read_words(source); "
        "print('model in', source.directory or "
        "Path(cached_file(source.location, 'config.json', revision=source.revision)).parent)"
    )
    asked = {**worker, "command": ["python", "-c", program, f"{CONFIG}/worker.yaml"]}
    (place.path("/tmp")).mkdir(parents=True, exist_ok=True)
    done = place.run(asked)
    assert done.returncode == 0, told(done)
    return Path(done.stdout.strip().rpartition("model in ")[2])


def test_the_image_is_offline_and_the_init_container_is_not() -> None:
    """Merged as the kubelet merges: what the image sets stays unless the container says more."""
    assert image_environment()["HF_HUB_OFFLINE"] == "1"
    merged = Place(Path("/x"), SECRETS).environment(fetching())
    assert merged["HF_HUB_OFFLINE"] == "0"
    assert merged["HF_TOKEN"] == "hf_secret"


def test_the_documented_hub_install_downloads_and_the_worker_starts_from_it_offline(
    hub: FakeHub, place: Place
) -> None:
    """From a mirror, with the token, at the pinned commit."""
    hub.token = "hf_secret"
    mirror = f"model.hub.endpoint={hub.address}"

    done = place.run(fetching(mirror))

    assert done.returncode == 0, told(done)
    found = model_here(place, mirror)
    assert found.is_relative_to(place.path("/models/hub"))
    assert (found / "config.json").read_bytes() == FILES["config.json"]
    assert {path for _, path, _ in hub.asked if "resolve" in path} == {
        f"/{REPOSITORY}/resolve/{REVISION}/{name}" for name in FILES
    }


def test_a_proxy_of_the_pod_is_the_init_containers_too(hub: FakeHub, place: Place) -> None:
    """Clusters without a way out of their own have one for everything."""
    sets = (
        "model.hub.endpoint=http://mirror.example.com",
        "extraEnv[0].name=HTTP_PROXY",
        f"extraEnv[0].value={hub.address}",
        "extraEnv[1].name=HF_HUB_OFFLINE",
        "extraEnv[1].value=1",
    )

    done = place.run(fetching(*sets))

    assert done.returncode == 0, told(done)
    assert {host for _, _, host in hub.asked} == {"mirror.example.com"}


def test_an_environment_for_the_fetch_alone_stands_over_the_pods() -> None:
    sets = (
        "extraEnv[0].name=HTTPS_PROXY",
        "extraEnv[0].value=http://everyone:3128",
        "model.fetch.env[0].name=HTTPS_PROXY",
        "model.fetch.env[0].value=http://models:3128",
    )
    env = [each for each in fetching(*sets)["env"] if each["name"] == "HTTPS_PROXY"]
    assert [each["value"] for each in env] == ["http://models:3128"]
    worker = container(render("s3-irsa", *sets))["env"]
    assert {"name": "HTTPS_PROXY", "value": "http://everyone:3128"} in worker


def test_a_hub_that_refuses_the_token_fails_the_init_container(hub: FakeHub, place: Place) -> None:
    """The pod stays in Init, restarts are counted, and an alert says so."""
    hub.token = "another"

    done = place.run(fetching(f"model.hub.endpoint={hub.address}"))

    assert done.returncode != 0
    assert done.stdout + done.stderr


def sums(files: dict[str, bytes]) -> str:
    """As ``sha256sum`` prints them."""
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """A bucket with the checkpoint, and a file beside it that nobody reviewed."""
    client, name = s3_server.client(), "models"
    if name not in {each["Name"] for each in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=name)
    for file, data in {**FILES, "surprise.bin": b"x"}.items():
        client.put_object(Bucket=name, Key=f"guard/v1/{file}", Body=data)
    return "s3://models/guard/v1"


def from_s3(server: S3Server, uri: str, listing: str) -> dict[str, Any]:
    """The init container of ``model.source: s3``."""
    manifests = render("s3-irsa", *s3_sets(server, uri, listing))
    found: dict[str, Any] = pod_spec(manifests)["initContainers"][0]
    return found


def s3_sets(server: S3Server, uri: str, listing: str) -> tuple[str, ...]:
    return (
        "model.source=s3",
        f"model.s3.uri={uri}",
        f"model.s3.sha256sums={listing}",
        f"model.s3.endpoint={server.endpoint_url}",
        "model.s3.region=us-east-1",
        "storeAuth.existingSecret=s3-credentials",
    )


def test_a_checkpoint_comes_from_s3_with_every_file_checked(
    s3_server: S3Server, bucket: str, place: Place
) -> None:
    """What is not listed is not fetched; what is there and right is not fetched again."""
    init = from_s3(s3_server, bucket, sums(FILES))

    done = place.run(init)

    assert done.returncode == 0, told(done)
    assert not (place.path("/models/checkpoint") / "surprise.bin").exists()
    again = place.run(init)
    assert "there and right" in again.stdout
    sets = s3_sets(s3_server, bucket, sums(FILES))
    assert model_here(place, *sets) == place.path("/models/checkpoint")


def test_a_file_that_is_not_the_reviewed_one_is_refused(
    s3_server: S3Server, bucket: str, place: Place
) -> None:
    """Nothing is left where the worker would look."""
    listing = sums({**FILES, "config.json": b"{}"})

    done = place.run(from_s3(s3_server, bucket, listing))

    assert done.returncode == 1
    assert "config.json has the SHA-256" in done.stderr
    assert not place.path("/models/checkpoint").exists()


def test_what_was_fetched_before_and_is_damaged_is_fetched_again(
    s3_server: S3Server, bucket: str, place: Place
) -> None:
    """A claim outlives its pods, and a pod may have died in the middle."""
    init = from_s3(s3_server, bucket, sums(FILES))
    assert place.run(init).returncode == 0
    (place.path("/models/checkpoint") / "config.json").write_bytes(b"{")

    done = place.run(init)

    assert done.returncode == 0, told(done)
    restored = (place.path("/models/checkpoint") / "config.json").read_bytes()
    assert restored == FILES["config.json"]


@pytest.mark.parametrize(
    ("values", "inside"), [("everything-off", "/models"), ("gpu-keda-sasl", "/models/checkpoint")]
)
def test_a_claim_and_an_image_volume_are_read_where_they_are_mounted(
    values: str, inside: str, place: Place
) -> None:
    """No init container, no network: the worker reads the directory."""
    directory = place.path(inside)
    directory.mkdir(parents=True)
    for name, data in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    secrets = {"kafka-credentials": {"username": "u"}, **SECRETS}

    assert "initContainers" not in pod_spec(render(values))
    assert model_here(Place(place.root, secrets), values=values) == directory


def test_a_remote_judge_needs_no_model_and_no_gpu() -> None:
    sets = ("settings.judge.backend=remote", "settings.judge.remote.base_url=http://vllm:8000/v1")
    manifests = render("default", *sets)
    assert "model" not in yaml.safe_load(worker_yaml(manifests))["judge"]
    assert "model" not in {each["name"] for each in pod_spec(manifests)["volumes"]}


def test_the_place_replaces_mounts_and_nothing_that_only_looks_like_one() -> None:
    """Guards the harness."""
    place = Place(Path("/here"))
    found = place.here(json.dumps(["/models/x", "nvidia/models", "/tmp"]), MOUNTS)
    assert json.loads(found) == ["/here/models/x", "nvidia/models", "/here/tmp"]


MOUNTS = {"volumeMounts": [{"mountPath": "/models"}, {"mountPath": "/tmp"}]}
