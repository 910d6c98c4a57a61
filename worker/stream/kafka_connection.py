"""From settings to the keyword arguments of aiokafka's clients."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from worker.errors import ConfigurationError
from worker.settings import Kafka, KafkaSecurity


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
