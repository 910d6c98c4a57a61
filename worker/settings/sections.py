"""One typed settings tree, section by section, and the combinations that cannot work."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError
from yarl import URL

from worker.errors import ConfigurationError
from worker.guard import registry as guards
from worker.guard.base import GuardModel
from worker.settings.load import (
    SettingsFile,
    explain,
    read_settings_file,
    unknown_variables,
    variable_name,
    without_retired,
)

# What every section of the settings tree is made of.

Positive = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]

logger = logging.getLogger(__name__)


def _names(value: Any) -> Any:
    """A list as a variable of the environment gives it: ``a, b``, or JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("not a JSON list; write `a, b`") from None
    return [name for each in value.split(",") if (name := each.strip())]


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
"""Names; one string holds them with commas between, as variables of the environment do."""


class Section(BaseModel):
    """A section refuses fields it does not know: a typo must not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


# The section ``judge.remote``: a model served by somebody else, over the OpenAI chat API.


class RemoteSettings(Section):
    """The server of ``judge.backend: remote``, and how much is asked of it."""

    base_url: str = ""
    """Where the API begins, with its version: ``http://vllm:8000/v1``."""
    model: str | None = None
    """Name the server gives the model; unset takes the only one that it lists."""
    api_key: SecretStr | None = None
    """Bearer token, if the server wants one; prefer ``api_key_file``."""
    api_key_file: Path | None = None
    """File that holds the bearer token (a mounted secret); read again for every request."""
    ca_file: Path | None = None
    """PEM bundle that the server's certificate is checked with; unset is the system's."""
    concurrency: Positive = 64
    """Requests in flight at most, those for reasoning traces not counted."""
    start_timeout_s: PositiveSeconds = 600.0
    """Longest wait at start for a server that is not up yet; a model takes minutes to load."""
    connect_timeout_s: PositiveSeconds = 5.0
    """Longest wait for a connection."""
    timeout_s: PositiveSeconds = 30.0
    """Longest wait for one answer; below ``judge.batch_deadline_s``."""
    attempts: Positive = 3
    """Tries of one request, the first included."""
    retry_initial_s: PositiveSeconds = 0.25
    """First wait before a retry; doubles up to ``retry_max_s``, with jitter."""
    retry_max_s: PositiveSeconds = 5.0
    """Longest wait before a retry. A server that asks for a longer one is taken to be away."""
    top_logprobs: Annotated[int, Field(ge=2, le=100)] = 20
    """Alternatives asked for at every token; vLLM allows 20 unless ``--max-logprobs`` says more."""
    template_kwargs: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Further ``chat_template_kwargs``, for a template with switches of its own."""
    chat_template: Path | None = None
    """Copy of the template the server uses; verdicts then carry its digest."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not value:
            return value
        try:
            url = URL(value)
            port = url.port
        except ValueError:
            raise ValueError("it is no URL") from None
        if url.scheme not in ("http", "https"):
            raise ValueError("it must begin with http:// or https://")
        if url.user is not None or url.password is not None:
            raise ValueError("credentials do not belong here; use api_key_file")
        if not url.host or not port:
            raise ValueError("it names no host and port, as in http://vllm:8000/v1")
        return str(url.with_path(url.path.rstrip("/"), keep_query=True).with_fragment(None))

    @model_validator(mode="after")
    def _ours_stand(self) -> RemoteSettings:
        ours = frozenset().union(*(each.own_kwargs for each in guards.FAMILIES.values()))
        if taken := sorted(ours & self.template_kwargs.keys()):
            raise ValueError(f"template_kwargs: {', '.join(taken)} come from the policy")
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("set api_key or api_key_file, not both")
        return self


# One typed settings tree: environment variables over a YAML file over these defaults.
#
# An environment variable is ``MODERATION_<SECTION>__<FIELD>``, e.g. ``MODERATION_KAFKA__GROUP_ID``.
# Credentials come from the environment or from files named here; they are never printed.


