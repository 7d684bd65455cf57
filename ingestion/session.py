"""Sessions: one producer's transactions, each with entries and the places that their sources were read up to.

    source > send, receipt, keep > transaction > raw-logs, ingest-runs, ingestion-state

A place is written in the transaction that its entries are in, so that after a crash a source goes on behind the last
entry that counts: none is lost, none comes twice.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

import msgspec

from ingestion.entries import UnreadableSourceError
from ingestion.ingest import STAGE, Tally
from shared import kafka, logs
from shared.config import Settings
from shared.errors import FencedError, KafkaUnavailableError
from shared.kafka import AbortRequiredError, Headers, Position
from shared.records import Receipt, timestamp_of
from shared.topics import INGEST_RUNS, INGESTION_STATE, RAW_LOGS, partition_of

MESSAGES_TOGETHER: Final = 20_000  # of a transaction: more could take longer than it may
AGAIN_S: Final = 0.5  # before a new producer takes over

_NOWHERE: Final[Mapping[int, Position]] = {}

log = logs.logger("ingestion.session")


class Session:
    """What one producer sends, until it fails; then nothing of the open transaction counts. For one thread."""

    def __init__(self, settings: Settings, writer: kafka.Transactions, client: str, owner: str) -> None:
        """`owner` is who the places belong to: two that live at a time have different ones."""
        self._settings = settings
        self._writer = writer
        self._owner = f"{owner}/"
        self._topics = kafka.Topics(settings, client)
        self._names = {topic: settings.topic(topic) for topic in (RAW_LOGS, INGEST_RUNS, INGESTION_STATE)}
        counts = self._topics.partitions(list(self._names.values()))
        self._partitions = {topic: counts[name] for topic, name in self._names.items()}
        self._kept: dict[str, bytes | None] = {}
        self._turns = 0
        self._tally = Tally()

    @property
    def is_full(self) -> bool:
        """Whether the open transaction has as many messages as one should."""
        return self._tally.messages >= MESSAGES_TOGETHER

    def restored(self, stopping: threading.Event) -> Iterator[tuple[str, bytes]]:
        """Every place that the owner has kept, with its key."""
        found: dict[str, bytes] = {}
        where = (self._names[INGESTION_STATE], 0)
        prefix = self._owner.encode()
        for message in kafka.read_to_end(self._settings, self._topics, [where], stopping):
            key, value = message.key() or b"", message.value()
            if key.startswith(prefix):
                name = key.removeprefix(prefix).decode()
                found.pop(name, None)
                if value:
                    found[name] = value
        yield from found.items()

    def send(self, values: Sequence[bytes | None], key: bytes | None, headers: Headers, entries: int) -> None:
        """Send messages to raw-logs that hold so many entries together: to their key's partition, without one to the
        next in turn."""
        partition = self._partition(key)
        self._writer.send_each(self._names[RAW_LOGS], [(key, value) for value in values], partition, headers)
        self._tally.messages += len(values)
        self._tally.entries += entries
        self._tally.bytes += sum(len(value) for value in values if value is not None)

    def send_large(self, entry: BinaryIO, size: int, key: bytes | None, headers: Headers) -> None:
        """Send one entry of `size` bytes, over the chunk size, in chunks. What `entry` raises fails the transaction."""
        partition = self._partition(key)
        name, chunk_bytes = self._names[RAW_LOGS], self._settings.chunk_bytes
        self._tally.messages += self._writer.send_in_chunks(name, entry, size, chunk_bytes, key, partition, headers)
        self._tally.entries += 1
        self._tally.bytes += size

    def receipt(self, run_id: str, source: str | None, entries: int, size: int, file: str | None) -> None:
        """Tell what a run brought: so many entries of `size` bytes."""
        self._open()
        receipt = Receipt(run_id, source, entries, size, timestamp_of(time.time_ns()), file)
        key = run_id.encode()
        partition = partition_of(key, self._partitions[INGEST_RUNS])
        self._writer.send(self._names[INGEST_RUNS], msgspec.json.encode(receipt), key, partition)

    def keep(self, key: str, place: msgspec.Struct | None) -> None:
        """Keep a place with what this transaction sends; None: forget it. Of several the last counts."""
        self._kept[key] = None if place is None else msgspec.json.encode(place)

    def commit(self, topic: str = "", positions: Mapping[int, Position] = _NOWHERE, group: Any = None) -> bool:
        """Make all of it count, if there is anything, with these positions of a consumer group; says whether there
        was."""
        if not (self._kept or self._writer.open or positions):
            return False
        self._open()
        for key, value in self._kept.items():
            self._writer.send(self._names[INGESTION_STATE], value, f"{self._owner}{key}".encode(), 0)
        self._writer.commit(topic, positions, group)
        self._kept.clear()
        self._tally.count()
        self._tally = Tally()
        return True

    def _partition(self, key: bytes | None) -> int:
        self._open()
        count = self._partitions[RAW_LOGS]
        if key is not None:
            return partition_of(key, count)
        self._turns += 1
        return self._turns % count

    def _open(self) -> None:
        if not self._writer.open:
            self._writer.begin()


def hold_sessions(
    settings: Settings,
    name: str,
    owner: str,
    work: Callable[[Session], None],
    ended: Callable[[str], None],
    stopping: threading.Event,
    timeout_ms: int | None = None,
) -> None:
    """Do `work` with a session until told to stop; after a failure again with a new one, whose producer fences the old.

    `ended` is called after each session, and at the end, with why it failed, or nothing.
    """
    while not stopping.is_set():
        writer = kafka.Transactions(settings, STAGE, f"{name}-{owner}", timeout_ms)
        failure = ""
        try:
            if writer.prepare(stopping):
                work(Session(settings, writer, name, owner))
        except (FencedError, KafkaUnavailableError, AbortRequiredError, UnreadableSourceError) as error:
            failure = str(error)
            log.warning("session failed, beginning again from what counts", session=name, error=str(error))
        finally:
            ended(failure)
            writer.discard()
        if failure:
            stopping.wait(AGAIN_S)


def ago(ns: int) -> str:
    """A moment that was so many nanoseconds ago, to the second: RFC 3339, UTC."""
    return timestamp_of((time.time_ns() - ns) // 1_000_000_000 * 1_000_000_000)
