"""What is installed where: one version, every import declared, no tools in production."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import jsonschema
import pytest
import yaml

from moderation_tools import house
from tests.support.tools import REPOSITORY
from worker import __version__

WORKER = REPOSITORY / "pyproject.toml"
TOOLS = REPOSITORY / "tools" / "pyproject.toml"


def normalised(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(pyproject: Path) -> set[str]:
    """Distributions that a project depends on."""
    listed = tomllib.loads(pyproject.read_text())["project"]["dependencies"]
    return {normalised(re.split(r"[\[<>=~ ]", each)[0]) for each in listed}


def imported(root: Path) -> set[str]:
    """Top-level packages that files under ``root`` import, the standard library left out."""
    names = {
        module.partition(".")[0] for file in root.rglob("*.py") for module, _ in house.imports(file)
    }
    return names - sys.stdlib_module_names


@pytest.mark.parametrize(
    ("root", "pyproject"),
    [("worker", WORKER), ("tools/moderation_tools", TOOLS)],
    ids=["worker", "tools"],
)
def test_every_import_is_declared(root: str, pyproject: Path) -> None:
    """A package that only comes along with another is gone when that one changes its mind."""
    owners = packages_distributions()
    own = {"worker", "moderation_tools", "triton"}  # triton comes with torch, where it can run
    missing = {
        name: owners.get(name, ["nobody"])
        for name in imported(REPOSITORY / root) - own
        if not {normalised(each) for each in owners.get(name, [])} & declared(pyproject)
    }
    assert missing == {}


def test_the_worker_imports_nothing_of_the_tools() -> None:
    """Production installs no training, no bench and no demonstration."""
    assert "moderation_tools" not in imported(REPOSITORY / "worker")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worker's wheel, built from this tree."""
    directory = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", directory],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = directory.glob("*.whl")
    return built


def test_the_wheel_holds_the_worker_and_nothing_else(wheel: Path) -> None:
    """Types and the demonstration checkpoint are in it; tools, tests and recipes are not."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"worker", f"moderation_worker-{__version__}.dist-info"}
    assert {"worker/py.typed", "worker/checkpoints/tiny/model.safetensors"} <= set(names)
    assert [name for name in names if re.search(r"/(training|bench|demo|tests)/", name)] == []


@pytest.mark.model
def test_the_wheel_installed_alone_judges(wheel: Path, tmp_path: Path) -> None:
    """Without a source tree around it: the files it needs are all inside."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    judged = subprocess.run(
        [sys.executable, "-m", "worker", "judge", "--json", "--text", "where can I buy a grenade"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert json.loads(judged.stdout)["outcome"] == "unsafe"


def test_a_command_of_the_tools_names_what_to_install(tmp_path: Path) -> None:
    """Whoever installed the worker alone and types `demo` learns where it is."""
    script = (
        "import worker.cli\n"
        "worker.cli.entry_points = lambda **_: ()\n"  # as where the tools are not installed
        "worker.cli.main(['demo'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 2
    assert "pip install 'moderation-worker[tools]'" in done.stderr


def test_both_distributions_have_the_one_version() -> None:
    """The number stands in one file."""
    for project in (WORKER, TOOLS):
        read = tomllib.loads(project.read_text())
        assert "version" in read["project"]["dynamic"]
        path = project.parent / read["tool"]["hatch"]["version"]["path"]
        assert path.resolve() == REPOSITORY / "worker" / "__init__.py"


def test_the_chart_names_the_version() -> None:
    """The chart installs the image of the same release."""
    chart = yaml.safe_load((REPOSITORY / "helm/moderation-worker/Chart.yaml").read_text())
    assert chart["appVersion"] == __version__


def test_the_changelog_has_the_version_and_what_comes_next() -> None:
    """Whoever upgrades reads what changes before it does."""
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[([^\]]+)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert headings[:2] == ["Unreleased", __version__]
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_hosted_workflow_is_valid_and_runs_every_python_that_is_claimed() -> None:
    """It cannot run here, so at least its form and its matrix are held."""
    schema = distribution("check-jsonschema").locate_file(
        "check_jsonschema/builtin_schemas/vendor/github-workflows.json"
    )
    text = (REPOSITORY / ".github/workflows/ci.yaml").read_text()
    workflow = yaml.load(text, yaml.BaseLoader)
    jsonschema.validate(
        yaml.safe_load(text.replace("\non:", '\n"on":')), json.loads(Path(str(schema)).read_text())
    )
    claimed = [
        each.rpartition(" ")[2]
        for each in tomllib.loads(WORKER.read_text())["project"]["classifiers"]
        if re.search(r"Python :: 3\.\d+$", each)
    ]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == claimed
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": ".ci/run"}


def test_pre_commit_runs_the_pinned_tools() -> None:
    """A hook of another version formats what the check then refuses."""
    config = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    constraints = (REPOSITORY / "constraints.txt").read_text()
    pinned = dict(re.findall(r"^([a-z-]+)==(\S+)$", constraints, re.MULTILINE))
    versions = [each["rev"] for each in config["repos"] if "ruff" in each["repo"]]
    assert versions == [f"v{pinned['ruff']}"]
