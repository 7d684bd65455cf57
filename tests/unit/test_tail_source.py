"""Files that are followed, without Kafka: over failed sessions, paths that go and come, restarts of the machine."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from ingestion.following import Followed
from ingestion.session import MESSAGES_TOGETHER
from shared.config import MIB
from tests.ingesting import Ledger, Tailing, append, places, renumbered


@pytest.fixture
def tailing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tailing]:
    """The clock is the fixture's own, since all of the process look at it."""
    with monkeypatch.context() as patch:
        found = Tailing(tmp_path, patch)
        yield found
        found.close()


@pytest.mark.parametrize("late_answer", [False, True])
def test_a_file_that_is_removed_while_a_session_fails_is_read_to_its_end(tailing: Tailing, late_answer: bool) -> None:
    log, ledger = tailing.folder / "app.log", Ledger()
    log.write_bytes(b"one\n")
    run = tailing.start(ledger, "app.log")
    tailing.turns(run, 1)
    append(log, b"two\n")
    with log.open("ab") as writer:
        run.fail(late_answer=late_answer)
        log.unlink()  # rotated and compressed
        log.write_bytes(b"new\n")
        writer.write(b"three\n")
        writer.flush()
        run.fail()
        tailing.turns(run, 5)
    tailing.turns(run, 20)
    assert sorted(ledger.sent) == [b"new", b"one", b"three", b"two"]
    assert list(places(ledger)) == [Followed(str(log), 1, MIB).place.key], "that of a removed file is forgotten"


def test_after_a_failed_session_a_file_goes_on_at_what_counts_and_from_the_start_where_it_was_truncated(
    tailing: Tailing,
) -> None:
    log, ledger = tailing.folder / "app.log", Ledger()
    log.write_bytes(b"one\n")
    run = tailing.start(ledger, "app.log")
    run.fail()
    tailing.turns(run, 1)
    append(log, b"two\nbegun")
    run.fail()
    append(log, b" and ended\n")
    tailing.turns(run, 1)
    assert ledger.sent == [b"one", b"two", b"begun and ended"]
    append(log, b"lost\n")
    run.session.kafka_is_away = True
    run.turn()
    log.write_bytes(b"anew\n")
    run.begin()
    tailing.turns(run, 1)
    assert ledger.sent[3:] == [b"anew"]


@pytest.mark.parametrize("away", [5.0, 12.0, 60.0])
def test_a_folder_that_is_away_for_a_while_is_not_read_again(tailing: Tailing, away: float) -> None:
    folder, ledger = tailing.folder / "logs", Ledger()
    folder.mkdir()
    (folder / "app.log").write_bytes(b"one\ntwo\n")
    run = tailing.start(ledger, "logs/*.log")
    tailing.turns(run, 1)
    folder.rename(tailing.folder / "elsewhere")
    tailing.turns(run, away)
    assert "this folder is not there" in str(run.feed.faults())
    (tailing.folder / "elsewhere").rename(folder)
    append(folder / "app.log", b"three\n")
    tailing.turns(run, 3)
    assert ledger.sent == [b"one", b"two", b"three"]
    assert [place.missing for place in places(ledger).values()] == [""]


def test_a_place_is_kept_for_seven_days_since_its_file_is_missing_and_as_long_as_the_folder_is(
    tailing: Tailing,
) -> None:
    folder, ledger = tailing.folder / "logs", Ledger()
    folder.mkdir()
    log = folder / "app.log"
    log.write_bytes(b"one\n")
    tailing.start(ledger, "logs/*.log").end()
    run = tailing.start(ledger, "logs/*.log")
    tailing.turns(run, 1)
    run.end()
    tailing.days_pass(8)  # without a line
    folder.rename(tailing.folder / "away")
    tailing.start(ledger, "logs/*.log").end()
    tailing.days_pass(8)
    tailing.start(ledger, "logs/*.log").end()
    (tailing.folder / "away").rename(folder)
    tailing.turns(tailing.start(ledger, "logs/*.log"), 1)
    assert ledger.sent == [b"one"]
    for run in tailing._runs:
        run.end()
    log.rename(tailing.folder / "elsewhere")
    tailing.start(ledger, "logs/*.log").end()
    tailing.days_pass(6)
    tailing.start(ledger, "logs/*.log").end()
    assert places(ledger)
    tailing.days_pass(2)
    tailing.start(ledger, "logs/*.log").end()
    assert not places(ledger)


def test_a_renamed_file_is_not_let_go_with_lines_that_nobody_has_looked_at(tailing: Tailing) -> None:
    """Others have so much that its turn does not come."""
    ledger = Ledger()
    busy = [tailing.folder / f"busy{n:02}.log" for n in range(12)]
    for each in busy:
        each.write_bytes(b"z\n")
    log = tailing.folder / "app.log"
    log.write_bytes(b"one\n")
    run = tailing.start(ledger, "*.log", rotated_seconds=2.0)
    tailing.turns(run, 3)
    with log.open("ab") as writer:
        log.rename(tailing.folder / "app.old")
        for each in busy:
            append(each, (b"z" * 999 + b"\n") * 9_000)
        tailing.turns(run, 1.1)
        writer.write(b"two\nthe first half, ")
        writer.flush()
        for _ in range(4):
            run.turn()
            tailing.now += 0.4
        writer.write(b"and the second\n")
    tailing.turns(run, 20)
    assert [line for line in ledger.sent if not line.startswith(b"z")] == [
        b"one",
        b"two",
        b"the first half, and the second",
    ]


