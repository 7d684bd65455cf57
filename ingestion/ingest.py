"""From a source to raw-logs: entries into frames, frames and their receipt into one transaction.

    push -> entries -> frames -> transaction(frames, receipt) -> receipt answered

Small pushes that wait together share a transaction, and are split before it begins: what is wrong with one is nothing
to the others. A large one has a producer and a transaction of its own, since an open transaction hides everything
behind it on its partitions, and is split while it is written.
"""

import hashlib
import io
import queue
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Final, NamedTuple

import msgspec

from ingestion import tables
from ingestion.declared import Key, key_of
from ingestion.entries import (
    BLOCK,
    Entries,
    Large,
    MalformedBodyError,
    Section,
    Source,
    UnreadableSourceError,
    begins_array,
    json_array,
    json_value,
    ndjson,
)
from shared import kafka, logs, metrics
from shared.chunking import split
from shared.config import Settings
from shared.errors import FencedError, KafkaUnavailableError, SluiceError
from shared.frames import cut
from shared.kafka import AbortRequiredError
from shared.records import Receipt, timestamp_of
from shared.topics import (
    H_CHUNK,
    H_CONTENT_TYPE,
    H_PUSH,
    H_RUN,
    H_SOURCE,
    INGEST_RUNS,
    NDJSON,
    RAW_LOGS,
    partition_of,
)

STAGE: Final = "ingestion"
SMALL: Final = 8 * BLOCK  # a body up to this shares a transaction
TOGETHER: Final = 4 * SMALL  # bytes of pushes that share one
WAITING: Final = 64  # pushes that may wait for a transaction; beyond, a push is refused
LARGE_TIMEOUT_MS: Final = 300_000  # a gigabyte on a slow disk takes minutes

JSON: Final = "application/json"

log = logs.logger(STAGE)


class EntryTooLargeError(SluiceError):
    """One entry is over the maximum."""


class BusyError(SluiceError):
    """As many pushes wait as may; the client should come again."""


class Shape(Enum):
    """How entries lie in a body."""

    NDJSON = "ndjson"
    ARRAY = "array"
    VALUE = "value"
    CSV = "csv"
    TSV = "tsv"


def shape_of(source: Source, *, json: bool) -> Shape:
    """By the content type: NDJSON is lines whatever they hold; what JSON holds, its first character tells."""
    if not json:
        return Shape.NDJSON
    return Shape.ARRAY if begins_array(source) else Shape.VALUE


_LINES: Final = {".ndjson", ".jsonl", ".log"}
_PACKED: Final = {".gz", ".zst"}
_TABLES: Final = {".csv": Shape.CSV, ".tsv": Shape.TSV}


def shape_of_file(source: Source, name: str) -> Shape:
    """By the name's ending, in any case: .json is an array or one object; .ndjson, .jsonl and .log are lines; .csv and
    .tsv are rows under a header. An ending .gz or .zst is passed over.

    A file with another ending, or none, is an array where it begins with '[', else lines.
    """
    path = PurePath(name)
    ending = (PurePath(path.stem) if path.suffix.lower() in _PACKED else path).suffix.lower()
    if ending in _TABLES:
        return _TABLES[ending]
    json = ending == ".json" or (ending not in _LINES and begins_array(source))
    return shape_of(source, json=json)


@dataclass(slots=True)
class Push:
    """One body or file on its way, with who sent it."""

    body: Source
    shape: Shape
    run_id: str
    source: str | None = None
    attempt: str | None = None  # on a push with an Idempotency-Key
    file: str | None = None
    keyed_by: Key = "source"
    host: str = ""  # that sent it
    done: Future[Receipt] = field(default_factory=Future)

    def entries(self, inline: int) -> Entries:
        split_into = {
            Shape.NDJSON: ndjson,
            Shape.ARRAY: json_array,
            Shape.VALUE: json_value,
            Shape.CSV: tables.csv,
            Shape.TSV: tables.tsv,
        }
        return split_into[self.shape](self.body, inline)

    def headers(self, content_type: str) -> list[tuple[str, bytes | None]]:
        made: list[tuple[str, bytes | None]] = [(H_CONTENT_TYPE, content_type.encode()), (H_RUN, self.run_id.encode())]
        if self.source is not None:
            made.append((H_SOURCE, self.source.encode()))
        if self.attempt is not None:
            made.append((H_PUSH, f"{self.run_id}:{self.attempt}".encode()))
        return made

    def key(self) -> bytes:
        """The source, or what is declared for it, keeps its entries in order; without one, or to be told apart from a
        retry, the run does."""
        own = None
        if self.source is not None and self.attempt is None:
            own = key_of(self.keyed_by, self.source, self.host)
        return self.run_id.encode() if own is None else own


def new_run_id() -> str:
    return uuid.uuid4().hex


