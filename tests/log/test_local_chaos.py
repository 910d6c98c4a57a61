"""The local log under kill -9: whole commits or none, however the writing was cut off."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.support.log_backends import LocalBackend, create
from tests.support.log_chaos import survive
from worker.errors import FatalError
from worker.log.local.journal import FILE, Commit, Journal, Stored, encode_frame
from worker.records import TopicPartition


@pytest.mark.slow
async def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """12 kills of two workers on one directory: each of 3,000 records judged once, in order."""
    backend = LocalBackend(tmp_path, stream={"max_events": 64})
    await create(backend, partitions=4)
    fleet = await survive(
        backend,
        tmp_path / "workers.log",
        3000,
        workers=2,
        seed=11,
        strikes=12,
        gap_s=(0.3, 1.3),
        freeze_s=None,
        pause_s=0.3,
    )
    assert fleet.kills == 12


def commit_frame(number: int) -> bytes:
    record = ("verdicts", 0, Stored(number, b"k", b"v%d" % number))
    return encode_frame([record], [Commit("g", "events", 0, number + 1)])


def test_a_frame_cut_off_anywhere_does_not_count(tmp_path: Path) -> None:
    """At every length of the last write: the commits before it are whole, it is not there."""
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(lambda number=number: commit_frame(number))  # type: ignore[misc]
    journal.close()
    whole = (tmp_path / FILE).read_bytes()
    last = len(commit_frame(2))
    for cut in range(1, last + 1):
        (tmp_path / FILE).write_bytes(whole[: len(whole) - cut])
        journal = Journal(tmp_path)
        assert journal.end(TopicPartition("verdicts", 0)) == 2
        assert journal.commits["g", "events", 0].next_offset == 2
        journal.append(lambda: commit_frame(2))
        assert journal.read(TopicPartition("verdicts", 0), 2).value == b"v2"
        journal.close()
        assert (tmp_path / FILE).read_bytes() == whole


def test_damage_in_the_middle_is_reported_and_never_cut_away(tmp_path: Path) -> None:
    """A flipped byte before good commits is an error that says what to do."""
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(lambda number=number: commit_frame(number))  # type: ignore[misc]
    journal.close()
    whole = bytearray((tmp_path / FILE).read_bytes())
    whole[len(commit_frame(0)) + 20] ^= 0xFF
    (tmp_path / FILE).write_bytes(bytes(whole))
    journal = Journal(tmp_path)
    with pytest.raises(FatalError, match="damaged at byte"):
        journal.append(lambda: commit_frame(3))
    journal.close()
    assert (tmp_path / FILE).read_bytes() == bytes(whole)


def test_writers_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    """Three processes append at once; every frame is whole and every offset is given once."""
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                journal = Journal(tmp_path)
                dice = random.Random(child)
                for number in range(100):
                    value = b"%d:%d" % (child, number) + b"." * dice.randrange(5000)
                    blob = [("t", 0, Stored(0, None, value))]
                    journal.append(lambda blob=blob: encode_frame(blob))  # type: ignore[misc]
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    journal = Journal(tmp_path)
    source = TopicPartition("t", 0)
    assert journal.end(source) == 300
    seen = [(journal.read(source, n).value or b"").split(b".")[0] for n in range(300)]
    journal.close()
    for child in range(3):
        mine = [value for value in seen if value.startswith(b"%d:" % child)]
        assert mine == [b"%d:%d" % (child, number) for number in range(100)]
