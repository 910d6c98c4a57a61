"""Import of the policy JSON that NVIDIA's ``nemotron-policy-generator`` skill (0.1.0) writes.

Source of the fields: ``assets/policy_json_schema.json`` of that skill (NVIDIA/skills at 7149a88).
Fields the schema does not know are ignored, as its writers add their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from worker.contracts.verdict import Action, Severity
from worker.document import MAX_BYTES
from worker.errors import PolicyError
from worker.guard.taxonomy import FLOOR, canonical_category
from worker.policy.dump import dump_policy
from worker.policy.floor import is_floor_name, means_floor
from worker.policy.model import Actions, BuiltinPass, CustomCategory, CustomPass, Example, Policy
from worker.policy.parse import SEVERITIES, parse_policy
from worker.policy.wording import tidy

# The types of NVIDIA's policy JSON, as far as the import reads them.

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


CHECKPOINT = "nemotron-3.5-content-safety"
"""Family that imported examples are meant for."""

Shape = Literal["auto", "taxonomy", "text"]

_SEVERITY: dict[str, Severity] = {"S1": "low", "S2": "medium", "S3": "high", "S4": "critical"}
_ACTIONS: dict[Severity, Action] = {
    "low": "flag",
    "medium": "hold",
    "high": "block",
    "critical": "block",
}
_SAFE = re.compile(r"(?:safe|allow|permit|out[ -]of[ -]scope|not unsafe|does not)", re.IGNORECASE)
_UNSAFE = re.compile(
    r"(?:unsafe|block|disallow|violat|in[ -]scope|flag|not safe|not allow)", re.IGNORECASE
)


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """A valid policy, its YAML, and what of the source has no place in it."""

    policy: Policy
    yaml: str
    notes: tuple[str, ...] = ()


def import_nvidia(
    path: Path, *, topics: Sequence[str] = (), owner: str | None = None, shape: Shape = "auto"
) -> Imported:
    """Read a policy JSON. ``auto`` makes free text where an allow-list is given, else a taxonomy.

    Severities map S1 to S4 onto low to critical; an S0 category is not judged. The version
    ``a.b.c`` becomes ``a * 10000 + b * 100 + c``.

    Raises:
        PolicyError: the JSON is not of the format, or the policy lowers or carves out the floor.
    """
    source = read_nvidia(path)
    notes: list[str] = []
    judged = _judged(source, str(path), notes)
    if shape == "auto":
        shape = "text" if source.allow_list else "taxonomy"
    custom = _text(source, judged) if shape == "text" else _taxonomy(source, judged, notes)
    owner = owner or source.owner
    if not owner:
        fix = "Name one: `policy import --owner NAME`."
        raise PolicyError("nobody owns the policy", fix=fix, file=str(path), field="owner")
    policy = Policy(
        name=_slug(source.policy_name),
        version=_version(source.version),
        owner=tidy(owner),
        topics=tuple(topics),
        description=tidy(source.policy_name),
        builtin=BuiltinPass(enabled=False),
        custom=custom,
        actions=Actions(severity=_ACTIONS),
        examples=_examples(source, shape, judged, notes),
    )
    notes += [
        f"{name}: kept in the JSON only, the model does not read it"
        for name in ("response_guidance", "jurisdiction_notes", "calibration_notes", "cot_rules")
        if getattr(source, name)
    ]
    text = dump_policy(policy)
    try:
        valid = parse_policy(text, file=str(path))
    except PolicyError as error:
        # Lines are those of the YAML just written; nobody has seen it yet.
        raise PolicyError.of(
            [
                PolicyError(each.problem, fix=each.fix, file=str(path), field=each.field)
                for each in error.problems
            ]
        ) from error
    return Imported(policy=valid, yaml=text, notes=tuple(notes))


def _judged(source: NvidiaPolicy, file: str, notes: list[str]) -> list[NvidiaCategory]:
    """The categories to judge: without those of severity S0, and without the floor's own."""
    judged = []
    for index, category in enumerate(source.categories):
        meant = means_floor(_spelled(category.name)) or means_floor(category.display_name)
        if (is_floor(category) or meant) and category.severity != "S4":
            what = FLOOR if is_floor(category) else f"{category.display_name}`, as of `{FLOOR}"
            raise PolicyError(
                f"the severity of `{what}` is always S4, not {category.severity}",
                fix="Set it to S4, or delete the category: it is judged in any case.",
                file=file,
                field=f"categories[{index}].severity",
            )
        if is_floor(category):
            notes.append(f"{category.display_name}: judged under every policy, so not listed")
        elif category.severity == "S0":
            notes.append(f"{category.display_name}: severity S0 is safe, so not judged")
        else:
            judged.append(category)
    return judged


