"""The section ``judge.remote``: a model served by somebody else, over the OpenAI chat API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator

from worker.settings_section import Positive, PositiveSeconds, Section


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
    retry_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """Retries earned by each answer: an outage must not multiply the load."""
    breaker_failures: Positive = 5
    """Failures within ten seconds, at least half of all requests, that open the breaker."""
    breaker_initial_s: PositiveSeconds = 1.0
    """First time the breaker stays open before it probes; doubles up to ``breaker_max_s``."""
    breaker_max_s: PositiveSeconds = 15.0
    """Longest time the breaker stays open before it probes."""
    top_logprobs: Annotated[int, Field(ge=2, le=100)] = 20
    """Alternatives asked for at every token; vLLM allows 20 unless ``--max-logprobs`` says more."""
    template_kwargs: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Further ``chat_template_kwargs``, for a template with switches of its own."""
    chat_template: Path | None = None
    """Copy of the template the server uses; verdicts then carry its digest."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("it must begin with http:// or https://")
        if "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("credentials do not belong here; use api_key_file")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _ours_stand(self) -> RemoteSettings:
        ours = {"enable_thinking", "request_categories", "custom_policy", "custom_taxonomy"}
        if taken := sorted(ours & self.template_kwargs.keys()):
            raise ValueError(f"template_kwargs: {', '.join(taken)} come from the policy")
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("set api_key or api_key_file, not both")
        return self
