"""Promises of ``moderation-worker policy``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.support.policies import write_policy
from worker.cli.policy import policy_group
from worker.errors import DependencyUnavailable
from worker.policy.examples import ExampleOutcome
from worker.policy.model import Example, Policy
from worker.policy.parse import load_policy

ROOT = Path(__file__).parents[2]
NVIDIA = ROOT / "tests" / "policy" / "data" / "nvidia-policy.json"


class WordJudge:
    """Calls texts with ``bad`` in them unsafe."""

    checkpoint: str | None = "tiny"

    async def judge_example(self, policy: Policy, example: Example) -> ExampleOutcome:
        return ExampleOutcome(outcome="unsafe" if "bad" in example.text else "safe")


@asynccontextmanager
async def open_words(config: Path | None) -> AsyncIterator[WordJudge]:
    yield WordJudge()


@asynccontextmanager
async def open_nothing(config: Path | None) -> AsyncIterator[WordJudge]:
    raise DependencyUnavailable("judge", "out for lunch")
    yield WordJudge()


def run(*arguments: Any, opener: Any = open_words) -> Result:
    return CliRunner().invoke(policy_group(opener), [str(each) for each in arguments])


def sample(directory: Path, file: str = "a.yaml", **fields: Any) -> Path:
    return write_policy(directory, file, **{"name": "a", **fields})


def test_check_of_good_files_exits_0(tmp_path: Path) -> None:
    """A line a policy: name, version, hash, topics."""
    result = run("check", sample(tmp_path))

    assert result.exit_code == 0
    assert result.output.startswith("ok  a version 1  ")


def test_check_of_a_bad_file_exits_1_and_lists_everything(tmp_path: Path) -> None:
    """File, line, field, problem and fix of every problem of every file."""
    one, two = sample(tmp_path, version=0), sample(tmp_path, "b.yaml", ownr="x", owner=None)
    result = run("check", one, two)

    assert result.exit_code == 1
    assert f"{one}:2: version: 0 is out of range" in result.output
    assert "Did you mean `owner`?" in result.output
    assert "3 problems" in result.output


def test_check_of_a_directory_finds_clashes(tmp_path: Path) -> None:
    """Two policies on one topic are each fine alone."""
    sample(tmp_path)
    sample(tmp_path, "b.yaml", name="b")

    assert run("check", tmp_path).exit_code == 1
    assert run("check", tmp_path / "a.yaml", tmp_path / "b.yaml").exit_code == 0


def test_check_of_a_directory_without_policies_says_so(tmp_path: Path) -> None:
    """Nothing checked is not everything well: a wrong path would pass for ever."""
    result = run("check", tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path}: it holds no policy" in result.output


def test_check_without_paths_takes_the_configured_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the worker would load is what is checked."""
    monkeypatch.setenv("MODERATION_POLICIES__DIRECTORY", str(tmp_path))
    sample(tmp_path)

    assert "ok  a version 1" in run("check").output


def test_check_runs_examples_on_request(tmp_path: Path) -> None:
    """Held, failed and skipped are counted; a failed one is shown and exits 1."""
    examples = [
        {"text": "bad", "expect": "unsafe"},
        {"text": "bad thing", "expect": "safe"},
        {"text": "bad", "expect": "safe", "checkpoint": "large"},
    ]
    path = sample(tmp_path, examples=examples)

    static, full = run("check", path), run("check", path, "--examples")

    assert (static.exit_code, full.exit_code) == (0, 1)
    assert "examples: 1 held, 1 failed, 1 skipped" in full.output
    assert "example 2: expected safe, got unsafe" in full.output
    assert full.output.startswith("FAILED  a")


def test_check_speaks_json(tmp_path: Path) -> None:
    """Programs get every problem and every example."""
    path = sample(tmp_path, examples=[{"text": "bad", "expect": "safe"}])
    bad = sample(tmp_path, "b.yaml", version=0)

    value = json.loads(run("check", path, bad, "--examples", "--json").output)

    assert value["policies"][0]["examples"][0]["status"] == "failed"
    assert value["problems"][0]["field"] == "version"
    assert value["problems"][0]["line"] == 2


def test_a_judge_that_is_away_is_an_error_of_its_own(tmp_path: Path) -> None:
    """No example is called failed because the judge was."""
    result = run("check", sample(tmp_path), "--examples", opener=open_nothing)

    assert result.exit_code == 1
    assert "judge is unavailable" in result.output


def test_examples_without_a_judge_are_a_usage_error(tmp_path: Path) -> None:
    """Exit code 2 is for the caller's mistakes."""
    assert run("check", sample(tmp_path), "--examples", opener=None).exit_code == 2
    assert run("check", "--nonsense").exit_code == 2


def test_show_prints_what_the_model_sees(tmp_path: Path) -> None:
    """Hash, floor, and the rendered text of every pass."""
    path = sample(tmp_path, custom={"disallowed": ["spoilers"]}, builtin={"suppress": ["Malware"]})
    output = run("show", path).output

    assert load_policy(path).sha256 in output
    assert "  | - spoilers\n  | - Sexual (minor): any sexual content involving a minor\n" in output
    assert "Sexual (minor): critical, block from 0.1, whatever stands above" in output
    assert "suppressed    Malware" in output


def test_show_finds_a_policy_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are what verdicts carry."""
    monkeypatch.setenv("MODERATION_POLICIES__DIRECTORY", str(tmp_path))
    sample(tmp_path, "other-file.yaml")

    found, missing = run("show", "a", "--json"), run("show", "b")

    assert json.loads(found.output)["floor"]["category"] == "Sexual (minor)"
    assert missing.exit_code == 1
    assert "no valid policy is named `b`" in missing.output


def test_diff_exits_1_where_something_differs(tmp_path: Path) -> None:
    """As the diff of files does."""
    one, two = sample(tmp_path), sample(tmp_path, "b.yaml", on_undecided="block")

    assert run("diff", one, one).output == "no difference\n"
    result = run("diff", one, two)
    assert (result.exit_code, result.output) == (1, "judging    on_undecided: hold -> block\n")
    value = json.loads(run("diff", one, two, "--json").output)
    assert value["same_judging"] is False


def test_import_writes_a_policy_that_loads(tmp_path: Path) -> None:
    """NVIDIA's JSON in, a checked policy file out, never over another one unasked."""
    result = run("import", NVIDIA, "--out", tmp_path, "--topic", "desk")
    path = tmp_path / "acme-support-desk.yaml"

    assert result.exit_code == 0
    assert load_policy(path).topics == ("desk",)
    assert run("import", NVIDIA, "--out", tmp_path).exit_code == 2
    assert run("import", NVIDIA, "--out", tmp_path, "--force", "--json").exit_code == 0


def test_import_prints_where_no_directory_is_given() -> None:
    """The YAML alone goes to standard output, the notes elsewhere."""
    result = run("import", NVIDIA)

    assert result.stdout.startswith("name: acme-support-desk\n")
    assert "note: response_guidance" in result.stderr


def test_import_of_a_bad_file_exits_1(tmp_path: Path) -> None:
    """With the problem on standard error."""
    (tmp_path / "a.json").write_text("{}")
    result = run("import", tmp_path / "a.json")

    assert result.exit_code == 1
    assert "not a policy of this format" in result.stderr
