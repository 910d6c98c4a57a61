"""The types of NVIDIA's policy JSON, as far as the import reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from worker.errors import PolicyError
from worker.policy.document import MAX_BYTES

Texts = Annotated[list[str], msgspec.Meta(min_length=1)]


class NvidiaEdgeCase(msgspec.Struct, frozen=True, kw_only=True):
    """A doubtful case and how the policy resolves it."""

    case: str
    resolution: str
    reasoning: str


class NvidiaCategory(msgspec.Struct, frozen=True, kw_only=True):
    """One category; ``severity`` S0 (safe) to S4 (catastrophic) is never the model's answer."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$")]
    display_name: str
    definition: str
    severity: Literal["S0", "S1", "S2", "S3", "S4"]
    in_scope: Texts
    out_of_scope: Texts
    examples_safe: Texts
    examples_unsafe: Texts
    custom: bool
    edge_cases: list[NvidiaEdgeCase] = []
    aegis_parent: str | None = None
    modality_notes: str | None = None


class NvidiaPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    policy_name: str
    version: Annotated[str, msgspec.Meta(pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,4}$")]
    date: str
    owner: str | None = None
    target_models: list[str]
    use_cases: list[str]
    taxonomy_mode: Literal["clean_v2", "v2_plus_custom", "mostly_custom"]
    assumptions: list[str]
    categories: Annotated[list[NvidiaCategory], msgspec.Meta(min_length=1)]
    allow_list: list[str] = []
    response_guidance: dict[str, str] = {}
    jurisdiction_notes: str | None = None
    calibration_notes: str | None = None
    cot_rules: str | None = None


def read_nvidia(path: Path) -> NvidiaPolicy:
    """Read and check one file.

    Raises:
        PolicyError: the file is away, too large, not JSON, or not of the format.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise PolicyError(problem, fix="Check the path.", file=str(path)) from error
    if len(raw) > MAX_BYTES:
        problem = f"the file is larger than {MAX_BYTES} bytes"
        raise PolicyError(problem, fix="Split the policy up.", file=str(path))
    try:
        return msgspec.json.decode(raw, type=NvidiaPolicy)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem, _, field = str(error).partition(" - at `$")
        fix = "Write it as NVIDIA's policy_json_schema.json (policy generator 0.1.0) says."
        raise PolicyError(
            f"not a policy of this format: {problem}",
            fix=fix,
            file=str(path),
            field=field.strip("`.") if field else "",
        ) from error
