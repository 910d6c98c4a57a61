"""Why no broker could be reached: which setting to change, where the brokers let us know."""

from __future__ import annotations

import ssl

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from worker.errors import FatalError
from worker.settings import Kafka
from worker.stream.kafka_connection import connection_options

_MECHANISM = (UnsupportedSaslMechanismError, IllegalSaslStateError)
_REFUSED = (AuthenticationFailedError, SaslAuthenticationFailed)


async def unreachable(kafka: Kafka, error: BaseException) -> FatalError:
    """No broker answered, or none that lets us in. aiokafka says no more than that much."""
    reason = await refusal(kafka)
    if reason is not None:
        return reason
    return FatalError(
        f"no Kafka at {kafka.bootstrap_servers}: {error!r}; check "
        "kafka.bootstrap_servers and kafka.security"
    )


async def refusal(kafka: Kafka) -> FatalError | None:
    """Why the brokers would never let us in, from a connection of its own; None: they may yet."""
    options = connection_options(kafka, "probe")
    servers = options.pop("bootstrap_servers")
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
