"""A real Apache Kafka for tests: jars from Maven, brokers as child processes, one or three."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KAFKA_VERSION = "4.1.0"
LEFT_OUT = "left out: Apache Kafka needs Java 17 and Maven on this machine"
"""The one reason a broker test may be skipped for; CI fails on it where the tools are there."""
CACHE = Path(os.environ.get("MODERATION_KAFKA_CACHE", Path.home() / ".cache/moderation-kafka"))
BOOT_S = 60.0

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
<version>1.7.36</version></dependency></dependencies></project>"""


def available() -> bool:
    """Whether this machine can run a broker."""
    return shutil.which("java") is not None and shutil.which("mvn") is not None


def classpath() -> str:
    """The broker's jars; fetched by Maven once, found in its repository afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    listing = CACHE / f"classpath-{KAFKA_VERSION}.txt"
    if listing.is_file():
        jars = listing.read_text().strip()
        if all(Path(jar).is_file() for jar in jars.split(":")):
            return jars
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "pom.xml").write_text(_POM)
        subprocess.run(
            ["mvn", "-q", "-B", "dependency:build-classpath", "-Dmdep.includeScope=runtime",
             f"-Dmdep.outputFile={work}/cp.txt"],
            cwd=work, check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        jars = (Path(work) / "cp.txt").read_text().strip()
    partial = listing.with_suffix(f".{os.getpid()}")
    partial.write_text(jars)
    partial.replace(listing)
    return jars


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on right now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Broker:
    """One node, broker and controller in one process."""

    def __init__(self, directory: Path, properties: dict[str, str], port: int) -> None:
        self.directory = directory
        self.port = port
        self.config = directory / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.config.write_text("\n".join(f"{name}={value}" for name, value in properties.items()))

    def format(self, cluster_id: str, *more: str) -> None:
        """Write the node's identity into its empty data directory."""
        self._java(
            "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self.config), *more
        )

    def start(self) -> None:
        """Start without waiting; see ``wait``."""
        log = (self.directory / "broker.log").open("ab")
        self._process = subprocess.Popen(
            [*_java(), "-Xms256m", "-Xmx512m", "kafka.Kafka", str(self.config)],
            stdout=log, stderr=log, cwd=self.directory, start_new_session=True,
        )  # fmt: skip
        log.close()

    def wait(self) -> None:
        """Wait until the listener answers."""
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        tail = (self.directory / "broker.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"broker on port {self.port} did not start:\n{tail}")

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to end, then insist."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _java(self, *arguments: str) -> None:
        subprocess.run([*_java(), *arguments], check=True, capture_output=True, timeout=120)


class Cluster:
    """Brokers of one cluster."""

    def __init__(self, brokers: list[Broker]) -> None:
        self.brokers = brokers

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)


@contextmanager
def cluster(directory: Path, nodes: int) -> Iterator[Cluster]:
    """Format and boot ``nodes`` brokers; all are gone afterwards."""
    ports = free_ports(2 * nodes)
    listeners, controllers = ports[:nodes], ports[nodes:]
    voters = ",".join(f"{node + 1}@127.0.0.1:{port}" for node, port in enumerate(controllers))
    cluster_id = new_cluster_id()
    brokers = [
        Broker(
            directory / f"node-{node + 1}",
            broker_properties(directory, node, nodes, listeners[node], controllers[node], voters),
            listeners[node],
        )
        for node in range(nodes)
    ]
    try:
        for broker in brokers:
            broker.format(cluster_id)
            broker.start()
        for broker in brokers:
            broker.wait()
        yield Cluster(brokers)
    finally:
        for broker in brokers:
            broker.kill()


def broker_properties(
    directory: Path, node: int, nodes: int, port: int, controller: int, voters: str
) -> dict[str, str]:
    """The configuration of node ``node`` (from 0) of ``nodes``."""
    replicas, in_sync = str(min(nodes, 3)), str(min(nodes, 2))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node + 1),
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(directory / f"node-{node + 1}" / "data"),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "auto.create.topics.enable": "true",  # so that a test sees who would create a topic
        "num.partitions": "1",
    }


def _java() -> list[str]:
    return ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath()]


def new_cluster_id() -> str:
    """An id as Kafka makes them."""
    done = subprocess.run(
        [*_java(), "kafka.tools.StorageTool", "random-uuid"],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One broker for the whole run."""
    if not available():
        pytest.skip(LEFT_OUT)
    with cluster(tmp_path_factory.mktemp("kafka"), 1) as running:
        yield running


@pytest.fixture
def kafka_of_three(tmp_path: Path) -> Iterator[Cluster]:
    """Three brokers, replication 3, two in sync at least; a test may kill one."""
    if not available():
        pytest.skip(LEFT_OUT)
    with cluster(tmp_path, 3) as running:
        yield running