def test_a_name_that_is_no_text_is_told_and_the_others_are_followed(tailing: Tailing) -> None:
    ledger = Ledger()
    Path(os.fsdecode(os.fsencode(tailing.folder) + b"/caf\xe9.log")).write_bytes(b"x\n")
    (tailing.folder / "app.log").write_bytes(b"one\n")
    run = tailing.start(ledger, "*.log")
    tailing.turns(run, 1)
    assert ledger.sent == [b"one"]
    (fault,) = run.feed.faults()
    fault.encode()
    assert r"caf\xe9.log: its name is not UTF-8" in fault


def test_a_transaction_has_a_bounded_number_of_messages(tailing: Tailing) -> None:
    ledger = Ledger()
    (tailing.folder / "app.log").write_bytes(b"a\n" * 100_000)
    run = tailing.start(ledger, "app.log")
    tailing.turns(run, 3)
    assert len(ledger.sent) == 100_000
    assert max(ledger.commits) < 2 * MESSAGES_TOGETHER


def test_devices_may_have_other_numbers_after_each_restart_of_the_machine(tailing: Tailing) -> None:
    log, ledger = tailing.folder / "app.log", Ledger()
    for n in range(4):
        append(log, b"%d\n" % n)
        run = tailing.start(ledger, "app.log")
        tailing.turns(run, 1)
        run.end()
        assert ledger.sent == [b"%d" % each for each in range(n + 1)]
        assert len(places(ledger)) == 1, "one place a file"
        renumbered(ledger, log.stat().st_dev, 1_000_000 + n)


def test_of_several_places_of_a_file_the_one_furthest_on_counts(tailing: Tailing) -> None:
    log, ledger = tailing.folder / "app.log", Ledger()
    log.write_bytes(b"one\n")
    tailing.turns(tailing.start(ledger, "app.log"), 1)
    (old,) = places(ledger).values()
    append(log, b"two\n")
    tailing.turns(tailing._runs[0], 1)
    tailing._runs[0].end()
    renumbered(ledger, old.device, 77)
    ledger.places[old.key] = msgspec.json.encode(old)  # as the first versions left it
    tailing.turns(tailing.start(ledger, "app.log"), 1)
    assert ledger.sent == [b"one", b"two"]


def test_over_a_link_a_file_that_was_rotated_while_stopped_is_read_to_its_end(tailing: Tailing) -> None:
    ledger = Ledger()
    (tailing.folder / "pods").mkdir()
    (tailing.folder / "links").mkdir()
    log = tailing.folder / "pods" / "0.log"
    log.write_bytes(b"one\n")
    (tailing.folder / "links" / "app.log").symlink_to(log)
    run = tailing.start(ledger, "links/*.log")
    tailing.turns(run, 1)
    run.end()
    append(log, b"two\n")
    log.rename(log.with_name("0.log.1"))
    log.write_bytes(b"three\n")
    tailing.turns(tailing.start(ledger, "links/*.log"), 3)
    assert sorted(ledger.sent) == [b"one", b"three", b"two"]


def test_what_was_there_is_skipped_where_that_is_declared_though_the_first_session_fails(tailing: Tailing) -> None:
    log, ledger = tailing.folder / "app.log", Ledger()
    log.write_bytes(b"old\nbegun")
    run = tailing.start(ledger, "*.log", start="end")
    append(log, b" and ended\nnew\n")
    run.fail()
    (tailing.folder / "later.log").write_bytes(b"later\n")
    tailing.turns(run, 3)
    assert sorted(ledger.sent) == [b"begun and ended", b"later", b"new"]


def test_a_disk_that_fails_is_told_and_the_file_is_read_when_it_is_well_again(
    tailing: Tailing, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, ledger = tailing.folder / "app.log", Ledger()
    (tailing.folder / "other.log").write_bytes(b"other\n")
    log.write_bytes(b"one\n")
    run = tailing.start(ledger, "*.log")
    tailing.turns(run, 1)
    append(log, b"two\n")
    number = log.stat().st_ino
    fails: Callable[[int], bool] = lambda file: os.fstat(file).st_ino == number  # noqa: E731
    read = os.pread

    def failing(file: int, length: int, at: int) -> bytes:
        if fails(file):
            raise OSError(5, "Input/output error")
        return read(file, length, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        tailing.turns(run, 2)
        run.fail()
        append(tailing.folder / "other.log", b"another\n")
        tailing.turns(run, 3)
        assert "Input/output error" in str(run.feed.faults())
    tailing.turns(run, 2)
    assert sorted(ledger.sent) == [b"another", b"one", b"other", b"two"]
    assert run.feed.faults() == []


def test_the_hole_that_a_truncation_leaves_before_a_writer_who_does_not_append_is_passed_over(
    tailing: Tailing,
) -> None:
    log, ledger = tailing.folder / "app.log", Ledger()
    with log.open("wb", buffering=0) as writer:
        writer.write(b"x" * 99 + b"\n")
        writer.seek(9 * MIB)
        run = tailing.start(ledger, "app.log")
        tailing.turns(run, 1)
        os.truncate(log, 0)
        writer.write(b"after\n")
        tailing.turns(run, 2)
        run.fail()
        writer.write(b"more\n")
        tailing.turns(run, 2)
    assert ledger.sent == [b"x" * 99, b"after", b"more"]


def test_a_path_that_leads_to_nothing_is_told(tailing: Tailing) -> None:
    run = tailing.start(Ledger(), "none.log")
    tailing.turns(run, 1)
    assert run.feed.faults() == [f"{tailing.folder}/none.log: there is no such file"]
