"""A directory of policies and lists read as one moment in time; names and topics given out once."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from worker.errors import PolicyError
from worker.policy.model import Policy
from worker.policy.parse import LIST_SUFFIX, read_list_bytes, read_policy_bytes

# All policies of a directory together: each file read, names and topics given out once.

SUFFIXES = (".yaml", ".yml")


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


# Reading a policy directory as one moment in time, cheaply enough to be asked every second.

SETTLED_S = 1.0
"""Age from which a file is taken to be written to its end; a younger one is looked at twice."""
_ATTEMPTS = 5
_FIRST_LOOKS_S = 0.1

_Signature = tuple[tuple[str, int, int, int, int, int], ...]


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file as it was read: its bytes, or the problem that kept them."""

    path: Path
    sha256: str
    raw: bytes = b""
    problem: PolicyError | None = None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in the directory at one moment: policies, and by name the lists beside them."""

    files: tuple[PolicyFile, ...] = ()
    lists: Mapping[str, bytes] = MappingProxyType({})


class DirectoryWatch:
    """Looks at a directory; reads it whole when anything about its files changed.

    Lists of prefilters (``*.txt``) and the directories of adapters (``adapters``, as the policies
    name them) count as parts of the policies beside them. Files are compared through symbolic
    links, so a ConfigMap that swaps its ``..data`` link counts as changed. A directory that changes
    while it is read is read again: never half old, half new. A file that is still being written
    waits: it is read when two looks agree about it, or when nobody touched it for ``SETTLED_S``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.adapters: frozenset[Path] = frozenset()
        self._seen: _Signature | None = None
        self._pending: _Signature | None = None
        self._content: tuple[object, ...] | None = None

    def first(self) -> Look:
        """The directory as it is when a worker starts: waits until its files hold still.

        Raises:
            PolicyError: as ``changed``.
        """
        for _ in range(int(SETTLED_S / _FIRST_LOOKS_S) * _ATTEMPTS):
            found = self.changed()
            if found is not None or self._pending is None:
                return found or Look()
            time.sleep(_FIRST_LOOKS_S)
        raise self._restless()

    def changed(self) -> Look | None:
        """Every file, if any content changed since the last call and holds still; None otherwise.

        Raises:
            PolicyError: the directory cannot be read, or does not hold still.
        """
        before = self._signature()
        if before == self._seen:
            self._pending = None
            return None
        if before != self._pending and not _settled(before):
            self._pending = before
            return None
        for _ in range(_ATTEMPTS):
            look = Look(
                files=tuple(_read(path) for path in policy_files(self.directory)),
                lists=_read_lists(list_files(self.directory)),
            )
            after = self._signature()
            if after == before:
                break
            before = after
        else:
            raise self._restless()
        content: tuple[object, ...] = (
            *((str(file.path), file.sha256) for file in look.files),
            *((name, hashlib.sha256(raw).hexdigest()) for name, raw in look.lists.items()),
            *(each for each in before if "/" in each[0]),  # of adapters the signature is enough
        )
        self._seen, self._pending = before, None
        if content == self._content:
            return None
        self._content = content
        return look

    def forget(self) -> None:
        """Make the next call give every file, changed or not."""
        self._seen = self._content = None

    def _restless(self) -> PolicyError:
        problem = "the files keep changing while they are read"
        return PolicyError(problem, fix="Write them aside, then move.", file=str(self.directory))

    def _signature(self) -> _Signature:
        signature = []
        here = (*policy_files(self.directory), *list_files(self.directory))
        named = [(each.name, each) for each in here]
        for adapter in sorted(self.adapters):
            with contextlib.suppress(OSError):  # gone: its policy says so when it is read again
                named += [(str(each), each) for each in sorted(adapter.iterdir())]
        for name, path in named:
            try:
                stat = path.stat()
            except OSError:
                continue  # gone since it was listed: the next look sees the directory without it
            # The time of the last change of the file itself tells an edit that kept size and date.
            times = (stat.st_mtime_ns, stat.st_ctime_ns)
            signature.append((name, *times, stat.st_size, stat.st_ino, stat.st_dev))
        return tuple(signature)


def _settled(signature: _Signature) -> bool:
    youngest = max((each[1] for each in signature), default=0)
    return time.time_ns() - youngest > SETTLED_S * 1e9


def _read(path: Path) -> PolicyFile:
    try:
        raw = read_policy_bytes(path)
    except PolicyError as error:
        return PolicyFile(path=path, sha256=f"unreadable: {error}", problem=error)
    return PolicyFile(path=path, sha256=hashlib.sha256(raw).hexdigest(), raw=raw)


def _read_lists(paths: Iterable[Path]) -> dict[str, bytes]:
    lists = {}
    for path in paths:
        with contextlib.suppress(OSError):  # its policy says what is wrong with it
            lists[path.name] = read_list_bytes(path)
    return lists


def settle(parsed: Sequence[Policy], live: Sequence[Policy]) -> tuple[Bundle, list[PolicyError]]:
    """The policies that can be live together, and the problems of those that have to wait.

    Where two files clash over a name or a topic, each falls back to its live version, or waits if
    it has none. A policy whose file went away stays for the topics nobody else took over.
    """
    by_file = {policy.file: policy for policy in live}
    current = list(parsed)
    problems: list[PolicyError] = []
    while True:
        found = bundle(current)
        problems += [each for each in found.problems if str(each) not in map(str, problems)]
        if not found.clashing:
            break
        current = _fall_back(current, found.clashing, by_file)
    orphans = _orphans(current, live, problems)
    return (bundle([*current, *orphans]) if orphans else found), problems


def _fall_back(
    current: Sequence[Policy], clashing: frozenset[str], by_file: dict[str, Policy]
) -> list[Policy]:
    """One step towards the live set, which clashes with nothing of itself, so it ends."""
    fallen: list[Policy] = []
    for policy in current:
        if policy.file not in clashing:
            fallen.append(policy)
            continue
        known = by_file.get(policy.file)
        if known is not None:
            fallen.append(known)
    if fallen == list(current):
        # All are live already: a live policy moved here from another file. The last one waits.
        last = max(policy.file for policy in current if policy.file in clashing)
        fallen = [policy for policy in current if policy.file != last]
    return fallen


def _orphans(
    current: Sequence[Policy], live: Sequence[Policy], problems: list[PolicyError]
) -> list[Policy]:
    bound = {topic for policy in current for topic in policy.topics}
    names = {policy.name for policy in current}
    orphans: list[Policy] = []
    for policy in live:
        left = tuple(topic for topic in policy.topics if topic not in bound)
        if not left or policy.name in names:
            continue
        problem = f"the file is gone, but {', '.join(left)} has no other policy"
        fix = "Its last version stays. Bring it back, or bind the topic elsewhere."
        problems.append(PolicyError(problem, fix=fix, file=policy.file, field="topics"))
        orphans.append(msgspec.structs.replace(policy, topics=left))
    return orphans
