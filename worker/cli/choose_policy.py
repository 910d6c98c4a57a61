"""The policy of a command: a named one, a file, free text, or the built-in taxonomy alone."""

from __future__ import annotations

from pathlib import Path

import msgspec

from worker.errors import PolicyError
from worker.guard.base import GuardModel
from worker.policy.digest import digest
from worker.policy.directory import policy_files
from worker.policy.model import Policy
from worker.policy.parse import load_policy, parse_policy

_HEADINGS = {"disallowed behaviors:": "disallowed", "allowed behaviors:": "allowed"}


def choose_policy(
    name: str | None, text: Path | None, directory: Path, guard: GuardModel, *, think: bool
) -> Policy:
    """The policy to judge by, as ``guard`` does.

    Raises:
        PolicyError: no such policy, or a file with a problem.
    """
    if text is not None:
        policy = free_policy(text, guard)
    elif name is not None:
        policy = named_policy(name, directory, guard)
    else:
        policy = Policy(name="builtin", version=1, owner="", topics=(), family=guard.name)
    if think:
        if not guard.features.think:
            fix = "Leave --think out, or judge with a family that reasons."
            raise PolicyError(f"{guard.title} writes no reasoning", fix=fix)
        always = msgspec.structs.replace(policy.think, when="always")
        policy = msgspec.structs.replace(policy, think=always)
    return msgspec.structs.replace(policy, sha256=digest(policy))


def named_policy(name_or_file: str, directory: Path, guard: GuardModel) -> Policy:
    """A policy by file, or by name in ``directory``."""
    path = Path(name_or_file)
    if path.suffix or path.is_file():
        return load_policy(path, guard)
    problems: list[str] = []
    for file in policy_files(directory):
        try:
            loaded = load_policy(file, guard)
        except PolicyError as error:
            problems.append(str(error))
            continue
        if loaded.name == name_or_file:
            return loaded
    fix = " ".join(["Name a policy of that directory, or a file.", *problems])
    raise PolicyError(f"no valid policy is named `{name_or_file}`", fix=fix, file=str(directory))


def free_policy(path: Path, guard: GuardModel) -> Policy:
    """A free-text file as a policy: lines, under headings or plainly one rule each.

    Lines under ``Allowed Behaviors:`` are allowed, all others disallowed; bullets are optional.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fix = "Name a UTF-8 text file with one rule a line."
        raise PolicyError(f"cannot be read ({error})", fix=fix, file=str(path)) from error
    rules: dict[str, list[str]] = {"disallowed": [], "allowed": []}
    under = "disallowed"
    for line in (line.strip().removeprefix("- ").strip() for line in lines):
        heading = _HEADINGS.get(line.casefold())
        if heading is not None:
            under = heading
        elif line and not line.startswith("#"):
            rules[under].append(line)
    if not rules["disallowed"]:
        fix = "Write one disallowed behaviour a line."
        raise PolicyError("forbids nothing", fix=fix, file=str(path))
    document = {
        "name": "free-text",
        "version": 1,
        "owner": "command-line@localhost",
        "topics": ["command-line"],
        "description": "Conversations of users and an assistant.",
        "builtin": {"enabled": False},
        "custom": rules,
    }
    # Through the same checks as a policy file: floor, control strings, limits.
    return parse_policy(msgspec.json.encode(document), file=str(path), guard=guard)
