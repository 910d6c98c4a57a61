"""Promises of looking at a policy directory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.policies import untouched, write_policy
from worker.errors import PolicyError
from worker.policy.directory import DirectoryWatch, Look
from worker.policy.parse import parse_policy


class Busy(DirectoryWatch):
    """A directory somebody writes to just after each of the first ``writes`` looks."""

    def __init__(self, directory: Path, writes: int) -> None:
        super().__init__(directory)
        self.writes = writes

    def _signature(self) -> tuple[tuple[str, int, int, int, int, int], ...]:
        seen = super()._signature()
        if self.writes:
            self.writes -= 1
            path = self.directory / "a.yaml"
            path.write_text(path.read_text() + "#")
            untouched(path)
        return seen


def test_content_is_given_once(tmp_path: Path) -> None:
    """Every file at first, nothing until content changes."""
    path = write_policy(tmp_path, "a.yaml")
    watch = DirectoryWatch(tmp_path)

    assert [file.path for file in watch.first().files] == [path]
    assert watch.changed() is None
    os.utime(path)
    assert (watch.changed(), watch.changed()) == (None, None)
    path.write_text(path.read_text() + "# more\n")
    untouched(path)
    assert watch.changed() is not None


def test_hidden_and_other_files_are_no_policies(tmp_path: Path) -> None:
    """Editors' and volumes' hidden files, notes and directories are left alone."""
    for file in (".a.yaml", "notes.md", "a.yaml~"):
        (tmp_path / file).write_text("x")
    (tmp_path / "dir.yaml").mkdir()

    assert DirectoryWatch(tmp_path).first() == Look()


def test_a_directory_that_changes_while_read_is_read_again(tmp_path: Path) -> None:
    """What is given is one state of the directory, and the last one."""
    path = write_policy(tmp_path, "a.yaml")
    look = Busy(tmp_path, writes=3).changed()

    assert look is not None
    assert look.files[0].raw == path.read_bytes()


def test_a_directory_that_never_holds_still_is_refused(tmp_path: Path) -> None:
    """Rather than half of it."""
    write_policy(tmp_path, "a.yaml")

    with pytest.raises(PolicyError, match="keep changing"):
        Busy(tmp_path, writes=1_000).changed()


def test_a_file_that_cannot_be_read_is_a_problem_of_that_file(tmp_path: Path) -> None:
    """Its neighbours are given."""
    write_policy(tmp_path, "a.yaml")
    (tmp_path / "b.yaml").write_bytes(b"#" * 600_000)

    files = DirectoryWatch(tmp_path).first().files

    assert [file.problem is None for file in files] == [True, False]


def test_what_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    """A writer that stops in the middle of a line leaves another policy behind, and a valid one."""
    path = write_policy(tmp_path, "a.yaml")
    watch = DirectoryWatch(tmp_path)
    whole = watch.first().files[0].raw
    for size in range(1, len(whole), 7):
        path.write_bytes(whole[:size])
        assert watch.changed() is None
    path.write_bytes(whole + b"# done\n")
    assert watch.changed() is None
    look = watch.changed()  # the second look that agrees
    assert look is not None
    assert look.files[0].raw == whole + b"# done\n"


def test_an_edit_that_keeps_size_and_date_is_seen(tmp_path: Path) -> None:
    """As `cp -p` and some synchronisers leave it."""
    path = write_policy(tmp_path, "a.yaml", version=2)
    watch = DirectoryWatch(tmp_path)
    watch.first()
    before = path.stat()
    path.write_bytes(path.read_bytes().replace(b"version: 2", b"version: 3"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    look = watch.changed()
    assert look is not None
    assert b"version: 3" in look.files[0].raw


def test_a_policy_and_its_list_come_from_one_version_of_a_volume(tmp_path: Path) -> None:
    """Lists are parsed as they were read beside the policy, not as they are when it is parsed."""
    (tmp_path / "spam.txt").write_text("one\n", "utf-8")
    listed = {"name": "spam", "decide": "unsafe", "category": "Spam", "phrases_file": "spam.txt"}
    write_policy(tmp_path, "a.yaml", prefilter={"lists": [listed]})
    look = DirectoryWatch(tmp_path).first()
    (tmp_path / "spam.txt").write_text("two\n", "utf-8")
    (file,) = look.files
    policy = parse_policy(file.raw, file=str(file.path), lists=look.lists)
    assert policy.prefilter is not None
    assert policy.prefilter.lists[0].loaded == ("one",)
