"""Topic to policy: an immutable snapshot, swapped whole when policies change."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from worker.errors import ConfigurationError, DependencyUnavailable, PolicyError
from worker.policy.digest import digest
from worker.policy.directory import DirectoryWatch, Look, bundle, settle
from worker.policy.examples import Check, ExampleResult
from worker.policy.model import Policy
from worker.policy.parse import adapter_path, image_path, parse_policy
from worker.telemetry import instruments
from worker.telemetry.names import Attribute

logger = logging.getLogger(__name__)


MOST_LOOKS = 64
"""Looks at the directory between two runs of examples that stay undecided."""

Reloaded = Callable[[Collection[Policy]], Awaitable[None]]
"""Told of everything that is live, candidates too, after a reload changed it."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is live at one moment. ``unready`` are topics whose policy never became valid."""

    by_topic: Mapping[str, Policy] = MappingProxyType({})
    by_name: Mapping[str, Policy] = MappingProxyType({})
    candidates: Mapping[str, Policy] = MappingProxyType({})
    unready: frozenset[str] = frozenset()
    problems: tuple[PolicyError, ...] = ()


class PolicyRegistry:
    """The live policies of a directory.

    ``load`` reads and binds; nothing is live before ``activate`` ran the examples. ``reload`` looks
    for changes; a policy that became bad keeps its last good version and is in ``problems``.
    Readers see one snapshot or the next, never a mixture.
    """

    def __init__(
        self, directory: Path, *, check: Check | None = None, reloaded: Reloaded | None = None
    ) -> None:
        self._watch = DirectoryWatch(directory)
        self._check, self._reloaded = check, reloaded
        self._snapshot = Snapshot()
        self._parsed: list[Policy] = []
        self._unreadable: list[PolicyError] = []
        self._verdicts: dict[tuple[str, str], PolicyError | None] = {}
        self._tries: dict[tuple[str, str], int] = {}
        self._again = 0
        self._lock = asyncio.Lock()
        self._pending = False

    @property
    def snapshot(self) -> Snapshot:
        """Everything that is live, as one value."""
        return self._snapshot

    @property
    def problems(self) -> tuple[PolicyError, ...]:
        """Why a policy on disk is not the one that is live; empty when all is well."""
        return self._snapshot.problems

    def select(self, topic: str) -> Policy | None:
        """The live policy of a topic; None where the topic is unready or unknown."""
        return self._snapshot.by_topic.get(topic)

    def get(self, name: str) -> Policy | None:
        """A live policy by name."""
        return self._snapshot.by_name.get(name)

    def candidate(self, policy: Policy) -> Policy | None:
        """The next version of a live policy, tried in the shadow; None where there is none."""
        return self._snapshot.candidates.get(policy.name)

    def topics(self) -> tuple[str, ...]:
        """Every topic a policy is bound to, ready or not, sorted."""
        return tuple(sorted({*self._snapshot.by_topic, *self._snapshot.unready}))

    def unready_topics(self) -> tuple[str, ...]:
        """Topics without a policy that was ever valid: they stay paused. Sorted."""
        return tuple(sorted(self._snapshot.unready))

    def require(self, topics: Collection[str] = (), *, outputs: Collection[str] = ()) -> None:
        """Refuse topics without a policy, and policies on the worker's own ``outputs``.

        Raises:
            ConfigurationError: names the topics, and what to add where.
        """
        bound = self.topics()
        missing = sorted(set(topics) - set(bound))
        if missing:
            raise ConfigurationError(
                f"no policy for input topic {', '.join(missing)}: "
                f"add it to `topics:` of a policy in {self._watch.directory}"
            )
        looping = sorted(set(bound) & set(outputs))
        if looping:
            raise ConfigurationError(
                f"{', '.join(looping)}: an output topic cannot be an input; "
                "take it out of the policy's `topics:`, or rename topics.* in the settings"
            )
        if not bound:
            raise ConfigurationError(
                f"no policy in {self._watch.directory} is bound to a topic: add `topics:` to one"
            )

    def load(self) -> None:
        """Read every policy for the first time; topics are bound, none is ready yet.

        Raises:
            PolicyError: any problem of any file: a worker does not start on a bad policy.
        """
        parsed, problems = self._parse(self._watch.first())
        together = bundle(parsed)
        problems += together.problems
        if problems:
            self._watch.forget()
            raise PolicyError.of(problems)
        self._parsed = parsed
        unready = frozenset(topic for each in together.policies for topic in each.topics)
        self._snapshot = Snapshot(unready=unready)
        self._pending = True

    async def activate(self) -> None:
        """Run the examples of what ``load`` read, and make live what holds.

        Raises:
            DependencyUnavailable: the judge is away; call again.
        """
        async with self._lock:
            await self._go_live()

    async def reload(self) -> bool:
        """Look for changes and take in what is good; True where the live policies changed.

        Raises:
            DependencyUnavailable: the judge is away; the next call tries again.
        """
        async with self._lock:
            before = self._snapshot
            try:
                look = await asyncio.to_thread(self._watch.changed)
            except PolicyError as error:
                self._watch.forget()
                self._report((error,))
                return False
            if look is None and not self._pending and not self._due():
                return False
            try:
                await self._take_in(look)
            except Exception:  # what was read is not live yet: the next call reads it again
                self._pending = True
                self._watch.forget()
                raise
            after = self._snapshot
            changed = (before.by_topic, before.candidates) != (after.by_topic, after.candidates)
            if changed and self._reloaded is not None:
                await self._reloaded((*after.by_name.values(), *after.candidates.values()))
            return changed

    async def watch(self, interval_s: float) -> None:
        """Reload every ``interval_s`` seconds, for ever. Cancel it to stop."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.reload()
            except DependencyUnavailable as error:
                logger.warning("policies not reloaded: %s", error)
            except Exception as error:  # one bad look must not be the last one
                logger.error("policies not reloaded: %s", type(error).__name__)

    async def _take_in(self, look: Look | None) -> None:
        if look is not None:
            # In a thread: lists of a hundred thousand phrases take their time.
            self._parsed, self._unreadable = await asyncio.to_thread(self._parse, look)
        await self._go_live()

    def _parse(self, look: Look) -> tuple[list[Policy], list[PolicyError]]:
        """Every valid policy; a file that became bad is stood in for by its live version."""
        parsed: list[Policy] = []
        problems: list[PolicyError] = []
        for file in look.files:
            try:
                if file.problem is not None:
                    raise file.problem
                parsed.append(parse_policy(file.raw, file=str(file.path), lists=look.lists))
            except Exception as error:  # one bad file is one problem, whatever is wrong with it
                problems.append(_problem(error, str(file.path)))
                live = (*self._snapshot.by_name.values(), *self._snapshot.candidates.values())
                parsed += [policy for policy in live if policy.file == str(file.path)]
        adapters = {adapter_path(policy) for policy in parsed}
        self._watch.adapters = frozenset(Path(each) for each in adapters if each is not None)
        return parsed, problems

    async def _go_live(self) -> None:
        """Run the examples of what is new, settle clashes, then swap in one assignment."""
        problems = list(self._unreadable)
        accepted: list[Policy] = []
        self._again = 0
        for policy in self._parsed:
            failure = await self._examples(policy)
            if failure is None:
                accepted.append(policy)
                continue
            problems.append(failure)
            standing = self._standing_in(policy)
            if standing is not None:
                accepted.append(msgspec.structs.replace(standing, file=policy.file))
        found, unsettled = settle(accepted, tuple(self._snapshot.by_name.values()))
        by_name = {policy.name: policy for policy in found.policies}
        by_topic = {topic: policy for policy in found.policies for topic in policy.topics}
        wanted = {topic for policy in self._parsed for topic in policy.topics}
        self._note_changes(by_name)
        self._snapshot = Snapshot(
            by_topic=MappingProxyType(by_topic),
            by_name=MappingProxyType(by_name),
            candidates=found.candidates,
            unready=frozenset(wanted - set(by_topic)),
            problems=self._snapshot.problems,
        )
        self._pending = False
        self._report((*problems, *unsettled))

    def _standing_in(self, policy: Policy) -> Policy | None:
        """What is live of a file that may not go live: a candidate stands in for a candidate."""
        wanted = {each.candidate.file for each in self._parsed if each.candidate is not None}
        if Path(policy.file).name in wanted:
            known = self._snapshot.candidates.get(policy.name)
            return known if known is not None and known.file == policy.file else None
        return self._snapshot.by_name.get(policy.name)

    async def _examples(self, policy: Policy) -> PolicyError | None:
        """The failure of a policy's examples; each content is checked once.

        An answer that another try may change (undecided, or without its trace) is not kept: the
        examples are run again, at first with the next look and then ever more rarely.
        """
        if self._check is None:
            return None
        key = await asyncio.to_thread(_asked, policy)
        if key in self._verdicts:
            return self._verdicts[key]
        try:
            results = await self._check(policy)
        except DependencyUnavailable:
            raise
        except Exception as error:  # of this policy alone
            self._retry(key)
            return _problem(error, policy.file)
        wrong = [result for result in results if result.status == "failed"]
        failure = _failure(policy, wrong) if wrong else None
        if any(result.passing for result in wrong):
            self._retry(key)
            return failure
        self._verdicts[key] = failure
        self._tries.pop(key, None)
        if results and all(result.status == "skipped" for result in results):
            logger.warning(
                "policy %s: none of its %d examples was run, %s; judge.family says what this "
                "model is called",
                policy.name,
                len(results),
                results[0].problem,
            )
        return failure

    def _retry(self, key: tuple[str, str]) -> None:
        """Run these examples again after as many looks as tries doubled give."""
        tries = self._tries[key] = self._tries.get(key, 0) + 1
        wait = min(2 ** (tries - 1), MOST_LOOKS)
        self._again = min(self._again or wait, wait)

    def _due(self) -> bool:
        """Whether examples that were undecided are to be run with this look."""
        if not self._again:
            return False
        self._again -= 1
        return not self._again

    def _note_changes(self, by_name: Mapping[str, Policy]) -> None:
        for name, policy in by_name.items():
            before = self._snapshot.by_name.get(name)
            if before is not None and before.sha256 == policy.sha256:
                continue
            labels = {Attribute.POLICY: name, Attribute.RELOAD_RESULT: "applied"}
            instruments.policy_reloads.add(1, labels)
            logger.info("policy %s version %d (%s) is live", name, policy.version, policy.sha256)
            if before is not None and before.version == policy.version:
                logger.warning("policy %s changed under version %d", name, before.version)

    def _report(self, problems: tuple[PolicyError, ...]) -> None:
        known = {str(problem) for problem in self._snapshot.problems}
        for problem in problems:
            if str(problem) not in known:
                instruments.policy_reloads.add(1, {Attribute.RELOAD_RESULT: "refused"})
                logger.error("policy refused: %s", problem)
        self._snapshot = msgspec.structs.replace(self._snapshot, problems=problems)


def _asked(policy: Policy) -> tuple[str, str]:
    """What the answers to a policy's examples depend on; blocking, for it reads their images."""
    asked = hashlib.sha256(msgspec.json.encode(policy.examples))
    for example in policy.examples:
        image = image_path(policy, example)
        if image is not None:
            with contextlib.suppress(OSError):  # not there: the example says so itself
                asked.update(hashlib.sha256(image.read_bytes()).digest())
    return digest(policy), asked.hexdigest()


def _failure(policy: Policy, wrong: Sequence[ExampleResult]) -> PolicyError:
    number = wrong[0].number
    count = f"{len(wrong)} of {len(policy.examples)} examples do not hold"
    return PolicyError(
        f"{count}, the first is number {number}: {wrong[0].problem}",
        fix=f"Run `moderation-worker policy check --examples {policy.file}`.",
        file=policy.file,
        field=f"examples[{number - 1}]",
    )


def _problem(error: Exception, file: str) -> PolicyError:
    """The problem of one file, of whatever kind the error is; details may quote the file."""
    if isinstance(error, PolicyError):
        return error
    logger.error("policy file %s: %s", file, type(error).__name__, exc_info=error)
    fix = "Run `moderation-worker policy check` on it."
    return PolicyError(f"cannot be used: {type(error).__name__}", fix=fix, file=file)
