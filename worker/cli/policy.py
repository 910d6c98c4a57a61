"""``policy check | show | diff | import | digest``: writing policies without an engineer."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import click

from worker.cli.options import config_option, json_option
from worker.errors import ConfigurationError, DependencyUnavailable, PolicyError, Undecided
from worker.judge.identity import is_demonstration
from worker.media.decode import DecodeLimits, decode
from worker.policy.diff import diff
from worker.policy.directory import bundle, policy_files
from worker.policy.examples import ExampleOutcome, ExampleResult, check_examples
from worker.policy.model import Example, Policy
from worker.policy.nvidia import import_nvidia
from worker.policy.parse import load_policy
from worker.policy.passes import passes
from worker.policy.report import policy_lines, policy_value, problem_lines, problem_value
from worker.prefilter.pictures import phash
from worker.processing.examples import ExampleRunner
from worker.processing.session import open_session
from worker.settings import Store, load_settings

# ``policy digest``: what a list of images in a policy's prefilter wants to know of a picture.


@click.command("digest")
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
def digest(images: tuple[Path, ...]) -> None:
    """Print SHA-256 and pHash of images, as lists of a prefilter take them.

    An animation has a pHash for every frame that is judged; a picture of one colour has none.
    """
    limits = DecodeLimits.of(Store())
    failed = False
    for path in images:
        data = path.read_bytes()
        click.echo(f"{hashlib.sha256(data).hexdigest()}  {path}")
        try:
            hashes = dict.fromkeys(phash(frame) for frame in decode(data, limits))
        except Undecided as error:
            click.echo(f"{path}: {error}", err=True)
            failed = True
            continue
        for each in hashes:
            click.echo(
                f"# no pHash: one colour  {path}" if each is None else f"{each:016x}  {path}"
            )
    raise SystemExit(1 if failed else 0)


# ``policy check | show | diff | import | digest``: writing policies without an engineer.
#
# Exit codes: 0 good, 1 something was found, 2 wrong usage.


class ExampleJudge(Protocol):
    """A loaded judge: the family of its checkpoint, and one example judged under a policy."""

    @property
    def checkpoint(self) -> str | None: ...

    async def judge_example(self, policy: Policy, example: Example) -> ExampleOutcome: ...


OpenExampleJudge = Callable[[Path | None], AbstractAsyncContextManager[ExampleJudge]]
"""Opens the judge of a settings file (None: environment and defaults)."""


def policy_group(open_judge: OpenExampleJudge | None = None) -> click.Group:
    """The command group; ``check --examples`` needs ``open_judge``."""

    @click.group("policy")
    def policy() -> None:
        """Check, show, compare and import policies; digests of images for their lists.

        \b
        Is everything right with them?      moderation-worker policy check policies
        Do their examples hold?             moderation-worker policy check policies --examples
        What does the model read?           moderation-worker policy show general-community
        What does the new version change?   moderation-worker policy diff old.yaml new.yaml
        """

    @policy.command()
    @click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
    @click.option("--examples", is_flag=True, help="Run the policies' examples on the judge too.")
    @config_option
    @json_option
    def check(paths: tuple[Path, ...], examples: bool, config: Path | None, as_json: bool) -> None:
        """Check policy files or directories (default: the configured directory)."""
        if examples and open_judge is None:
            raise click.UsageError("--examples: no judge is attached to this command")
        where = paths or (_directory(config),)
        policies, problems = _load_all(where)
        results: dict[str, Sequence[ExampleResult]] = {}
        # No model is loaded where there is no policy to run: a typo is said at once.
        if examples and open_judge is not None and policies:
            try:
                results = asyncio.run(_run_examples(open_judge, config, policies))
            except DependencyUnavailable as error:
                raise click.ClickException(str(error)) from error
        failed = sum(each.status == "failed" for each in _flat(results))
        if as_json:
            _print_json(_check_value(policies, problems, results))
        else:
            _print_check(policies, problems, results)
        raise SystemExit(1 if problems or failed else 0)

    @policy.command()
    @click.argument("name_or_file")
    @config_option
    @json_option
    def show(name_or_file: str, config: Path | None, as_json: bool) -> None:
        """Show what a policy puts in front of the model, and what follows from it."""
        found = _found(lambda: _find(name_or_file, config))
        if as_json:
            _print_json(policy_value(found))
        else:
            click.echo("\n".join(policy_lines(found)))

    @policy.command("diff")
    @click.argument("before")
    @click.argument("after")
    @config_option
    @json_option
    def difference(before: str, after: str, config: Path | None, as_json: bool) -> None:
        """Show what differs between two policies by meaning; exit code 1 if anything does."""
        first, second = _found(lambda: _find(before, config)), _found(lambda: _find(after, config))
        changes = diff(first, second)
        if as_json:
            _print_json(
                {
                    "same_judging": first.sha256 == second.sha256,
                    "changes": [
                        {"field": c.field, "kind": c.kind, "before": c.before, "after": c.after}
                        for c in changes
                    ],
                }
            )
        for change in () if as_json else changes:
            click.echo(f"{change.kind:9}  {change}")
        if not changes and not as_json:
            click.echo("no difference")
        raise SystemExit(1 if changes else 0)

    @policy.command("import")
    @click.argument("file", type=click.Path(path_type=Path))
    @click.option("--out", type=click.Path(path_type=Path), help="Directory (default: print).")
    @click.option("--topic", "topics", multiple=True, help="Input topic to bind; may be repeated.")
    @click.option("--owner", help="Who answers for the policy, where the JSON does not say.")
    @click.option("--shape", type=click.Choice(["auto", "taxonomy", "text"]), default="auto")
    @click.option("--force", is_flag=True, help="Overwrite a file that is there.")
    @json_option
    def import_(
        file: Path,
        out: Path | None,
        topics: tuple[str, ...],
        owner: str | None,
        shape: Any,
        force: bool,
        as_json: bool,
    ) -> None:
        """Turn a policy JSON of NVIDIA's nemotron-policy-generator into a policy."""
        imported = _found(lambda: import_nvidia(file, topics=topics, owner=owner, shape=shape))
        name = imported.policy.name
        target = None if out is None else out / f"{name}.yaml"
        if target is None and not as_json:
            click.echo(imported.yaml, nl=False)
        elif target is not None:
            if target.exists() and not force:
                raise click.UsageError(f"{target} is there already; --force overwrites it")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(imported.yaml, encoding="utf-8")
        if as_json:
            written = {"file": None if target is None else str(target), "notes": imported.notes}
            _print_json({"name": name, "sha256": imported.policy.sha256, **written})
            return
        if target is not None:
            click.echo(f"wrote {target} ({len(imported.policy.examples)} examples)", err=True)
        for note in imported.notes:
            click.echo(f"note: {note}", err=True)

    policy.add_command(digest)
    return policy


