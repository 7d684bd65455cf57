"""What a writer does with pushes that wait: who shares a transaction, and that everybody is answered."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from ingestion.entries import MalformedBodyError, UnreadableSourceError
from ingestion.ingest import SMALL, TOGETHER, BusyError, EntryTooLargeError, Push, Shape, Writer, new_run_id
from ingestion.sources.file import FileSource
from shared import kafka
from shared.config import Settings
from shared.errors import KafkaUnavailableError
from shared.spool import Spool

PATIENCE_S = 20.0


class FakeTransactions:
    """Kafka's place in these tests, so that it can fail at a chosen moment; tests/chaos has the real one."""

    events: ClassVar[list[str]]
    at_begin: ClassVar[Callable[[], None]]
    at_commit: ClassVar[Callable[[], None]]

    def __init__(self, *_: object) -> None:
        self.events.append("made")

    def prepare(self, stopping: threading.Event) -> bool:
        return not stopping.is_set()

    def begin(self) -> None:
        type(self).at_begin()
        self.events.append("begin")

    def send(self, topic: str, *_: object) -> None:
        if topic == "ingest-runs":
            self.events.append("receipt")

    def commit(self) -> None:
        type(self).at_commit()
        self.events.append("commit")

    def abort(self) -> None:
        self.events.append("abort")

    def discard(self) -> None:
        self.events.append("discarded")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    FakeTransactions.events = []
    FakeTransactions.at_begin = FakeTransactions.at_commit = lambda: None
    monkeypatch.setattr(kafka, "Transactions", FakeTransactions)
    monkeypatch.setattr(kafka.Topics, "partitions", lambda _, names: dict.fromkeys(names, 1))
    return FakeTransactions.events


@pytest.fixture
def push(tmp_path: Path) -> Callable[[bytes], Push]:
    spool = Spool(tmp_path / "spool", 1 << 30)

    def make(body: bytes) -> Push:
        entry = spool.create(1 << 20)
        entry.append(body)
        return Push(entry, Shape.ARRAY if body.startswith(b"[") else Shape.NDJSON, new_run_id())

    return make


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None, kafka_bootstrap="127.0.0.1:1")


def writer_of(settings: Settings, together: int) -> Writer:
    return Writer("ingestion", settings, "test", together=together, timeout_ms=None)


class Running:
    """A writer's thread, which begins with pushes in line already."""

    def __init__(self, writer: Writer, *pushes: Push) -> None:
        for push in pushes:
            writer._waiting.put_nowait(push)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=writer.run, args=[self._stopping])

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def test_a_push_is_refused_at_once_where_no_producer_is_ready(
    settings: Settings, push: Callable[[bytes], Push]
) -> None:
    one = push(b"{}")
    writer_of(settings, TOGETHER).submit(one)
    assert isinstance(one.done.exception(0), KafkaUnavailableError)


def test_pushes_that_wait_when_kafka_goes_are_answered(
    settings: Settings, push: Callable[[bytes], Push], events: list[str]
) -> None:
    writer = writer_of(settings, 0)
    first, *others = pushes = [push(b"{}") for _ in range(3)]

    def gone() -> None:
        raise KafkaUnavailableError("no broker")

    FakeTransactions.at_commit = gone
    with Running(writer, *pushes):
        assert "no broker" in str(first.done.exception(PATIENCE_S))
        for other in others:
            assert isinstance(other.done.exception(PATIENCE_S), KafkaUnavailableError)
    assert events.count("begin") == 1