def run_id_of(source: str | None, idempotency_key: str) -> str:
    """The run id of every attempt of one push."""
    return hashlib.sha256(f"{source or ''}\0{idempotency_key}".encode()).hexdigest()[:32]


class Frame(msgspec.Struct, frozen=True):
    """A message in the making: plain, or a large entry that goes in chunks."""

    value: bytes | Large
    content_type: str
    entries: int


def frames_of(push: Push, settings: Settings) -> Iterator[Frame]:
    """The frames of a push, in order. Raises MalformedBodyError and EntryTooLargeError."""
    for found in push.entries(settings.chunk_bytes):
        if isinstance(found, Large):
            if found.size > settings.entry_max_bytes:
                raise EntryTooLargeError(
                    f"the entry at byte {found.offset} has {found.size} bytes; at most {settings.entry_max_bytes} are "
                    "taken (ENTRY_MAX_BYTES)"
                )
            yield Frame(found, JSON, 1)
        else:
            yield from framed(found, settings)


def framed(entries: Sequence[bytes], settings: Settings) -> Iterator[Frame]:
    """Entries of one kind in frames: lines, unless one of them has several."""
    if not any(b"\n" in entry for entry in entries):
        for run in cut(list(map(len, entries)), settings.frame_records, settings.frame_bytes):
            yield Frame(b"\n".join(entries[run]), NDJSON, run.stop - run.start)
    else:  # an entry over several lines would be split as NDJSON, and its bytes stay untouched: a message each
        for entry in entries:
            yield Frame(entry, JSON, 1)


class Message(NamedTuple):
    """A message to raw-logs: a frame, or one chunk of a large entry, which counts with its first."""

    value: bytes
    headers: kafka.Headers
    entries: int


def messages_of(push: Push, settings: Settings) -> Iterator[Message]:
    """The messages of a push, in order. Raises what is wrong with it: a FAULT."""
    headers = {kind: push.headers(kind) for kind in (NDJSON, JSON)}
    empty = True
    for frame in frames_of(push, settings):
        empty = False
        own = headers[frame.content_type]
        if not isinstance(frame.value, Large):
            yield Message(frame.value, own, frame.entries)
            continue
        section = io.BufferedReader(Section(push.body, frame.value), BLOCK)
        chunks = split(section, frame.value.size, settings.chunk_bytes, uuid.uuid4().bytes, 1)
        for index, (header, piece) in enumerate(chunks):
            first = index == 0
            yield Message(piece, [(H_CHUNK, header), *(own if first else [])], frame.entries if first else 0)
    if empty:
        raise MalformedBodyError("there is no entry in it")


FAULTS: Final = (MalformedBodyError, EntryTooLargeError, UnreadableSourceError, OSError)  # of one push; others go on


