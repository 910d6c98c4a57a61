"""All policies of a directory together: each file read, names and topics given out once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from worker.errors import PolicyError
from worker.policy.model import Policy

SUFFIXES = (".yaml", ".yml")
LIST_SUFFIX = ".txt"


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Policies that can be live together, and the problems of those that cannot.

    ``candidates`` are by the name of the policy they would replace; ``clashing`` are the files of
    policies that cannot be live beside each other.
    """

    policies: tuple[Policy, ...] = ()
    candidates: Mapping[str, Policy] = MappingProxyType({})
    problems: tuple[PolicyError, ...] = ()
    clashing: frozenset[str] = frozenset()


def policy_files(directory: Path) -> tuple[Path, ...]:
    """The policy files of a directory, by name; hidden ones are left out.

    Raises:
        PolicyError: the directory cannot be read.
    """
    return _files(directory, SUFFIXES)


def list_files(directory: Path) -> tuple[Path, ...]:
    """The files that prefilters may name as lists, as ``policy_files``."""
    return _files(directory, (LIST_SUFFIX,))


def _files(directory: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    try:
        listed = sorted(directory.iterdir())
    except OSError as error:
        fix = "Set policies.directory to a directory of *.yaml policies."
        raise PolicyError(f"cannot be read: {error.strerror}", fix=fix, file=str(directory)) from (
            error
        )
    # A ConfigMap volume keeps its data under hidden names and links to it.
    visible = (path for path in listed if not path.name.startswith("."))
    return tuple(path for path in visible if path.suffix in suffixes and path.is_file())


def bundle(parsed: Iterable[Policy]) -> Bundle:
    """Sort candidates from policies and report names, topics and candidates that clash."""
    files = {Path(policy.file).name: policy for policy in parsed}
    problems: list[PolicyError] = []
    candidates: dict[str, Policy] = {}
    candidate_files: set[str] = set()
    for policy in files.values():
        if policy.candidate is None:
            continue
        candidate = files.get(policy.candidate.file)
        problem = _candidate_problem(policy, candidate)
        candidate_files.add(policy.candidate.file)
        if problem is not None:
            problems.append(problem)
        elif candidate is not None:
            candidates[policy.name] = candidate
    live = [policy for file, policy in files.items() if file not in candidate_files]
    clashing: set[str] = set()
    problems += _clashes(live, clashing)
    return Bundle(
        policies=tuple(live),
        candidates=candidates,
        problems=tuple(problems),
        clashing=frozenset(clashing),
    )


def _candidate_problem(policy: Policy, candidate: Policy | None) -> PolicyError | None:
    wanted = policy.candidate
    assert wanted is not None
    if candidate is None:
        problem, fix = f"`{wanted.file}` is not a valid policy of this directory", "Add the file."
    elif candidate is policy:
        problem, fix = "a policy cannot be its own candidate", "Name the next version's file."
    elif candidate.name != policy.name:
        problem = f"`{wanted.file}` is a version of `{candidate.name}`, not of `{policy.name}`"
        fix = "Give both files the same `name`."
    elif candidate.version != wanted.version:
        problem = f"`{wanted.file}` is version {candidate.version}, not {wanted.version}"
        fix = "Make the two versions agree."
    else:
        return None
    return PolicyError(problem, fix=fix, file=policy.file, field="candidate")


def _clashes(policies: Iterable[Policy], clashing: set[str]) -> list[PolicyError]:
    names: dict[str, Policy] = {}
    topics: dict[str, Policy] = {}
    problems: list[PolicyError] = []
    for policy in policies:
        first = names.setdefault(policy.name, policy)
        if first is not policy:
            problem = f"`{policy.name}` is the name of {first.file} too"
            clashing.update((first.file, policy.file))
            fix = "Rename one of the two, or make one the other's `candidate`."
            problems.append(PolicyError(problem, fix=fix, file=policy.file, field="name"))
        for topic in policy.topics:
            holder = topics.setdefault(topic, policy)
            if holder is not policy:
                problem = f"`{topic}` is bound by {holder.file} too"
                clashing.update((holder.file, policy.file))
                fix = "A topic has one policy: delete it from one of the two files."
                problems.append(PolicyError(problem, fix=fix, file=policy.file, field="topics"))
    return problems
