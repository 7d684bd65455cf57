"""Feeds without Kafka: a session whose commits count as a whole or fail as when Kafka is away, and tails over it."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import pytest

from ingestion.declared import Tail
from ingestion.feeds import Feed
from ingestion.following import Place
from ingestion.session import MESSAGES_TOGETHER, Session
from ingestion.sources.tail import POLL_S, TailFeed
from shared.config import Settings
from shared.errors import KafkaUnavailableError
from shared.kafka import Headers
from shared.topics import H_CONTENT_TYPE

DAY_NS: Final = 86_400 * 1_000_000_000


class Ledger:
    """What counts: messages with their content types, places, receipts. Outlives sessions."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.types: list[str] = []
        self.places: dict[str, bytes] = {}
        self.receipts: list[tuple[int, str | None]] = []  # entries, and the file
        self.commits: list[int] = []  # messages of each


class LedgerSession(Session):
    """Writes to a ledger what a session writes to Kafka."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.kafka_is_away = False
        self.late_answer = False  # the commit counts, but its answer never comes
        self._open_transaction()

    def _open_transaction(self) -> None:
        self._messages: list[tuple[bytes, str]] = []
        self._changed: dict[str, bytes | None] = {}
        self._receipts: list[tuple[int, str | None]] = []

    @property
    def is_full(self) -> bool:
        return len(self._messages) >= MESSAGES_TOGETHER

    def restored(self, stopping: threading.Event) -> Iterator[tuple[str, bytes]]:  # noqa: ARG002
        yield from list(self.ledger.places.items())

    def send(self, values: Sequence[bytes | None], key: bytes | None, headers: Headers, entries: int) -> None:  # noqa: ARG002
        self._add([value or b"" for value in values], headers)

    def send_large(self, entry: BinaryIO, size: int, key: bytes | None, headers: Headers) -> None:  # noqa: ARG002
        self._add([entry.read()], headers)

    def _add(self, values: Sequence[bytes], headers: Headers) -> None:
        content_type = dict(headers)[H_CONTENT_TYPE]
        assert isinstance(content_type, bytes)
        self._messages += [(value, content_type.decode()) for value in values]

    def receipt(self, run_id: str, source: str | None, entries: int, size: int, file: str | None) -> None:  # noqa: ARG002
        self._receipts.append((entries, file))

    def keep(self, key: str, place: msgspec.Struct | None) -> None:
        self._changed[key] = None if place is None else msgspec.json.encode(place)

    def commit(self, *_: object) -> bool:
        if self.kafka_is_away:
            raise KafkaUnavailableError("Kafka is away")
        self.ledger.sent += [value for value, _ in self._messages]
        self.ledger.types += [content_type for _, content_type in self._messages]
        self.ledger.receipts += self._receipts
        self.ledger.commits.append(len(self._messages))
        for key, value in self._changed.items():
            self.ledger.places.pop(key, None)
            if value is not None:
                self.ledger.places[key] = value
        self._open_transaction()
        if self.late_answer:
            raise KafkaUnavailableError("no answer to a commit")
        return True


class Run:
    """A feed that is run step by step, over failures and restarts, with its own clock."""

    def __init__(self, feed: Feed, ledger: Ledger) -> None:
        self.feed = feed
        self.ledger = ledger
        self.stopping = threading.Event()
        self.begin()

    def begin(self) -> None:
        """A new session."""
        self.session = LedgerSession(self.ledger)
        self.feed.begin(self.session, self.stopping)

    def turn(self) -> float:
        """One turn; a failure of Kafka ends the session."""
        try:
            return self.feed.turn(self.session)
        except KafkaUnavailableError:
            self.feed.interrupted()
            return 0.0

    def fail(self, *, late_answer: bool = False) -> None:
        """A turn whose commit fails, and then a new session."""
        self.session.kafka_is_away, self.session.late_answer = not late_answer, late_answer
        self.turn()
        self.begin()

    def end(self) -> None:
        self.feed.interrupted()
        self.feed.end()


class Tailing:
    """Runs tails with a clock of the test's."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._patch = patch
        self._settings = Settings(_env_file=None, data_dir=folder / "data", ingest_dir=folder)
        self._runs: list[Run] = []
        self.now = 1_000.0
        patch.setattr(time, "monotonic", lambda: self.now)

    def days_pass(self, days: int) -> None:
        then = time.time_ns() + days * DAY_NS
        self._patch.setattr(time, "time_ns", lambda: then)

    def start(self, ledger: Ledger, path: str, **declared: Any) -> Run:
        feed = TailFeed(self._settings, "app", Tail(kind="tail", path=str(self.folder / path), **declared), None)
        run = Run(feed, ledger)
        self._runs.append(run)
        return run

    def turns(self, run: Run, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            run.turn()
            self.now += POLL_S

    def close(self) -> None:
        for run in self._runs:
            run.end()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def places(ledger: Ledger) -> dict[str, Place]:
    return {key: msgspec.json.decode(value, type=Place) for key, value in ledger.places.items() if key != "begun"}


def renumbered(ledger: Ledger, device: int, to: int) -> None:
    """The machine is started again, and its devices have other numbers: those that are kept are of before."""
    for key, place in places(ledger).items():
        if place.device == device:
            del ledger.places[key]
            place = msgspec.structs.replace(place, device=to)
            ledger.places[place.key] = msgspec.json.encode(place)