class Writer:
    """A thread's work: takes pushes that wait and writes each wholly or not at all.

    `together` is how many bytes of pushes, of SMALL at most, share a transaction; 0: each has its own.
    """

    def __init__(self, name: str, settings: Settings, instance_id: str, together: int, timeout_ms: int | None) -> None:
        self.name = name
        self._settings = settings
        self._transactional_id = f"{name}-{instance_id}"
        self._together = together
        self._timeout_ms = timeout_ms
        self._waiting: queue.Queue[Push] = queue.Queue(WAITING)
        self._ready = threading.Event()

    def submit(self, push: Push) -> None:
        """Put a push in line; its `done` tells the receipt, or why not: at once where no producer is ready."""
        try:
            self._waiting.put_nowait(push)
        except queue.Full:
            push.done.set_exception(BusyError(f"{WAITING} pushes are waiting already"))
        if not self._ready.is_set():  # after the put: so either this sees it, or `run` sees the push
            self._refuse_waiting()

    def problems(self) -> list[str]:
        return [] if self._ready.is_set() else ["the producer is not ready yet"]

    def run(self, stopping: threading.Event) -> None:
        """Write until told to stop. A client beyond repair is replaced, so the service stays up."""
        while not stopping.is_set():
            writer = kafka.Transactions(self._settings, STAGE, self._transactional_id, self._timeout_ms)
            try:
                partitions = self._prepare(writer, stopping)
                if partitions:
                    self._ready.set()
                    self._serve(writer, partitions, stopping)
            except (FencedError, KafkaUnavailableError, AbortRequiredError) as error:
                log.warning("producer failed, a new one takes over", writer=self.name, error=str(error))
                stopping.wait(0.5)
            finally:
                self._ready.clear()
                self._refuse_waiting()
                writer.discard()

    def _prepare(self, writer: kafka.Transactions, stopping: threading.Event) -> dict[str, int]:
        if not writer.prepare(stopping):
            return {}
        topics = kafka.Topics(self._settings, self.name)
        names = [self._settings.topic(RAW_LOGS), self._settings.topic(INGEST_RUNS)]
        return topics.partitions(names)

    def _serve(self, writer: kafka.Transactions, partitions: dict[str, int], stopping: threading.Event) -> None:
        while not (stopping.is_set() and self._waiting.empty()):
            pushes = self._next()
            ready = [(push, messages) for push in pushes if (messages := self._messages(push)) is not None]
            if ready:
                self._write(writer, partitions, ready)

    def _next(self) -> list[Push]:
        """Pushes for one transaction, none if none come within a moment."""
        pushes: list[Push] = []
        size = 0
        try:
            pushes.append(self._waiting.get(timeout=0.2))
            while (size := size + pushes[-1].body.size) + SMALL <= self._together and len(pushes) < WAITING:
                pushes.append(self._waiting.get_nowait())
        except queue.Empty:
            pass
        return pushes

    def _messages(self, push: Push) -> Iterable[Message] | None:
        """What is to be sent for it. None, and the push is answered, where a small one has a fault."""
        messages = messages_of(push, self._settings)
        if not self._together:
            return messages
        try:
            return list(messages)
        except FAULTS as error:
            push.done.set_exception(error)
            return None

    def _write(
        self,
        writer: kafka.Transactions,
        partitions: dict[str, int],
        ready: Sequence[tuple[Push, Iterable[Message]]],
    ) -> None:
        """All of these pushes in one transaction. A fault comes only of a large one, which is alone in its own.

        Raises FencedError and KafkaUnavailableError, the pushes answered, when the producer has to be replaced; the
        transaction that it leaves open is ended by its successor.
        """
        pushes = [push for push, _ in ready]
        tally = Tally()
        try:
            writer.begin()
            receipts = [self._send(writer, partitions, push, messages, tally) for push, messages in ready]
            writer.commit()
        except FAULTS as error:
            _fail(pushes, error)
            writer.abort()
        except AbortRequiredError as error:
            _fail(pushes, KafkaUnavailableError(f"Kafka did not take the push: {error}"))
            writer.abort()
        except (FencedError, KafkaUnavailableError) as error:
            _fail(pushes, KafkaUnavailableError(f"Kafka did not take the push: {error}"))
            raise
        else:
            tally.count()
            for push, receipt in zip(pushes, receipts, strict=True):
                push.done.set_result(receipt)

    def _send(
        self,
        writer: kafka.Transactions,
        partitions: dict[str, int],
        push: Push,
        messages: Iterable[Message],
        tally: "Tally",
    ) -> Receipt:
        raw = self._settings.topic(RAW_LOGS)
        runs = self._settings.topic(INGEST_RUNS)
        key = push.key()
        partition = partition_of(key, partitions[raw])
        entries = 0
        for message in messages:
            writer.send(raw, message.value, key, partition, message.headers)
            entries += message.entries
            tally.messages += 1
        receipt = Receipt(push.run_id, push.source, entries, push.body.size, timestamp_of(time.time_ns()), push.file)
        run_key = push.run_id.encode()
        writer.send(runs, msgspec.json.encode(receipt), run_key, partition_of(run_key, partitions[runs]))
        tally.entries += entries
        tally.bytes += push.body.size
        return receipt

    def _refuse_waiting(self) -> None:
        while True:
            try:
                push = self._waiting.get_nowait()
            except queue.Empty:
                return
            push.done.set_exception(KafkaUnavailableError("the producer is not ready"))


def _fail(pushes: Sequence[Push], error: Exception) -> None:
    for push in pushes:
        push.done.set_exception(error)


class Tally:
    """What one transaction sends, for the metrics once it counts."""

    def __init__(self) -> None:
        self.messages = self.entries = self.bytes = 0

    def count(self) -> None:
        metrics.MESSAGES_OUT.labels(STAGE, RAW_LOGS).inc(self.messages)
        metrics.RECORDS_IN.labels(STAGE).inc(self.entries)
        metrics.RECORDS_OUT.labels(STAGE).inc(self.entries)
        metrics.BYTES_IN.labels(STAGE).inc(self.bytes)
        metrics.BYTES_OUT.labels(STAGE).inc(self.bytes)
        metrics.LAST_PROGRESS.labels(STAGE).set_to_current_time()


class Ingest:
    """The two writers, and which push goes to which."""

    def __init__(self, settings: Settings, instance_id: str) -> None:
        self.small = Writer("ingestion", settings, instance_id, together=TOGETHER, timeout_ms=None)
        self.large = Writer("ingestion-large", settings, instance_id, together=0, timeout_ms=LARGE_TIMEOUT_MS)

    def submit(self, push: Push) -> Future[Receipt]:
        """Begin to write a push; the future tells its receipt once Kafka has it, or fails; its body goes then."""
        push.done.add_done_callback(lambda _: push.body.release())
        # a small one is held in memory, and rows under long names are many times the size that they came in
        small = SMALL // 16 if push.shape in (Shape.CSV, Shape.TSV) else SMALL
        (self.small if push.body.size <= small else self.large).submit(push)
        return push.done
