"""Reading policy files: ``load_policy`` gives a valid policy or every problem of its file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec

from worker.errors import PolicyError
from worker.policy.digest import digest
from worker.policy.document import MAX_BYTES, read_document
from worker.policy.fields import Fields
from worker.policy.floor import check_floor
from worker.policy.model import OnUndecided, Policy
from worker.policy.prefilter_section import check_prefilter, read_prefilter
from worker.policy.problems import Problems
from worker.policy.sections import (
    read_actions,
    read_builtin,
    read_candidate,
    read_custom,
    read_example,
    read_think,
    read_thresholds,
)
from worker.policy.validate import check_examples_fit, check_files

MAX_EXAMPLES = 500
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Z][a-z]{3})?(?:-(?:[A-Z]{2}|[0-9]{3}))?")
_ON_UNDECIDED: tuple[OnUndecided, ...] = get_args(OnUndecided)


def load_policy(path: Path | str) -> Policy:
    """Read and validate one policy file.

    Raises:
        PolicyError: the file cannot be used; its ``problems`` name every line, field and fix.
    """
    return parse_policy(read_policy_bytes(Path(path)), file=str(path))


def read_policy_bytes(path: Path) -> bytes:
    """The bytes of a policy file, within its size limit.

    Raises:
        PolicyError: the file is away, unreadable or too large.
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
    return raw


def parse_policy(raw: bytes | str, *, file: str = "") -> Policy:
    """Validate the text of a policy; ``file`` is where paths in it are relative to.

    Raises:
        PolicyError: as ``load_policy``.
    """
    problems = Problems(file)
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            problems.at(line, (), "not UTF-8", "Save the file as UTF-8.")
            problems.raise_any()
    assert isinstance(raw, str)
    document = read_document(raw, problems)
    if not document:
        if not problems.found:
            problems.add((), "the file is empty", "Begin with `name:`, see docs/policies.md.")
        problems.raise_any()
    policy = _read(Fields(document, (), problems), file)
    if not policy.builtin.enabled and policy.custom is None:
        problem = "nothing is judged: `builtin` is off and `custom` is not given"
        problems.add(("builtin", "enabled"), problem, "Enable `builtin` or write `custom`.")
    check_floor(policy, problems)
    check_prefilter(policy, problems)
    check_examples_fit(policy, problems)
    check_files(policy, problems)
    problems.raise_any()
    return msgspec.structs.replace(policy, sha256=digest(policy))


def _read(fields: Fields, file: str) -> Policy:
    name = fields.text("name", required=True)
    if name and not _NAME.fullmatch(name):
        problem = f"`{name}` is not a policy name"
        fields.report("name", problem, "Use a-z, 0-9 and hyphens, at most 64 characters.")
    policy = Policy(
        name=name,
        version=fields.integer("version", 1, 1, 2**31 - 1, required=True),
        owner=fields.text("owner", required=True),
        topics=_matching(fields, "topics", _TOPIC, "a Kafka topic name", "a-z, 0-9, `.`, `_`, `-`"),
        description=fields.text("description", limit=2_000),
        builtin=read_builtin(fields.section("builtin")),
        custom=read_custom(fields.section("custom")),
        adapter=fields.text("adapter", limit=400) or None,
        think=read_think(fields.section("think")),
        thresholds=read_thresholds(fields.section("thresholds")),
        actions=read_actions(fields.section("actions")),
        on_undecided=fields.choice("on_undecided", "hold", _ON_UNDECIDED),
        prefilter=read_prefilter(fields.section("prefilter"), file),
        cache=fields.flag("cache", True),
        languages=_matching(
            fields, "languages", _LANGUAGE, "a BCP 47 language tag", "e.g. en, pt-BR, zh-Hant"
        ),
        candidate=read_candidate(fields.section("candidate")),
        examples=tuple(
            read_example(each) for each in fields.sections("examples", most=MAX_EXAMPLES)
        ),
        file=file,
    )
    fields.close()
    if not fields.given("topics"):
        fix = "List the input topics, or write `topics: []` for a policy bound to none."
        if not isinstance(fields.value("topics"), list):
            fields.report("topics", "the field is missing", fix)
    if policy.custom is not None and not policy.custom.taxonomy and not policy.description:
        problem = "a free-text policy shows its description to the model, and it is empty"
        fields.report("description", problem, "Say in a sentence what is judged and where.")
    return policy


def _matching(
    fields: Fields, name: str, pattern: re.Pattern[str], what: str, how: str
) -> tuple[str, ...]:
    values = fields.texts(name, limit=249)
    for index, value in enumerate(values):
        if not pattern.fullmatch(value) or value in (".", ".."):
            fields.report(name, f"`{value}` is not {what}", f"Use {how}.", index)
    return values
