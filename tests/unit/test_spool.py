"""The spool keeps bytes, counts them, and leaves nothing behind."""

import errno
import os
import resource
import threading
from pathlib import Path

import pytest

from shared.errors import SpoolFullError
from shared.spool import Spool

KIB = 1024


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def test_what_is_appended_is_read_back_whole_and_in_part(tmp_path: Path) -> None:
    entry = Spool(tmp_path, 1_000).create()
    entry.append(b"hello ")
    entry.append(b"world")
    assert entry.size == 11
    assert entry.read() == b"hello world"
    assert entry.read(6) == b"world"
    assert entry.read(4, 3) == b"o w"
    assert entry.read(20, 5) == b""


@pytest.mark.parametrize("memory_bytes", [0, 4, 11, 100])
def test_an_entry_reads_the_same_from_memory_and_from_its_file(tmp_path: Path, memory_bytes: int) -> None:
    entry = Spool(tmp_path, 1_000).create(memory_bytes)
    for piece in (b"hel", b"lo ", b"world"):
        entry.append(piece)
    assert len(files(tmp_path)) == (0 if memory_bytes >= 11 else 1)
    assert entry.read() == b"hello world"
    assert entry.read(4, 3) == b"o w"
    with entry.open() as stream:
        assert stream.read(5) == b"hello"
        stream.seek(6)
        assert stream.read() == b"world"
    with entry.open() as stream:
        assert list(iter(lambda: stream.read(4), b"")) == [b"hell", b"o wo", b"rld"]


def test_an_empty_entry_reads_as_empty(tmp_path: Path) -> None:
    entry = Spool(tmp_path, 10).create()
    assert entry.read() == b""
    with entry.open() as stream:
        assert stream.read() == b""
    entry.release()


def test_bytes_in_use_are_counted_in_memory_and_in_files_until_released(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)
    small, large = spool.create(100), spool.create()
    small.append(bytes(10))
    large.append(bytes(500))
    assert (spool.used, spool.free()) == (510, 490)
    large.release()
    assert (spool.used, spool.free()) == (10, 990)
    small.release()
    small.release()
    assert (spool.used, spool.free()) == (0, 1_000)
    assert files(tmp_path) == []


def test_over_the_quota_nothing_is_added_and_the_error_names_the_setting(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10)
    entry = spool.create()
    entry.append(b"1234567")
    with pytest.raises(SpoolFullError, match=r"7 of 10 bytes.* 4 more.*SPOOL_MAX_BYTES"):
        entry.append(b"89ab")
    assert (entry.read(), entry.size, spool.used) == (b"1234567", 7, 7)
    entry.append(b"890")
    assert entry.read() == b"1234567890"


def test_a_body_is_released_with_its_block(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000)
    with spool.create(4) as body:
        body.append(bytes(100))
        assert spool.used == 100
    assert spool.used == 0
    assert files(tmp_path) == []


def test_a_stream_outlives_the_release_of_its_entry(tmp_path: Path) -> None:
    entry = Spool(tmp_path, 100).create()
    entry.append(b"still here")
    with entry.open() as stream:
        entry.release()
        assert stream.read() == b"still here"


def test_all_entries_together_keep_no_more_in_memory_than_the_spool_allows(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10_000, memory_bytes=150)
    first, second = spool.create(100), spool.create(100)
    first.append(bytes(100))
    second.append(bytes(60))
    assert len(files(tmp_path)) == 1, "the second entry had to go to its file at once"
    first.release()
    third = spool.create(100)
    third.append(bytes(100))
    assert len(files(tmp_path)) == 1, "what the first gave back was there for the third"


def test_leftovers_of_a_killed_process_are_removed_and_other_files_are_not(tmp_path: Path) -> None:
    entry = Spool(tmp_path, 1_000).create()
    entry.append(b"left behind")
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    spool = Spool(tmp_path, 1_000)
    assert files(tmp_path) == [other]
    assert spool.used == 0


def test_close_removes_what_is_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "made" / "on demand", 1_000)
    spool.create().append(b"x")
    spool.close()
    assert files(spool.folder) == []


def test_a_full_disk_is_a_full_spool_and_the_entry_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, 1_000)
    entry = spool.create()
    entry.append(b"before")
    real = os.pwrite

    def full(file: int, data: memoryview, start: int) -> int:
        if len(data) > 2:
            return real(file, data[:2], start)  # a disk fills up in mid write
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SpoolFullError, match="disk"):
        entry.append(b"AFTER")
    monkeypatch.undo()
    assert (entry.size, entry.read(), spool.used) == (6, b"before", 6)
    entry.append(b"xy")
    assert entry.read() == b"beforexy"


def test_an_entry_that_cannot_leave_memory_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, 1_000)
    entry = spool.create(memory_bytes=6)
    entry.append(b"before")

    def full(_file: int, _data: memoryview, _start: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SpoolFullError):
        entry.append(b"after")
    monkeypatch.undo()
    assert entry.read() == b"before"
    entry.append(b" and after")
    assert entry.read() == b"before and after"


def test_another_fault_of_the_disk_is_not_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, 1_000)

    def broken(_file: int, _data: memoryview, _start: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(OSError, match="Input/output"):
        spool.create().append(b"x")
    assert spool.used == 0


def test_free_is_what_the_disk_has_where_that_is_less_than_the_quota(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert Spool(tmp_path, 1 << 62).free() <= disk.f_blocks * disk.f_frsize


def test_ten_thousand_entries_need_no_file_descriptors(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        entries = [spool.create() for _ in range(10_000)]
        for number, entry in enumerate(entries):
            entry.append(b"%d" % number)
        assert entries[1_234].read() == b"1234"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_threads_that_share_a_spool_never_exceed_its_quota_and_lose_no_account(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 64 * KIB, memory_bytes=8 * KIB)
    exceeded = threading.Event()
    refused = threading.Event()

    def work(own: int) -> None:
        for turn in range(60):
            with spool.create(2 * KIB) as entry:
                for _ in range(12):
                    try:
                        entry.append(bytes([own]) * KIB * (turn % 3 + 1))
                    except SpoolFullError:
                        refused.set()
                    if spool.used > spool.quota:
                        exceeded.set()
                assert set(entry.read()) <= {own}

    threads = [threading.Thread(target=work, args=(own,)) for own in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not exceeded.is_set()
    assert spool.used == 0
    assert files(tmp_path) == []
    held = [spool.create(2 * KIB) for _ in range(4)]
    for entry in held:
        entry.append(bytes(2 * KIB))
    assert files(tmp_path) == [], "all memory had been given back"
