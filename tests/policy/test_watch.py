"""Promises of looking at a policy directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.policies import write_policy
from worker.errors import PolicyError
from worker.policy.directory import DirectoryWatch


class Busy(DirectoryWatch):
    """A directory somebody writes to just after each of the first ``writes`` looks."""

    def __init__(self, directory: Path, writes: int) -> None:
        super().__init__(directory)
        self.writes = writes

    def _signature(self) -> tuple[tuple[str, int, int, int, int], ...]:
        seen = super()._signature()
        if self.writes:
            self.writes -= 1
            path = self.directory / "a.yaml"
            path.write_text(path.read_text() + "#")
        return seen


def test_content_is_given_once(tmp_path: Path) -> None:
    """Every file at first, nothing until content changes."""
    path = write_policy(tmp_path, "a.yaml")
    watch = DirectoryWatch(tmp_path)

    assert [file.path for file in watch.changed() or ()] == [path]
    assert watch.changed() is None
    os.utime(path)
    assert watch.changed() is None
    path.write_text(path.read_text() + "# more\n")
    assert watch.changed() is not None


def test_hidden_and_other_files_are_no_policies(tmp_path: Path) -> None:
    """Editors' and volumes' hidden files, notes and directories are left alone."""
    for file in (".a.yaml", "notes.md", "a.yaml~"):
        (tmp_path / file).write_text("x")
    (tmp_path / "dir.yaml").mkdir()

    assert DirectoryWatch(tmp_path).changed() is None or DirectoryWatch(tmp_path).changed() == ()


def test_a_directory_that_changes_while_read_is_read_again(tmp_path: Path) -> None:
    """What is given is one state of the directory, and the last one."""
    path = write_policy(tmp_path, "a.yaml")
    files = Busy(tmp_path, writes=3).changed()

    assert files is not None
    assert files[0].raw == path.read_bytes()


def test_a_directory_that_never_holds_still_is_refused(tmp_path: Path) -> None:
    """Rather than half of it."""
    write_policy(tmp_path, "a.yaml")

    with pytest.raises(PolicyError, match="keep changing"):
        Busy(tmp_path, writes=1_000).changed()


def test_a_file_that_cannot_be_read_is_a_problem_of_that_file(tmp_path: Path) -> None:
    """Its neighbours are given."""
    write_policy(tmp_path, "a.yaml")
    (tmp_path / "b.yaml").write_bytes(b"#" * 600_000)

    files = DirectoryWatch(tmp_path).changed() or ()

    assert [file.problem is None for file in files] == [True, False]