class KafkaSecurity(Section):
    """How the worker proves itself to the brokers."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Transport and authentication."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """SASL mechanism, used with the SASL protocols."""
    username: str | None = None
    """SASL user."""
    password: SecretStr | None = None
    """SASL password; prefer ``password_file``."""
    password_file: Path | None = None
    """File that holds the SASL password (a mounted secret)."""
    ca_file: Path | None = None
    """PEM bundle of the brokers' certificate authority."""
    certificate_file: Path | None = None
    """PEM client certificate, for mutual TLS."""
    key_file: Path | None = None
    """PEM key of the client certificate."""


class Kafka(Section):
    """The brokers and the consumer group."""

    bootstrap_servers: str = "localhost:9092"
    """Comma-separated ``host:port`` list."""
    group_id: str = "moderation-worker"
    """Consumer group; part of every transactional id."""
    client_id: str = "moderation-worker"
    """Name the brokers see in their logs and quotas."""
    group_instance_id: str | None = None
    """Name of this worker that outlives a restart (static membership), for a StatefulSet: its
    partitions wait for it for ``session_timeout_s``. Never the same for two workers."""
    session_timeout_s: PositiveSeconds = 10.0
    """Silence after which the group gives a worker's partitions away."""
    rebalance_timeout_s: PositiveSeconds = 120.0
    """Longest a rebalance waits for this worker; must exceed ``stream.drain_s``."""
    start: Literal["earliest", "latest"] | datetime = "earliest"
    """Where a group begins that never committed anything on a topic: ``earliest``, ``latest``, or
    a time. Partitions that are added later are read from their beginning."""
    transaction_timeout_s: PositiveSeconds = 30.0
    """Longest an open transaction may hold read_committed readers back."""
    request_timeout_s: PositiveSeconds = 30.0
    """Longest wait for one broker answer."""
    max_message_bytes: Positive = 12 * 1024 * 1024
    """Largest record produced; output topics must accept it (``topics check``)."""
    security: KafkaSecurity = KafkaSecurity()
    """Transport security and credentials."""


class LogSettings(Section):
    """Which log is underneath."""

    backend: Literal["kafka", "local"] = "kafka"
    """``kafka``, or ``local``: an append-only log in a directory, for one machine."""
    directory: Path = Path(".moderation/log")
    """Where the local log lies."""
    fsync: bool = False
    """Whether the local log waits for the disk at every commit: survive a power cut, not only a
    killed process."""


class Topics(Section):
    """Output topics. Input topics are bound by policies (``topics:`` in each)."""

    verdicts: str = "moderation.verdicts"
    """Every decoded event's verdict, keyed by conversation id."""
    quarantine: str = "moderation.quarantine"
    """Content held for a person."""
    dead_letter: str = "moderation.dead-letter"
    """Records that cannot be read as events, bytes untouched."""
    shadow: str = "moderation.verdicts.shadow"
    """Verdicts of candidate policies."""
    partitions: Positive = 4
    """Partitions for topics that ``topics create`` makes."""
    replication: Positive = 1
    """Replication factor for topics that ``topics create`` makes."""
    input_partitions: dict[str, Positive] = {}
    """Partitions of single input topics, by name, in place of ``partitions``."""


class Stream(Section):
    """Bounds on the work in flight, and how it ends."""

    order: Literal["key", "partition"] = "key"
    """What keeps its order: ``key``, records of one key and of one conversation; ``partition``, all
    records of a partition, so that a slow one holds up what is behind it."""
    max_events: Positive = 1024
    """Events being judged over all partitions; sixteen times as many may wait for their turn or
    for their commit."""
    max_bytes: Positive = 64 * 1024 * 1024
    """Input bytes in flight over all partitions."""
    max_event_bytes: Positive = 10 * 1024 * 1024
    """Largest input record read as an event; larger ones are dead-lettered."""
    drain_s: PositiveSeconds = 60.0
    """Longest a revoke or a shutdown waits for work in flight."""
    retry_initial_s: PositiveSeconds = 0.5
    """First wait after a dependency failed; doubles up to ``retry_max_s``."""
    retry_max_s: PositiveSeconds = 30.0
    """Longest wait between retries while a dependency is away."""
    poison_isolate_after: Positive = 2
    """Attempts after which a batch that killed the worker is judged one by one."""
    poison_give_up_after: Positive = 4
    """Attempts after which the event at the head is undecided ``poison``."""