def is_floor(category: NvidiaCategory) -> bool:
    """Whether a category is the floor's own, by any of its names."""
    names = (category.name, category.display_name, category.aegis_parent)
    return any(is_floor_name(_spelled(name)) for name in names if name)


def _spelled(name: str) -> str:
    return name.replace("_", " ")


def _name(category: NvidiaCategory) -> str:
    """The model's own spelling where the category is one of its own."""
    return canonical_category(category.display_name) or tidy(category.display_name)


def _taxonomy(
    source: NvidiaPolicy, judged: Sequence[NvidiaCategory], notes: list[str]
) -> CustomPass:
    if source.allow_list:
        notes.append("allow_list: a taxonomy has no place for it, use --shape text to keep it")
    return CustomPass(
        taxonomy=tuple(
            CustomCategory(
                name=_name(category), note=_note(category), severity=_SEVERITY[category.severity]
            )
            for category in judged
        )
    )


def _note(category: NvidiaCategory) -> str:
    return tidy(f"{_scope(category)} Not: {'; '.join(category.out_of_scope)}.")


def _scope(category: NvidiaCategory) -> str:
    return f"{category.definition} Includes: {'; '.join(category.in_scope)}."


def _text(source: NvidiaPolicy, judged: Sequence[NvidiaCategory]) -> CustomPass:
    levels = [_SEVERITY[category.severity] for category in judged]
    carved = [line for category in judged for line in category.out_of_scope]
    allowed = dict.fromkeys(tidy(line) for line in (*source.allow_list, *carved))
    return CustomPass(
        disallowed=tuple(_phrase(category) for category in judged),
        allowed=tuple(allowed),
        severity=max(levels, key=SEVERITIES.index, default="high"),
    )


def _phrase(category: NvidiaCategory) -> str:
    return tidy(f"{_name(category)}: {_scope(category)}")


def _examples(
    source: NvidiaPolicy, shape: Shape, judged: Sequence[NvidiaCategory], notes: list[str]
) -> tuple[Example, ...]:
    examples: dict[str, Example] = {}

    def add(text: str, expect: Literal["safe", "unsafe"], categories: tuple[str, ...]) -> None:
        examples.setdefault(
            text,
            Example(text=text, expect=expect, categories=categories, checkpoint=CHECKPOINT),
        )

    for category in source.categories:
        floor = is_floor(category)
        if not floor and category not in judged:
            continue
        # Free text answers in phrases of its own, so only a taxonomy's names can be expected.
        named = (FLOOR,) if floor else (_name(category),) if shape == "taxonomy" else ()
        for text in category.examples_unsafe:
            add(text, "unsafe", named)
        for text in category.examples_safe:
            add(text, "safe", ())
        for edge in category.edge_cases:
            resolved = _resolution(edge.resolution)
            if resolved is None:
                notes.append(f"edge case without a clear resolution, not executable: {edge.case}")
            else:
                add(edge.case, resolved, named if resolved == "unsafe" else ())
    return tuple(examples.values())


def _resolution(text: str) -> Literal["safe", "unsafe"] | None:
    """What a stated resolution says at its start, or None where it is not plain."""
    start = text.strip()
    if _UNSAFE.match(start):
        return "unsafe"
    return "safe" if _SAFE.match(start) else None


def _slug(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")
    return plain[:64].strip("-") or "imported-policy"


def _version(text: str) -> int:
    major, minor, patch = (int(part) for part in text.split("."))
    return max(1, major * 10_000 + min(minor, 99) * 100 + min(patch, 99))