async def _run_examples(
    open_judge: OpenExampleJudge, config: Path | None, policies: Sequence[Policy]
) -> dict[str, Sequence[ExampleResult]]:
    async with open_judge(config) as judge:
        return {
            policy.file: await check_examples(
                policy, judge.judge_example, checkpoint=judge.checkpoint
            )
            for policy in policies
        }


def _directory(config: Path | None) -> Path:
    try:
        return load_settings(config).policies.directory
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error


def _load_all(paths: Iterable[Path]) -> tuple[list[Policy], list[PolicyError]]:
    """Every valid policy of files and directories; what stands in one directory must fit."""
    policies: list[Policy] = []
    problems: list[PolicyError] = []
    for path in paths:
        together: list[Policy] = []
        try:
            files = policy_files(path) if path.is_dir() else (path,)
        except PolicyError as error:
            problems.append(error)
            continue
        if not files:
            fix = "Put *.yaml policies there, or name another directory."
            problems.append(PolicyError("it holds no policy", fix=fix, file=str(path)))
        for file in files:
            try:
                loaded = load_policy(file)
                passes(loaded)
                together.append(loaded)
            except PolicyError as error:
                problems += error.problems
        if path.is_dir():
            problems += bundle(together).problems
        policies += together
    return policies, problems


def _find(name_or_file: str, config: Path | None) -> Policy:
    path = Path(name_or_file)
    if path.suffix or path.is_file():
        return load_policy(path)
    directory = _directory(config)
    for file in policy_files(directory):
        try:
            loaded = load_policy(file)
        except PolicyError:
            continue
        if loaded.name == name_or_file:
            return loaded
    fix = "Name a policy of that directory, or a file."
    raise PolicyError(f"no valid policy is named `{name_or_file}`", fix=fix, file=str(directory))