class Store(Section):
    """Where images are."""

    backend: Literal["s3", "directory"] = "s3"
    """``s3``, or ``directory``: ``DIRECTORY/bucket/key`` on this machine."""
    directory: Path = Path(".moderation/objects")
    """Root of the directory store."""
    endpoint_url: str | None = None
    """S3 endpoint; unset means AWS."""
    region: str | None = None
    """S3 region."""
    path_style: bool = False
    """Address buckets by path, as most stores that are not AWS want."""
    buckets: Names = ()
    """Buckets events may refer to; none are allowed unless listed."""
    prefixes: Names = ()
    """Key prefixes events may refer to; empty allows every key of the buckets."""
    threads: Positive = 16
    """Fetching threads, and connections."""
    connect_timeout_s: PositiveSeconds = 2.0
    """Longest wait for a connection."""
    read_timeout_s: PositiveSeconds = 10.0
    """Longest silence while reading."""
    fetch_deadline_s: PositiveSeconds = 20.0
    """Longest for all images of one event, retries included."""
    max_image_bytes: Positive = 20 * 1024 * 1024
    """Largest encoded image."""
    max_image_pixels: Positive = 40_000_000
    """Largest decoded image, in pixels."""
    max_frames: Positive = 20
    """Views judged of one image: moments of an animation, a large image whole and in parts, each on
    light and on dark ground. What does not fit was not seen, and leaves the event undecided."""
    tile_side: int = Field(default=1_792, ge=0)
    """Longest side, in pixels, of the parts in which a large or long image is judged beside the
    whole; 0 judges the whole alone."""
    max_event_frames: Positive = 48
    """Views judged of all images of one event together, at least one of each."""
    max_images: Positive = 16
    """Images of one event; more make it undecided."""
    inflight_bytes: Positive = 512 * 1024 * 1024
    """Decoded image bytes in flight over all events."""
    cache_bytes: int = Field(default=128 * 1024 * 1024, ge=0)
    """Decoded image bytes kept by digest."""


