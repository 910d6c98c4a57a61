"""Commands of the operations pages: helm's run against a release, kubectl's names are checked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.kube_api import KubeApi, kube_api
from tests.support.pages import blocks
from tests.support.tools import REPOSITORY, helm

GUIDE = REPOSITORY / "docs" / "operations.md"
PAGES = {
    "operations": GUIDE,
    "runbook": REPOSITORY / "docs" / "runbook.md",
    "chart": REPOSITORY / "helm" / "moderation-worker" / "README.md",
}
NAME = "moderation-moderation-worker"
OBJECTS = {
    f"deploy/{NAME}",
    *("deploy", "pods", "events", "nodes", "hpa", "scaledobject", "scaledobject,hpa"),
    *("triggerauthentication", "configmap", f"keda-hpa-{NAME}", NAME, f"{NAME}-policies"),
}
"""What kubectl commands of the pages may name: kinds, and objects of the release ``moderation``."""


def commands(page: Path, program: str) -> Iterator[str]:
    """Commands of a program in a page's shell blocks, in order, each in one line."""
    for block in blocks(page.read_text(encoding="utf-8"), "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith(f"{program} "):
                yield re.sub(r"\s+", " ", line.partition(" #")[0]).strip()


class Release:
    """A directory of a user's, with the repository's chart and policies, and helm on a cluster."""

    def __init__(self, api: KubeApi, folder: Path) -> None:
        self.api, self.folder = api, folder
        self.config = api.kubeconfig(folder / "kubeconfig")
        for name in ("helm", "policies"):
            (folder / name).symlink_to(REPOSITORY / name)
        for block in blocks(GUIDE.read_text(encoding="utf-8"), "yaml"):
            if named := re.match(r"# (\S+\.yaml)\n", block):
                (folder / named[1]).write_text(block)
        (folder / "SHA256SUMS").write_text(f"{'0' * 64}  config.json\n")
        self.tools = folder / "bin"
        self.tools.mkdir()
        (self.tools / "helm").symlink_to(helm())

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """As typed, in a shell."""
        environment = {
            "PATH": f"{self.tools}{os.pathsep}{os.environ['PATH']}",
            "KUBECONFIG": str(self.config),
            "HOME": str(self.folder),
        }
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def policies(self) -> set[str]:
        """Files of the policies in force."""
        return set(self.api.of_kind("ConfigMap")[f"{NAME}-policies"]["data"])


@pytest.fixture
def release(tmp_path: Path) -> Iterator[Release]:
    with kube_api() as api:
        yield Release(api, tmp_path)


def test_every_helm_command_of_the_guide_works_in_the_order_it_is_given(release: Release) -> None:
    """Install, upgrade, canary, roll back: against an API that keeps what helm writes."""
    for command in commands(GUIDE, "helm"):
        done = release.run(command)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if "moderation-trial" not in command and f"{NAME}-policies" in release.api.of_kind(
            "ConfigMap"
        ):
            assert release.policies() == {"community.yaml", "scams.txt"}, command


def test_the_install_of_the_charts_readme_works(release: Release) -> None:
    (command,) = commands(PAGES["chart"], "helm")
    done = release.run(command)
    assert done.returncode == 0, done.stderr


def test_a_rollback_brings_settings_and_policies_back(release: Release) -> None:
    """The guide says so, since somebody who rolls back a setting has to know it."""
    install = next(each for each in commands(GUIDE, "helm") if "my-policies.yaml" in each)
    assert release.run(install).returncode == 0
    policies = yaml.safe_load((release.folder / "my-policies.yaml").read_text())
    policies["policies"]["inline"]["scams.txt"] = "triple your bitcoin\n"
    (release.folder / "my-policies.yaml").write_text(yaml.safe_dump(policies))
    upgrade = next(
        each
        for each in commands(GUIDE, "helm")
        if each.startswith("helm upgrade moderation ") and "--dry-run" not in each
    )
    assert release.run(upgrade.replace("install", "upgrade")).returncode == 0
    lists = release.api.of_kind("ConfigMap")[f"{NAME}-policies"]["data"]
    assert "triple" in lists["scams.txt"]

    done = release.run("helm rollback moderation --namespace moderation")

    assert done.returncode == 0, done.stderr
    lists = release.api.of_kind("ConfigMap")[f"{NAME}-policies"]["data"]
    assert "double" in lists["scams.txt"]


def test_two_releases_of_one_group_are_a_canary_with_their_own_names(release: Release) -> None:
    """The canary's commands leave the release beside it as it is."""
    for command in commands(GUIDE, "helm"):
        if "uninstall" in command:
            break
        assert release.run(command).returncode == 0, command
    found = release.api.of_kind("Deployment")
    assert set(found) == {NAME, "moderation-canary-moderation-worker"}
    groups = {
        yaml.safe_load(each["data"]["worker.yaml"])["kafka"]["group_id"]
        for each in release.api.of_kind("ConfigMap").values()
        if "worker.yaml" in each["data"]
    }
    assert len(groups) == 1


@pytest.mark.parametrize("page", PAGES)
def test_every_helm_command_names_its_namespace(page: str) -> None:
    """Without it, an upgrade looks for the release where kubectl happens to be."""
    found = list(commands(PAGES[page], "helm"))
    for command in found:
        acts = command.split()[1] in {"install", "upgrade", "rollback", "history", "uninstall"}
        assert not acts or "--namespace" in command, command


@pytest.mark.parametrize("page", ["operations", "runbook"])
def test_every_kubectl_command_names_the_namespace_and_objects_that_are_there(page: str) -> None:
    """A name that does not exist is found out at the worst time."""
    found = list(commands(PAGES[page], "kubectl"))
    assert len(found) > 5
    for command in found:
        words = shlex.split(command.partition(" -- ")[0].partition(" | ")[0])
        named = [word for word in words if "/" in word or word.startswith(NAME)]
        for word in named:
            known = word in OBJECTS or word.startswith(("app.", "-", "--", "{", "policies"))
            assert known or "=" in word, f"{command}: {word}"
        assert "-n" in words or words[1:3] == ["get", "nodes"], command
        assert words[1] != "get" or words[words.index("get") + 1] in OBJECTS, command
