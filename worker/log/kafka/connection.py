"""Why no broker could be reached: which setting to change, where the brokers let us know."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from worker.errors import ConfigurationError, DependencyUnavailable, FatalError
from worker.settings import Kafka, KafkaSecurity

# Every metadata request of aiokafka 0.14 allows the broker to create the topics that it asks for:
# a topic that was deleted under a running worker came back, with one partition. Held by
# tests/log/test_kafka_topics.py.
vars(MetadataRequest)["__init__"].__defaults__ = (None, False)

METADATA_MAX_AGE_MS = 20_000
"""How old the brokers' word may be: partitions that were added are read within so long."""

# From settings to the keyword arguments of aiokafka's clients.


def milliseconds(seconds: float) -> int:
    """Seconds of the settings as the milliseconds the protocol speaks."""
    return max(1, round(seconds * 1000))


def connection_options(kafka: Kafka, role: str) -> dict[str, Any]:
    """Options every client shares; ``role`` ends the client id (``consumer``, ``admin``, …).

    Raises:
        ConfigurationError: a certificate or password file cannot be read.
    """
    security = kafka.security
    options: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": f"{kafka.client_id}-{role}",
        "request_timeout_ms": milliseconds(kafka.request_timeout_s),
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
        "security_protocol": security.protocol,
    }
    if security.protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(security)
    if security.protocol.startswith("SASL"):
        options["sasl_mechanism"] = security.sasl_mechanism
        options["sasl_plain_username"] = security.username
        options["sasl_plain_password"] = _password(security)
    return options


def _ssl_context(security: KafkaSecurity) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=str(security.ca_file) if security.ca_file else None
        )
        if security.certificate_file:
            key = str(security.key_file) if security.key_file else None
            context.load_cert_chain(str(security.certificate_file), key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"kafka.security: a TLS file cannot be used ({error}); check ca_file, "
            "certificate_file and key_file"
        ) from error
    return context


def _password(security: KafkaSecurity) -> str:
    if security.password_file:
        return _read(security.password_file)
    return security.password.get_secret_value() if security.password else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"kafka.security.password_file: {path} cannot be read ({error.__class__.__name__})"
        ) from error


_MECHANISM = (UnsupportedSaslMechanismError, IllegalSaslStateError)
_REFUSED = (AuthenticationFailedError, SaslAuthenticationFailed)


async def unreachable(kafka: Kafka, error: BaseException) -> FatalError:
    """No broker answered, or none that lets us in: what a command says that cannot wait."""
    return await refusal(kafka) or FatalError(_nowhere(kafka, error))


def away(kafka: Kafka, error: BaseException) -> DependencyUnavailable:
    """No broker answers: what a worker says that waits for one."""
    return DependencyUnavailable("log", _nowhere(kafka, error))


def _nowhere(kafka: Kafka, error: BaseException) -> str:
    return (
        f"no Kafka at {kafka.bootstrap_servers}: {error!r}; check "
        "kafka.bootstrap_servers and kafka.security"
    )


async def refusal(kafka: Kafka) -> FatalError | None:
    """Why the brokers would never let us in, from a connection of its own; None: they may yet."""
    options = connection_options(kafka, "probe")
    servers = options.pop("bootstrap_servers")
    del options["metadata_max_age_ms"]
    for host, port, _ in collect_hosts(servers):
        where = f"{host}:{port}"
        try:
            connection = await create_conn(host, port, **options)
        except ssl.SSLCertVerificationError as error:
            return FatalError(
                f"the certificate of {where} is not trusted ({error.verify_message}); "
                "check kafka.security.ca_file"
            )
        except ssl.SSLError as error:
            return FatalError(
                f"no TLS with {where} ({error.reason}); check kafka.security.protocol, "
                "certificate_file and key_file"
            )
        except _MECHANISM:
            return FatalError(
                f"{where} does not take {kafka.security.sasl_mechanism}; "
                "check kafka.security.sasl_mechanism and kafka.security.protocol"
            )
        except _REFUSED:
            return FatalError(
                f"{where} refuses the user or the password; check kafka.security.username, "
                "kafka.security.password_file (or password) and kafka.security.sasl_mechanism"
            )
        except (KafkaError, OSError, TimeoutError):
            continue
        connection.close()
    return None