class JudgeSettings(Section):
    """The model."""

    backend: Literal["local", "remote", "scripted"] = "local"
    """``local`` runs the model here; ``remote`` asks the server of ``judge.remote``; ``scripted``
    answers from a word list (tests, benches)."""
    family: Literal["auto", "nemotron35", "llama-guard-4"] = "auto"
    """Kind of guard: how its prompts and answers read, and what a policy may ask of it. ``auto``
    goes by the name in ``remote.model``; without one it is ``nemotron35``."""
    model: str = "tiny"
    """``tiny`` (bundled demonstration checkpoint), a directory, or a hub id."""
    allow_demonstration: bool = False
    """Whether a model made for demonstrations (``tiny`` in any copy, ``scripted``) may judge the
    events of ``log.backend: kafka``. It does not know what is harmful."""
    checkpoint: str | None = None
    """What the examples of policies call this model (their ``checkpoint``); unset takes what the
    checkpoint says of itself, else the last part of its name."""
    revision: str | None = None
    """Commit of the hub repository; known models are pinned when unset. With ``remote``, the commit
    that the server was started with: verdicts repeat it, nothing can check it."""
    adapter: Path | None = None
    """LoRA adapter applied under every policy without one of its own."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Numbers the model computes in; ``auto`` is bfloat16 on a GPU and float32 on a CPU."""
    max_context: Annotated[int, Field(gt=0, le=131_072)] = 8192
    """Tokens of one context; a judged turn that does not fit is undecided."""
    max_windows: int = Field(default=8, ge=0)
    """Contexts that a judged turn too long for one is cut into, a pass; what is left over makes the
    event undecided. 0 cuts nothing."""
    floor_pass: bool = True
    """Whether the floor is asked about in a pass of its own under policies whose own text or
    adapter replaces the stock taxonomy. Off is the way back to one pass less, and to a floor that
    authors can drown."""
    context_budget: int = Field(default=1024, ge=0)
    """Tokens of earlier turns folded in, newest first."""
    max_batch: Positive = 32
    """Contexts in one forward."""
    max_batch_tokens: Positive = 16_384
    """Tokens in one forward, padding included. On a CPU a true model gives most with some 2,048:
    more leave its caches."""
    engine: Literal["packed", "plain"] = "packed"
    """``packed`` computes a policy once and packs events of all policies; ``plain`` runs the model
    as transformers does, which is slower and gives the same verdicts."""
    numerics: Literal["model", "int8", "fp8", "w8a16"] = "model"
    """Format of the text model's matrix products. ``model``: as ``dtype``. ``int8``: weights and
    activations. ``fp8``: the same on Hopper, Ada and later. ``w8a16``: int8 weights alone, for
    cards that bfloat16 weights do not fit. Verdicts name it; look at your policies' examples
    under it."""
    attention: Literal["auto", "triton", "reference", "cpu"] = "auto"
    """What computes attention: ``triton`` on a GPU, ``cpu`` on a CPU, ``reference`` as plain matrix
    products on any device, slowly. ``auto`` is the fastest there is. Verdicts name it."""

    @field_validator("numerics", mode="before")
    @classmethod
    def _renamed(cls, value: object) -> object:
        if value == "weights8":
            logger.warning("judge.numerics: weights8 is now called w8a16; write that")
            return "w8a16"
        return value

    compile: bool = False
    """Fuse the engine's element-wise work with ``torch.compile``; costs minutes at start, before
    anything is judged."""
    prefill_tokens: Positive = 4096
    """A context with more tokens of its own is computed in chunks of this size, between batches."""
    memory_utilization: Annotated[float, Field(gt=0.1, le=1.0)] = 0.9
    """Share of the device's memory that the judge plans with. Of ``max_batch``,
    ``max_batch_tokens``, ``prefill_tokens``, ``think_lane``, ``prefix_bytes``, ``image_bytes`` and
    ``image_keys_bytes`` those that are not set are lowered at start until they fit into it."""
    prefix_bytes: Positive = 2 * 1024**3
    """Device memory in which the keys and values of policies are pinned."""
    image_bytes: Positive = 256 * 1024**2
    """Device memory that keeps embeddings of images seen before."""
    image_keys_bytes: int = Field(default=256 * 1024**2, ge=0)
    """Device memory that keeps keys and values of images that came again under one policy, so that
    only the text around them is computed; 0 is off."""
    batch_deadline_s: PositiveSeconds = 60.0
    """A batch on the device for longer makes the worker unhealthy; twice this ends the process."""
    think_lane: Positive = 64
    """Traces waiting or being written at most; beyond it thinking is shed."""
    think_tokens_per_s: int = Field(default=0, ge=0)
    """Tokens of traces written a second at most; beyond it thinking is shed. 0 is no limit."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of the model; 0 leaves the choice to torch."""
    cache_bytes: int = Field(default=32 * 1024 * 1024, ge=0)
    """Bytes of answers kept for equal requests, so that a wave is judged once; 0 is off."""
    remote: RemoteSettings = RemoteSettings()
    """The server that judges when ``backend`` is ``remote``."""

    @property
    def guard(self) -> GuardModel:
        """The family of guards that judges, as far as settings can say."""
        served = self.remote.model if self.backend == "remote" else self.model
        return guards.choose(self.family, served)