def test_a_fault_of_a_small_push_is_no_matter_to_the_others(
    settings: Settings, push: Callable[[bytes], Push], events: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" * 100)
    shrunk = Push(FileSource(path), Shape.NDJSON, new_run_id())
    path.write_bytes(b"{}\n")
    malformed, good, empty, better = push(b"[{}"), push(b"{}\n{}"), push(b"\n"), push(b"[1]")
    with Running(writer_of(settings, TOGETHER), malformed, good, shrunk, empty, better):
        assert isinstance(malformed.done.exception(PATIENCE_S), MalformedBodyError)
        assert isinstance(shrunk.done.exception(PATIENCE_S), UnreadableSourceError)
        assert "no entry" in str(empty.done.exception(PATIENCE_S))
        assert [good.done.result(PATIENCE_S).entries, better.done.result(PATIENCE_S).entries] == [2, 1]
    shrunk.body.release()
    assert events == ["made", "begin", "receipt", "receipt", "commit", "discarded"]


def test_pushes_at_fault_alone_begin_no_transaction(
    settings: Settings, push: Callable[[bytes], Push], events: list[str]
) -> None:
    bad = push(b"[")
    with Running(writer_of(settings, TOGETHER), bad):
        assert isinstance(bad.done.exception(PATIENCE_S), MalformedBodyError)
    assert events == ["made", "discarded"]


def test_a_fault_of_a_large_push_aborts_its_own_transaction_only(
    settings: Settings, push: Callable[[bytes], Push], events: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n" * 100)
    shrinks, good = Push(FileSource(path), Shape.NDJSON, new_run_id()), push(b"{}")
    FakeTransactions.at_begin = lambda: os.truncate(path, 50)
    with Running(writer_of(settings, 0), shrinks, good):
        assert isinstance(shrinks.done.exception(PATIENCE_S), UnreadableSourceError)
        assert good.done.result(PATIENCE_S).entries == 1
    shrinks.body.release()
    assert events == ["made", "begin", "abort", "begin", "receipt", "commit", "discarded"]


def test_an_entry_over_the_maximum_is_refused_by_name_and_leaves_nothing_of_its_push(
    settings: Settings, push: Callable[[bytes], Push], events: list[str]
) -> None:
    limited = settings.model_copy(update={"entry_max_bytes": 2 << 20})
    over, at = (b'{"blob":"' + b"x" * (size - 11) + b'"}' for size in ((2 << 20) + 1, 2 << 20))
    refused, taken = push(b"{}\n" + over), push(b"{}\n" + at)
    with Running(writer_of(limited, 0), refused, taken):
        error = refused.done.exception(PATIENCE_S)
        assert isinstance(error, EntryTooLargeError)
        assert str(error).startswith(
            "the entry at byte 3 has 2097153 bytes; at most 2097152 are taken (ENTRY_MAX_BYTES)"
        )
        assert taken.done.result(PATIENCE_S).entries == 2
    assert events == ["made", "begin", "abort", "begin", "receipt", "commit", "discarded"]


def test_a_transaction_is_bounded_by_bytes(
    settings: Settings, push: Callable[[bytes], Push], events: list[str]
) -> None:
    line = b'"' + b"x" * 1021 + b'"\n'
    pushes = [push(line * (SMALL // len(line))) for _ in range(6)]
    with Running(writer_of(settings, TOGETHER), *pushes):
        for each in pushes:
            each.done.result(PATIENCE_S)
    held = [part.count("receipt") * SMALL for part in _transactions(events)]
    assert held == [TOGETHER, 6 * SMALL - TOGETHER]


def _transactions(events: list[str]) -> Iterator[list[str]]:
    open_: list[str] = []
    for event in events:
        if event == "begin":
            open_ = []
        open_.append(event)
        if event == "commit":
            yield open_


def test_more_pushes_than_may_wait_are_refused_as_busy(
    settings: Settings, push: Callable[[bytes], Push], events: list[str]
) -> None:
    writer = writer_of(settings, 0)
    held, committing = threading.Event(), threading.Event()

    def hold() -> None:
        committing.set()
        assert held.wait(PATIENCE_S)

    FakeTransactions.at_commit = hold
    pushes = [push(b"{}") for _ in range(66)]
    with Running(writer, pushes[0]):
        assert committing.wait(PATIENCE_S)
        for each in pushes[1:]:
            writer.submit(each)
        assert isinstance(pushes[-1].done.exception(0), BusyError)
        held.set()
        assert all(each.done.result(PATIENCE_S).entries == 1 for each in pushes[:-1])
    assert events.count("commit") == len(pushes) - 1
