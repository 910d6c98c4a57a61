"""A broker that asks for TLS and a password, beside its plain listener for the test itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.kafka import Broker, broker_properties, free_ports, new_cluster_id

USER, PASSWORD = "worker", "correct horse"
_LOGIN = "org.apache.kafka.common.security"


class SecureCluster:
    """One broker; ``security`` are the settings of ``kafka.security`` that it accepts."""

    def __init__(self, broker: Broker, port: int, ca_file: Path) -> None:
        self.broker = broker
        self.bootstrap_servers = f"127.0.0.1:{port}"
        self.ca_file = ca_file

    def security(self, **changes: Any) -> dict[str, Any]:
        """What lets a client in, but for ``changes``."""
        return {
            "protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "username": USER,
            "password": PASSWORD,
            "ca_file": str(self.ca_file),
            **changes,
        }


@contextmanager
def secure_cluster(directory: Path) -> Iterator[SecureCluster]:
    """Boot it; it is gone afterwards."""
    authority = trustme.CA()
    ca_file, key_store = directory / "ca.pem", directory / "broker.pem"
    authority.cert_pem.write_to_path(ca_file)
    key_store.write_bytes(_key_store(authority.issue_cert("127.0.0.1")))
    plain, secure, controller = free_ports(3)
    properties = broker_properties(directory, 0, 1, plain, controller, f"1@127.0.0.1:{controller}")
    properties["listeners"] += f",SECURE://127.0.0.1:{secure}"
    properties["advertised.listeners"] += f",SECURE://127.0.0.1:{secure}"
    properties["listener.security.protocol.map"] += ",SECURE:SASL_SSL"
    prefix = "listener.name.secure"
    properties |= {
        "inter.broker.listener.name": "PLAINTEXT",
        f"{prefix}.ssl.keystore.type": "PEM",
        f"{prefix}.ssl.keystore.location": str(key_store),
        f"{prefix}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        f"{prefix}.plain.sasl.jaas.config": f"{_LOGIN}.plain.PlainLoginModule required "
        f'user_{USER}="{PASSWORD}";',
        f"{prefix}.scram-sha-512.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
    }
    broker = Broker(directory / "node-1", properties, secure)
    try:
        broker.format(
            new_cluster_id(), "--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        )
        broker.start()
        broker.wait()
        yield SecureCluster(broker, secure, ca_file)
    finally:
        broker.kill()


def _key_store(certificate: trustme.LeafCert) -> bytes:
    """Key and chain in one PEM file; Kafka reads keys as PKCS 8 only."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + b"".join(
        each.bytes() for each in certificate.cert_chain_pems
    )