class Policies(Section):
    """Where policies come from."""

    directory: Path = Path("policies")
    """Directory of ``*.yaml`` policies."""
    reload_s: PositiveSeconds = 5.0
    """How often the directory is looked at for changes."""
    check_examples: bool = True
    """Whether a policy's examples must hold before it goes live."""


Share = Annotated[float, Field(ge=0.0, le=1.0)]


class EventLog(Section):
    """Share of judged events that leave a line in the log, by outcome. Dead letters always do."""

    safe: Share = 1.0
    """Share of events that are safe. A line costs about 600 bytes: this is what most are."""
    unsafe: Share = 1.0
    """Share of events that are unsafe."""
    undecided: Share = 1.0
    """Share of events that are undecided."""


class Telemetry(Section):
    """Traces, metrics and logs. Export follows the standard ``OTEL_*`` variables."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is logged."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or lines for people."""
    event_log: EventLog = EventLog()
    """Which events leave a line."""
    sample_ratio: Share = 0.01
    """Share of traces started here that is kept; a producer's own decision is followed."""
    content: bool = False
    """Whether user content may appear in lines of the log. Off unless you mean it; spans and
    metrics never hold any."""


class Web(Section):
    """The worker's own pages: probes, metrics, console."""

    host: str = "127.0.0.1"
    """Address to bind; ``0.0.0.0`` is every IPv4 address, ``::`` every address of both families."""
    port: int = Field(default=6066, ge=0, le=65_535)
    """Port to bind; 0 takes a free one."""
    hosts: Names = ()
    """Names under which the console may be asked for, such as ``moderation.example.com``; ``*`` is
    any. Addresses, ``localhost`` and the machine's own name always may; probes and metrics answer
    whoever asks."""
    show_content: bool = False
    """Whether the console shows user content."""


class _Environment(EnvSettingsSource):
    """Variables, those of retired settings with a warning."""

    def __call__(self) -> dict[str, Any]:
        return without_retired(super().__call__(), lambda each: variable_name(each.path))


class Settings(BaseSettings):
    """Everything the worker can be told. See ``load_settings``."""

    model_config = SettingsConfigDict(
        env_prefix="MODERATION_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )
    file_values: ClassVar[dict[str, Any]] = {}

    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    """``at_least_once`` may repeat verdicts (with equal ids) after a crash; never loses one."""
    kafka: Kafka = Kafka()
    log: LogSettings = LogSettings()
    topics: Topics = Topics()
    stream: Stream = Stream()
    store: Store = Store()
    judge: JudgeSettings = JudgeSettings()
    policies: Policies = Policies()
    telemetry: Telemetry = Telemetry()
    web: Web = Web()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment = _Environment(settings_cls)
        return init_settings, environment, InitSettingsSource(settings_cls, cls.file_values)

    @model_validator(mode="after")
    def _possible(self) -> Settings:
        if problems := list(impossible(self)):
            raise ValueError("\n  combination: ".join(problems))
        return self


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings tree; ``overrides`` (section dictionaries) stand over everything.

    Raises:
        ConfigurationError: a file that cannot be read, or a field that is unknown or wrong.
    """
    file = read_settings_file(config) if config is not None else SettingsFile({}, {})
    if unknown := list(unknown_variables(Settings)):
        raise ConfigurationError("\n".join(("settings cannot be used (environment):", *unknown)))
    values = without_retired(file.values, lambda each: f"{config}: {each.path}")
    source = type("Settings", (Settings,), {"file_values": values, "__doc__": Settings.__doc__})
    try:
        return source(**overrides)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise ConfigurationError(explain(error, Settings, config, file.lines)) from None
    except SettingsError:
        raise ConfigurationError(
            "settings cannot be used (environment): a variable that sets a whole section or list "
            "is not JSON; set single fields, as MODERATION_KAFKA__GROUP_ID"
        ) from None


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
    if judge.backend == "local" and not judge.guard.features.local:
        yield (
            f"judge.family: {judge.guard.title} runs on a server of its own; set judge.backend to "
            "remote and judge.remote.base_url"
        )
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
