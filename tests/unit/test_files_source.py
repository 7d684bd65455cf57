"""Files that are read once each, without Kafka: over restarts, changes while nobody looks, and too little room."""

import gzip
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ingestion.declared import Files
from ingestion.reading import Place
from ingestion.session import MESSAGES_TOGETHER
from ingestion.sources import files
from ingestion.sources.files import FILES_TOGETHER, LATER_S, FileFeed
from ingestion.unpacking import unpacked
from shared.config import MIB, Settings
from shared.spool import Spool
from tests.ingesting import Ledger, Run

DAY_NS = 86_400 * 1_000_000_000


class Dropping:
    """Runs sources of kind file with a clock of the test's."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "in"
        self.folder.mkdir()
        self._patch = patch
        self._settings = Settings(_env_file=None, data_dir=folder / "data", ingest_dir=self.folder)
        self._spool = Spool(folder / "spool", 2 * MIB)
        self.now = 1_000.0
        patch.setattr(time, "monotonic", lambda: self.now)

    def days_pass(self, days: int) -> None:
        then = time.time_ns() + days * DAY_NS
        self._patch.setattr(time, "time_ns", lambda: then)

    def start(self, ledger: Ledger, path: str = "*", **declared: Any) -> Run:
        declared = {"settle_seconds": 0.0} | declared
        source = Files(kind="file", path=path, **declared)
        return Run(FileFeed(self._settings, "drop", source, None, self._spool), ledger)

    def turns(self, run: Run, count: int = 6) -> None:
        for _ in range(count):
            run.turn()
            self.now += 0.5

    def once(self, ledger: Ledger, path: str = "*") -> None:
        """A start, some turns, and the end."""
        run = self.start(ledger, path)
        self.turns(run)
        run.end()


@pytest.fixture
def dropping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dropping]:
    with monkeypatch.context() as patch:
        yield Dropping(tmp_path, patch)


def kept(ledger: Ledger) -> list[Place]:
    return [msgspec.json.decode(value, type=Place) for value in ledger.places.values()]


def test_a_file_is_known_after_a_restart_of_the_machine_that_gives_devices_other_numbers(dropping: Dropping) -> None:
    ledger = Ledger()
    (dropping.folder / "a.log").write_bytes(b"one\n")
    for n in range(3):
        dropping.once(ledger)
        assert ledger.sent == [b"one"]
        (place,) = kept(ledger)
        place = msgspec.structs.replace(place, device=1_000_000 + n)
        ledger.places = {place.key: msgspec.json.encode(place)}
    (dropping.folder / "a.log").write_bytes(b"two\n")
    dropping.once(ledger)
    assert ledger.sent == [b"one", b"two"]


def test_a_file_that_was_half_read_goes_on_after_its_device_has_another_number(dropping: Dropping) -> None:
    ledger = Ledger()
    lines = [b"%d" % n for n in range(MESSAGES_TOGETHER + 5_000)]
    (dropping.folder / "a.log").write_bytes(b"\n".join(lines))
    run = dropping.start(ledger)
    run.turn()
    run.end()
    (place,) = kept(ledger)
    assert 0 < place.entries < len(lines)
    place = msgspec.structs.replace(place, device=77)
    ledger.places = {place.key: msgspec.json.encode(place)}
    dropping.once(ledger)
    assert ledger.sent == lines
    assert ledger.receipts == [(len(lines), str(dropping.folder / "a.log"))]


@pytest.mark.parametrize("away", ["folder", "file"])
def test_what_is_away_for_more_than_seven_idle_days_is_not_read_again(dropping: Dropping, away: str) -> None:
    folder, ledger = dropping.folder / "disk", Ledger()
    folder.mkdir()
    (folder / "a.log").write_bytes(b"one\n")
    dropping.once(ledger, "disk/*")
    dropping.days_pass(8)  # in which nothing was read
    goes = folder if away == "folder" else folder / "a.log"
    goes.rename(dropping.folder / "away")
    dropping.once(ledger, "disk/*")
    if away == "folder":
        dropping.days_pass(8)
        dropping.once(ledger, "disk/*")
    (dropping.folder / "away").rename(goes)
    dropping.once(ledger, "disk/*")
    assert ledger.sent == [b"one"]
    assert [place.missing for place in kept(ledger)] == [""]


def test_what_is_missing_is_forgotten_after_seven_days_while_it_runs(dropping: Dropping) -> None:
    ledger = Ledger()
    (dropping.folder / "a.log").write_bytes(b"one\n")
    run = dropping.start(ledger)
    dropping.turns(run)
    (dropping.folder / "a.log").unlink()
    dropping.turns(run)
    assert len(kept(ledger)) == 1
    dropping.days_pass(8)
    dropping.turns(run)
    assert kept(ledger) == []


def test_a_file_like_one_that_was_removed_is_another_though_it_has_its_number(dropping: Dropping) -> None:
    ledger = Ledger()
    path = dropping.folder / "up.ndjson"
    run = dropping.start(ledger)

    def dropped(at: int) -> None:
        path.write_bytes(b'{"up":1}\n')
        os.utime(path, (at, at))
        dropping.turns(run)

    def gone_for_a_while() -> None:
        """The file is the same then, as its number would be on some file systems."""
        path.rename(dropping.folder.parent / "kept")
        dropping.turns(run)
        (dropping.folder.parent / "kept").rename(path)

    dropped(1)
    gone_for_a_while()
    dropped(2)
    assert len(ledger.sent) == 2
    gone_for_a_while()
    dropping.turns(run)
    os.utime(path)
    dropping.turns(run)
    assert len(ledger.sent) == 2, "it came back as it was, and was touched while it was there"
    gone_for_a_while()
    dropped(3)
    assert len(ledger.sent) == 3


def test_many_small_files_go_in_several_transactions_the_oldest_first(dropping: Dropping) -> None:
    ledger = Ledger()
    for n in range(250):
        path = dropping.folder / f"{250 - n}.ndjson"
        path.write_bytes(b'{"n":%d}\n' % n)
        os.utime(path, (n, n))
    run = dropping.start(ledger)
    dropping.turns(run, 5)
    assert ledger.sent == [b'{"n":%d}' % n for n in range(250)]
    assert max(ledger.commits) == FILES_TOGETHER
    assert len(ledger.receipts) == 250


def test_a_transaction_has_a_bounded_number_of_messages(dropping: Dropping) -> None:
    ledger = Ledger()
    (dropping.folder / "a.txt").write_bytes(b"a\n" * 100_000)
    dropping.turns(dropping.start(ledger, format="text"))
    assert len(ledger.sent) == 100_000
    assert max(ledger.commits) < 2 * MESSAGES_TOGETHER


def test_no_transaction_is_open_while_a_file_is_unpacked(dropping: Dropping, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    (dropping.folder / "a.log").write_bytes(b"one\n")
    (dropping.folder / "b.gz").write_bytes(gzip.compress(b"two\n"))
    os.utime(dropping.folder / "a.log", (1, 1))
    seen = []

    def looking(*arguments: Any) -> Any:
        seen.append(list(ledger.sent))
        return unpacked(*arguments)

    monkeypatch.setattr(files, "unpacked", looking)
    dropping.turns(dropping.start(ledger))
    assert seen == [[b"one"]]
    assert ledger.sent == [b"one", b"two"]


def test_a_stop_interrupts_a_file_that_is_unpacked_and_it_is_read_after_the_next_start(
    dropping: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger()
    (dropping.folder / "a.gz").write_bytes(gzip.compress(b"one\n"))
    run = dropping.start(ledger)

    def told_to_stop(*arguments: Any) -> Any:
        run.stopping.set()
        return unpacked(*arguments)

    monkeypatch.setattr(files, "unpacked", told_to_stop)
    run.turn()
    run.end()
    assert (ledger.sent, ledger.receipts) == ([], [])
    monkeypatch.undo()
    run.stopping = threading.Event()
    dropping.turns(dropping.start(ledger))
    assert ledger.sent == [b"one"]


def test_a_file_that_grows_between_look_and_reading_is_read_once(dropping: Dropping) -> None:
    ledger = Ledger()
    path = dropping.folder / "a.ndjson"
    path.write_bytes(b'{"n":1}\n')
    run = dropping.start(ledger)
    path.write_bytes(b'{"n":1}\n{"n":2}\n')
    dropping.turns(run)
    assert ledger.sent == [b'{"n":1}\n{"n":2}']
    assert len(kept(ledger)) == 1


def test_a_pipe_in_the_place_of_a_file_holds_nothing_up(dropping: Dropping) -> None:
    ledger = Ledger()
    path = dropping.folder / "a.log"
    path.write_bytes(b"one\n")
    run = dropping.start(ledger)
    path.unlink()
    os.mkfifo(path)
    (dropping.folder / "b.log").write_bytes(b"two\n")
    dropping.turns(run)
    assert ledger.sent == [b"two"]


def test_what_failed_is_told_until_it_is_removed_or_replaced(dropping: Dropping) -> None:
    ledger = Ledger()
    path = dropping.folder / "a.json"
    path.write_bytes(b'[{"n":1}')
    run = dropping.start(ledger, "*.json")
    dropping.turns(run)
    (fault,) = run.feed.faults()
    assert fault.startswith(f"{path}: ")
    (dropping.folder / "new").write_bytes(b'[{"n":1}]')
    (dropping.folder / "new").rename(path)
    dropping.turns(run)
    assert run.feed.faults() == []
    assert ledger.receipts[-1] == (1, str(path))
    path.write_bytes(b"[")
    dropping.turns(run)
    assert run.feed.faults()
    path.unlink()
    dropping.turns(run)
    assert run.feed.faults() == []


def test_what_finds_no_room_in_the_spool_waits_and_the_others_go_on(
    dropping: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger()
    (dropping.folder / "a.gz").write_bytes(gzip.compress(os.urandom(MIB) * 4))
    (dropping.folder / "b.log").write_bytes(b"one\n")
    os.utime(dropping.folder / "a.gz", (1, 1))
    tries = []

    def counted(*arguments: Any) -> Any:
        tries.append(dropping.now)
        return unpacked(*arguments)

    monkeypatch.setattr(files, "unpacked", counted)
    run = dropping.start(ledger)
    for _ in range(20):
        dropping.turns(run, 1)
        assert "a.gz: " in str(run.feed.faults())
    assert (ledger.sent, len(tries)) == ([b"one"], 1)
    dropping.now += LATER_S
    dropping.turns(run)
    assert len(tries) == 2


def test_a_link_out_of_the_ingest_folder_is_refused_as_by_a_trigger(dropping: Dropping) -> None:
    ledger = Ledger()
    (dropping.folder.parent / "secret").write_bytes(b"x\n")
    (dropping.folder / "a.log").symlink_to(dropping.folder.parent / "secret")
    (dropping.folder / "b.log").write_bytes(b"one\n")
    (dropping.folder / "c.link").symlink_to(dropping.folder / "b.log")
    run = dropping.start(ledger)
    dropping.turns(run)
    assert ledger.sent == [b"one"]
    assert "leads out of INGEST_DIR" in str(run.feed.faults())
    dropping.once(ledger, str(dropping.folder / "*.log"))  # the operator's own, absolute path
    assert ledger.sent == [b"one", b"x"]


def test_an_old_time_of_change_does_not_make_a_file_settled(dropping: Dropping) -> None:
    ledger = Ledger()
    path = dropping.folder / "a.log"
    path.write_bytes(b"one\n")
    os.utime(path, (1, 1))
    run = dropping.start(ledger, settle_seconds=2.0)
    dropping.turns(run, 3)
    assert ledger.sent == []
    dropping.turns(run, 4)
    assert ledger.sent == [b"one"]


@pytest.mark.parametrize("pad", [0, 1_500_000])
def test_a_line_that_ends_in_crlf_is_json_or_text_without_it_however_long_it_is(dropping: Dropping, pad: int) -> None:
    ledger = Ledger()
    line = b'{"a":"' + b"x" * pad + b'"}'
    (dropping.folder / "a.log").write_bytes(line + b"\r\n" + b"text\r\n")
    dropping.turns(dropping.start(ledger))
    assert ledger.sent == [line, b"text"]
    assert [content_type.partition("/")[0] for content_type in ledger.types] == ["application", "text"]


def test_a_name_that_is_no_text_is_told_and_the_others_are_read(dropping: Dropping) -> None:
    ledger = Ledger()
    Path(os.fsdecode(os.fsencode(dropping.folder) + b"/caf\xe9.log")).write_bytes(b"x\n")
    (dropping.folder / "a.log").write_bytes(b"one\n")
    run = dropping.start(ledger)
    dropping.turns(run)
    assert ledger.sent == [b"one"]
    assert r"caf\xe9.log: its name is not UTF-8" in run.feed.faults()[0]


def test_an_ingest_folder_may_have_a_bracket_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "in[1]"
    folder.mkdir()
    (folder / "a.log").write_bytes(b"one\n")
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", ingest_dir=folder)
    feed = FileFeed(settings, "drop", Files(kind="file", path="*.log", settle_seconds=0.0), None, Spool(tmp_path, MIB))
    run = Run(feed, Ledger())
    run.turn()
    assert run.ledger.sent == [b"one"]