def _found(load: Callable[[], Any]) -> Any:
    """What ``load`` gives; its problems on standard error and exit code 1 otherwise."""
    try:
        return load()
    except PolicyError as error:
        for problem in error.problems:
            for line in problem_lines(problem):
                click.echo(line, err=True)
        raise SystemExit(1) from error


def _flat(results: dict[str, Sequence[ExampleResult]]) -> list[ExampleResult]:
    return [each for of_policy in results.values() for each in of_policy]


def _check_value(
    policies: Sequence[Policy],
    problems: Sequence[PolicyError],
    results: dict[str, Sequence[ExampleResult]],
) -> dict[str, Any]:
    return {
        "policies": [
            {
                "name": each.name,
                "version": each.version,
                "sha256": each.sha256,
                "file": each.file,
                "topics": each.topics,
                "examples": [_example_value(r) for r in results.get(each.file, ())],
            }
            for each in policies
        ],
        "problems": [problem_value(each) for each in problems],
    }


def _example_value(result: ExampleResult) -> dict[str, Any]:
    value = {"number": result.number, "status": result.status, "problem": result.problem}
    got = result.got
    if got is None:
        return value
    return value | {
        "expected": result.example.expect,
        "got": got.outcome,
        "score": got.score,
        "categories": got.categories,
        "reason": got.reason,
    }


def _print_check(
    policies: Sequence[Policy],
    problems: Sequence[PolicyError],
    results: dict[str, Sequence[ExampleResult]],
) -> None:
    for policy in policies:
        topics = ", ".join(policy.topics) or "no topic"
        failed = any(each.status == "failed" for each in results.get(policy.file, ()))
        word = "FAILED" if failed else "ok"
        head = f"{word}  {policy.name} version {policy.version}  {policy.sha256[:12]}  {topics}"
        click.echo(f"{head}  {_counts(policy, results.get(policy.file))}")
        for result in results.get(policy.file, ()):
            if result.status == "failed":
                click.echo(f"    example {result.number}: {result.problem}")
                click.echo(f"      {result.example.text[:100]}")
        ran = results.get(policy.file, ())
        if ran and all(result.status == "skipped" for result in ran):
            click.echo(f"    nothing ran: every example {ran[0].problem}; see judge.family")
    for problem in problems:
        click.echo("\n".join(problem_lines(problem)))
    if problems:
        click.echo(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")


def _counts(policy: Policy, results: Sequence[ExampleResult] | None) -> str:
    if results is None:
        return f"{len(policy.examples)} examples, not run"
    counted = {
        status: sum(each.status == status for each in results)
        for status in ("held", "failed", "skipped")
    }
    return "examples: " + ", ".join(f"{count} {status}" for status, count in counted.items())


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


@asynccontextmanager
async def _open_judge(config: Path | None) -> AsyncIterator[ExampleRunner]:
    async with open_session(load_settings(config)) as session:
        name = session.judge.model().id
        if is_demonstration(name):
            click.echo(f"examples run on {name}, which knows a small vocabulary", err=True)
        yield session.examples


policy = policy_group(_open_judge)
