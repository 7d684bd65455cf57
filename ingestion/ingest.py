"""From a source to raw-logs: entries into frames, frames and their receipt into one transaction.

    push -> entries -> frames -> transaction(frames, receipt) -> receipt answered

Small pushes that wait together share a transaction; a large one has a producer and a transaction of its own, since an
open transaction hides everything behind it on its partitions.
"""

import hashlib
import io
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import msgspec

from ingestion.entries import BLOCK, Entries, Large, MalformedBodyError, Section, Source, json_array, json_value, ndjson
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


def shape_of(source: Source, *, json: bool) -> Shape:
    """JSON's own first character tells an array; `json` tells one object from a line of NDJSON."""
    if source.read(0, 256).lstrip()[:1] == b"[":
        return Shape.ARRAY
    return Shape.VALUE if json else Shape.NDJSON


@dataclass(slots=True)
class Push:
    """One body or file on its way, with who sent it."""

    body: Source
    shape: Shape
    run_id: str
    source: str | None = None
    attempt: str | None = None  # on a push with an Idempotency-Key
    file: str | None = None
    done: Future[Receipt] = field(default_factory=Future)

    def entries(self, inline: int) -> Entries:
        split_into = {Shape.NDJSON: ndjson, Shape.ARRAY: json_array, Shape.VALUE: json_value}
        return split_into[self.shape](self.body, inline)

    def headers(self, content_type: str) -> list[tuple[str, bytes | None]]:
        made: list[tuple[str, bytes | None]] = [(H_CONTENT_TYPE, content_type.encode()), (H_RUN, self.run_id.encode())]
        if self.source is not None:
            made.append((H_SOURCE, self.source.encode()))
        if self.attempt is not None:
            made.append((H_PUSH, f"{self.run_id}:{self.attempt}".encode()))
        return made

    def key(self) -> bytes:
        """The source keeps its entries in order; without one, or to be told apart from a retry, the run does."""
        return (self.source if self.source is not None and self.attempt is None else self.run_id).encode()


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
        elif push.shape is Shape.NDJSON or not any(b"\n" in entry for entry in found):
            for run in cut(found, settings.frame_records, settings.frame_bytes):
                yield Frame(b"\n".join(run), NDJSON, len(run))
        else:  # an entry over several lines would be split as NDJSON, and its bytes stay untouched: a message each
            for entry in found:
                yield Frame(entry, JSON, 1)


class Writer:
    """A thread's work: takes pushes that wait and writes each wholly or not at all."""

    def __init__(self, name: str, settings: Settings, instance_id: str, together: int, timeout_ms: int | None) -> None:
        self.name = name
        self._settings = settings
        self._transactional_id = f"{name}-{instance_id}"
        self._together = together
        self._timeout_ms = timeout_ms
        self._waiting: queue.Queue[Push] = queue.Queue(WAITING)
        self._ready = threading.Event()

    def submit(self, push: Push) -> None:
        """Put a push in line; its `done` tells the receipt, or why not."""
        try:
            self._waiting.put_nowait(push)
        except queue.Full:
            push.done.set_exception(BusyError(f"{WAITING} pushes are waiting already"))

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
                writer.discard()
        self._refuse_waiting()

    def _prepare(self, writer: kafka.Transactions, stopping: threading.Event) -> dict[str, int]:
        if not writer.prepare(stopping):
            return {}
        topics = kafka.Topics(self._settings, self.name)
        names = [self._settings.topic(RAW_LOGS), self._settings.topic(INGEST_RUNS)]
        return topics.partitions(names)

    def _serve(self, writer: kafka.Transactions, partitions: dict[str, int], stopping: threading.Event) -> None:
        while not (stopping.is_set() and self._waiting.empty()):
            try:
                pushes = [self._waiting.get(timeout=0.2)]
            except queue.Empty:
                continue
            while len(pushes) < self._together and not self._waiting.empty():
                pushes.append(self._waiting.get_nowait())
            self._write(writer, partitions, pushes)

    def _write(self, writer: kafka.Transactions, partitions: dict[str, int], pushes: list[Push]) -> None:
        """All of these pushes in one transaction. A body at fault fails alone: the others begin again."""
        receipts: list[Receipt] = []
        tally = _Tally()
        try:
            writer.begin()
            for push in pushes:
                try:
                    receipts.append(self._send(writer, partitions, push, tally))
                except (MalformedBodyError, EntryTooLargeError, OSError) as error:
                    writer.abort()
                    push.done.set_exception(error)
                    rest = [other for other in pushes if other is not push]
                    if rest:
                        self._write(writer, partitions, rest)
                    return
            writer.commit()
        except (FencedError, KafkaUnavailableError, AbortRequiredError) as error:
            for push in pushes:
                if not push.done.done():
                    push.done.set_exception(KafkaUnavailableError(f"Kafka did not take the push: {error}"))
            writer.abort()
            raise
        tally.count()
        for push, receipt in zip(pushes, receipts, strict=True):
            push.done.set_result(receipt)

    def _send(self, writer: kafka.Transactions, partitions: dict[str, int], push: Push, tally: "_Tally") -> Receipt:
        raw = self._settings.topic(RAW_LOGS)
        runs = self._settings.topic(INGEST_RUNS)
        key = push.key()
        partition = partition_of(key, partitions[raw])
        headers = {kind: push.headers(kind) for kind in (NDJSON, JSON)}
        entries = 0
        for frame in frames_of(push, self._settings):
            entries += frame.entries
            if isinstance(frame.value, Large):
                section = io.BufferedReader(Section(push.body, frame.value), BLOCK)
                chunks = split(section, frame.value.size, self._settings.chunk_bytes, uuid.uuid4().bytes, 1)
                for index, (header, piece) in enumerate(chunks):
                    own = headers[frame.content_type] if index == 0 else []
                    writer.send(raw, piece, key, partition, [(H_CHUNK, header), *own])
                    tally.messages += 1
            else:
                writer.send(raw, frame.value, key, partition, headers[frame.content_type])
                tally.messages += 1
        if not entries:
            raise MalformedBodyError("there is no entry in it")
        receipt = Receipt(push.run_id, push.source, entries, push.body.size, timestamp_of(time.time_ns()), push.file)
        run_key = push.run_id.encode()
        writer.send(runs, msgspec.json.encode(receipt), run_key, partition_of(run_key, partitions[runs]))
        tally.entries += entries
        tally.bytes += push.body.size
        return receipt

    def _refuse_waiting(self) -> None:
        while not self._waiting.empty():
            push = self._waiting.get_nowait()
            push.done.set_exception(KafkaUnavailableError("ingestion is stopping"))


class _Tally:
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
        self.small = Writer("ingestion", settings, instance_id, together=WAITING, timeout_ms=None)
        self.large = Writer("ingestion-large", settings, instance_id, together=1, timeout_ms=LARGE_TIMEOUT_MS)

    def submit(self, push: Push) -> Future[Receipt]:
        """Begin to write a push; the future tells its receipt once Kafka has it, or fails; its body goes then."""
        push.done.add_done_callback(lambda _: push.body.release())
        (self.small if push.body.size <= SMALL else self.large).submit(push)
        return push.done
