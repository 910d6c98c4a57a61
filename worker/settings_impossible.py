"""Combinations of settings that cannot work, or that would quietly not count."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.settings import JudgeSettings, KafkaSecurity, Settings

_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


def impossible(settings: Settings) -> Iterator[str]:
    """Every problem; each message names the settings to change."""
    yield from _security(settings.kafka.security)
    yield from _sizes(settings)
    yield from _topics(settings)
    yield from _judge(settings.judge)


def _security(security: KafkaSecurity) -> Iterator[str]:
    protocol = f"kafka.security.protocol is {security.protocol}"
    password = security.password or security.password_file
    if security.protocol.startswith("SASL"):
        if not (security.username and password):
            yield f"{protocol}: set kafka.security.username and kafka.security.password_file"
    elif security.username or password:
        yield (
            f"{protocol}, which proves no user: set it to SASL_SSL, or leave out "
            "kafka.security.username and kafka.security.password_file"
        )
    if security.password and security.password_file:
        yield "set kafka.security.password or kafka.security.password_file, not both"
    files = (security.ca_file, security.certificate_file, security.key_file)
    if not security.protocol.endswith("SSL") and any(files):
        yield (
            f"{protocol}, which encrypts nothing: set it to SSL or SASL_SSL, or leave out "
            "kafka.security.ca_file, certificate_file and key_file"
        )
    if security.key_file and not security.certificate_file:
        yield "kafka.security.key_file needs kafka.security.certificate_file beside it"


def _sizes(settings: Settings) -> Iterator[str]:
    stream, kafka = settings.stream, settings.kafka
    if stream.drain_s >= kafka.rebalance_timeout_s:
        yield (
            "stream.drain_s must be below kafka.rebalance_timeout_s, or a drain outlasts the group"
        )
    if stream.max_event_bytes + 64 * 1024 > kafka.max_message_bytes:
        yield "kafka.max_message_bytes must exceed stream.max_event_bytes by 64 KiB of headroom"
    if stream.max_event_bytes > stream.max_bytes:
        yield "stream.max_bytes must hold at least one event of stream.max_event_bytes"
    if stream.poison_isolate_after >= stream.poison_give_up_after:
        yield "stream.poison_isolate_after must be below stream.poison_give_up_after"
    if stream.retry_initial_s > stream.retry_max_s:
        yield "stream.retry_initial_s must not be above stream.retry_max_s"


def _topics(settings: Settings) -> Iterator[str]:
    outputs = settings.topics
    names = {
        "topics.verdicts": outputs.verdicts,
        "topics.quarantine": outputs.quarantine,
        "topics.dead_letter": outputs.dead_letter,
        "topics.shadow": outputs.shadow,
    }
    if len(set(names.values())) < len(names):
        yield "topics.*: every output topic needs a name of its own"
    for field, name in names.items():
        if not _TOPIC.fullmatch(name):
            yield f"{field}: a topic's name is 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`"
    if not settings.kafka.bootstrap_servers.strip(", "):
        yield "kafka.bootstrap_servers: name at least one broker, as host:port"
    if not settings.kafka.group_id.strip():
        yield "kafka.group_id must not be empty: offsets are kept under it"


def _judge(judge: JudgeSettings) -> Iterator[str]:
    if judge.engine == "plain" and judge.numerics != "model":
        yield "judge.numerics needs judge.engine = packed: the plain model multiplies as loaded"
    if judge.context_budget >= judge.max_context:
        yield "judge.context_budget must be below judge.max_context"
    if judge.backend != "remote":
        return
    if not judge.remote.base_url:
        yield "judge.backend is remote: set judge.remote.base_url"
    if judge.adapter is not None:
        yield (
            "judge.adapter: a remote judge's adapter is served under a name of its own; put that "
            "name into judge.remote.model"
        )
    if judge.remote.timeout_s >= judge.batch_deadline_s:
        yield (
            "judge.remote.timeout_s must be below judge.batch_deadline_s, or one slow answer makes "
            "the worker unhealthy"
        )
