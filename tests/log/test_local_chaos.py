"""The local log under kill -9: whole commits or none, however the writing was cut off."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import signal
from pathlib import Path

import pytest

from tests.support.log_backends import LocalBackend, create
from tests.support.log_chaos import survive
from worker.errors import DependencyUnavailable, FatalError
from worker.log.local.journal import (
    FILE,
    FILE_HEADER,
    FRAME_HEADER,
    Commit,
    Journal,
    Stored,
    encode_transaction,
)
from worker.records import TopicPartition


@pytest.mark.slow
async def test_kills_at_random_moments_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """12 kills of two workers on one directory: each of 3,000 records judged once, in order."""
    backend = LocalBackend(
        tmp_path, stream={"max_events": 64, "poison_isolate_after": 12, "poison_give_up_after": 14}
    )
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


def transaction(number: int) -> bytes:
    record = ("verdicts", 0, Stored(number, b"k", b"v%d" % number))
    return encode_transaction([record], [Commit("g", "events", 0, number + 1)])


def test_a_frame_cut_off_anywhere_does_not_count(tmp_path: Path) -> None:
    """At every length of the last write: the commits before it are whole, it is not there."""
    journal = Journal(tmp_path)
    for number in range(3):
        journal.append(lambda number=number: transaction(number))  # type: ignore[misc]
    journal.close()
    whole = (tmp_path / FILE).read_bytes()
    last = FRAME_HEADER.size + len(transaction(2))
    for cut in range(1, last + 1):
        (tmp_path / FILE).write_bytes(whole[: len(whole) - cut])
        journal = Journal(tmp_path)
        assert journal.end(TopicPartition("verdicts", 0)) == 2
        assert journal.commits["g", "events", 0].next_offset == 2
        journal.append(lambda: transaction(2))
        assert journal.read(TopicPartition("verdicts", 0), 2).value == b"v2"
        journal.close()
        assert (tmp_path / FILE).read_bytes() == whole


def test_what_a_crash_cut_off_is_kept_beside_the_journal(tmp_path: Path) -> None:
    """Nobody waits for it, but whoever looks into a crash finds the bytes."""
    whole = journal_of(tmp_path, 2)
    (tmp_path / FILE).write_bytes(whole[:-3])
    torn = whole[len(journal_bytes(whole, 1)) : -3]
    journal = Journal(tmp_path)
    journal.append(lambda: transaction(1))
    journal.close()
    (aside,) = tmp_path.glob(f"{FILE}.torn-*")
    assert aside.read_bytes() == torn
    assert aside.stat().st_mode & 0o077 == 0


def journal_of(directory: Path, count: int) -> bytes:
    """A journal of ``count`` transactions, as bytes."""
    journal = Journal(directory)
    for number in range(count):
        journal.append(lambda number=number: transaction(number))  # type: ignore[misc]
    journal.close()
    return (directory / FILE).read_bytes()


def journal_bytes(whole: bytes, count: int) -> bytes:
    """The beginning of a journal of equal transactions, up to the end of the ``count``-th."""
    size = FRAME_HEADER.size + len(transaction(0))
    return whole[: FILE_HEADER + count * size]


def test_every_single_bit_that_flips_is_noticed_before_anything_is_lost(tmp_path: Path) -> None:
    """Header, length, checksum or body, first transaction or last: said, and nothing is cut."""
    whole = journal_of(tmp_path, 4)
    silent, said = [], set()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / FILE).write_bytes(damaged)
        try:
            journal = Journal(tmp_path)
        except FatalError as error:
            said.add(str(tmp_path / FILE) in str(error))
        else:
            silent.append(bit)
            journal.close()
        assert (tmp_path / FILE).read_bytes() == damaged
    assert silent == []
    assert said == {True}


@pytest.mark.parametrize("missing", [1, 7, 16, 40])
def test_bytes_that_went_missing_before_a_whole_commit_are_damage(
    tmp_path: Path, missing: int
) -> None:
    """The end of the file looks like a commit that was cut short; a whole one lies in it."""
    whole = journal_of(tmp_path, 3)
    start = len(journal_bytes(whole, 1)) + FRAME_HEADER.size
    gap = whole[:start] + whole[start + missing :]
    cut = gap[: len(gap) - missing] if missing > len(transaction(0)) else gap
    (tmp_path / FILE).write_bytes(cut)
    with pytest.raises(FatalError, match="damaged at byte"):
        Journal(tmp_path).append(lambda: transaction(3))
    assert (tmp_path / FILE).read_bytes() == cut


def test_a_block_of_zeros_in_the_middle_is_damage(tmp_path: Path) -> None:
    """What file systems leave behind after a power cut is no end of the log."""
    whole = journal_of(tmp_path, 3)
    place = len(journal_bytes(whole, 1))
    zeroed = whole[:place] + bytes(16) + whole[place + 16 :]
    (tmp_path / FILE).write_bytes(zeroed)
    with pytest.raises(FatalError, match=f"damaged at byte {place}"):
        Journal(tmp_path)
    assert (tmp_path / FILE).read_bytes() == zeroed


def test_damage_under_a_running_worker_is_said(tmp_path: Path) -> None:
    """Lost bytes, bytes that changed and a journal that is gone: never quiet idleness."""
    whole = journal_of(tmp_path, 3)
    source = TopicPartition("verdicts", 0)

    journal = Journal(tmp_path)
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    (tmp_path / FILE).write_bytes(flipped)
    with pytest.raises(FatalError, match="damaged at byte"):
        journal.read(source, 2)
    (tmp_path / FILE).write_bytes(whole[:-50])
    assert journal.stale
    with pytest.raises(FatalError, match="was cut"):
        journal.refresh()
    (tmp_path / FILE).unlink()
    with pytest.raises(FatalError, match="removed or replaced"):
        journal.append(lambda: transaction(3))
    journal.close()


def test_a_user_s_bytes_are_never_taken_for_a_commit(tmp_path: Path) -> None:
    """An event that holds a whole journal, cut off by a crash, is still a torn end."""
    other = journal_of(tmp_path / "other", 3)
    journal = Journal(tmp_path)
    journal.append(lambda: transaction(0))
    record = ("verdicts", 0, Stored(1, b"k", other + b"." * 100))
    journal.append(lambda: encode_transaction([record]))
    journal.close()
    os.truncate(tmp_path / FILE, (tmp_path / FILE).stat().st_size - 50)
    journal = Journal(tmp_path)
    journal.append(lambda: transaction(1))
    assert journal.end(TopicPartition("verdicts", 0)) == 2
    journal.close()


def test_a_full_disk_blames_nobody_and_leaves_no_half_written_commit(tmp_path: Path) -> None:
    """The log is away until there is room; what was written before is whole."""
    whole = journal_of(tmp_path, 2)
    journal = Journal(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
    try:
        with pytest.raises(DependencyUnavailable) as refused:
            journal.append(lambda: transaction(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(tmp_path / FILE) in str(refused.value)
    assert (tmp_path / FILE).read_bytes() == whole
    journal.append(lambda: transaction(2))
    assert journal.end(TopicPartition("verdicts", 0)) == 3
    journal.close()


def test_a_lock_that_is_held_for_too_long_is_said_with_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that hangs holds up the others, but not for ever and not without a word."""
    monkeypatch.setattr("worker.log.local.journal.LOCK_S", 0.05)
    journal = Journal(tmp_path)
    with (tmp_path / FILE).open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(DependencyUnavailable, match=f"locked by process {os.getpid()}"):
            journal.append(lambda: transaction(0))
    journal.append(lambda: transaction(0))
    journal.close()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Whoever reads the line knows which setting to change."""
    (tmp_path / "file").touch()
    with pytest.raises(FatalError, match=r"log\.directory .*file"):
        Journal(tmp_path / "file" / "log")


def test_a_journal_of_another_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Its records are not lost by being read wrongly."""
    (tmp_path / FILE).write_bytes(b"\x10\x00\x00\x00 an older form of the file")
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(FatalError, match="no journal of this version"):
        Journal(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


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
                    journal.append(lambda blob=blob: encode_transaction(blob))  # type: ignore[misc]
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
