"""The desk: where dead letters are closed, one transaction at a time, whoever asks and however often.

    fence all others -> read the events to their end -> is it open? -> transaction(entries, events)

All desks of all processes share one transactional.id. To begin is to fence whoever came before, and to end what it
left open; so what is then read is all there is, and what a fenced desk still sends is never committed. A crash at any
moment leaves a letter open, or closed with its entry sent.
"""

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import msgspec

from processing.letters import Action, Event, Outgoing
from shared import kafka, logs, metrics
from shared.chunking import Payload
from shared.config import Settings
from shared.errors import FencedError, KafkaUnavailableError
from shared.kafka import AbortRequiredError
from shared.topics import (
    DEAD_LETTER_EVENTS,
    INGEST_RUNS,
    PROCESSED_METRICS,
    RAW_LOGS,
    STANDARDIZED_LOGS,
    partition_of,
)

STAGE: Final = "desk"
TRANSACTIONAL_ID: Final = "dead-letter-desk"
TOPICS: Final = (RAW_LOGS, STANDARDIZED_LOGS, PROCESSED_METRICS, INGEST_RUNS, DEAD_LETTER_EVENTS)
LARGE: Final = 8 * 1024 * 1024  # a transaction of more bytes may last longer
LARGE_TIMEOUT_MS: Final = 300_000
TURN_S: Final = 30.0  # how long one waits for the desk, and for Kafka at it
ATTEMPTS: Final = 5

log = logs.logger(STAGE)


@dataclass(frozen=True, slots=True)
class Closing:
    """A letter that is to be closed by this event, together with the entry that is sent again, if one is."""

    event: Event
    message: Outgoing | None = None
    value: Payload | None = None

    @property
    def size(self) -> int:
        return self.value.size if self.value else 0


class Desk:
    """Closes letters. For any number of threads; one at a time is at the desk.

    It remembers every event that the topic holds, some 300 bytes each, from its first use on.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = kafka.Topics(settings, STAGE)
        self._turn = threading.Lock()
        self._topic_id = ""
        self._partitions: dict[str, int] = {}
        self._read: dict[kafka.Place, int] = {}  # the offset that is read next
        self._closed: dict[str, Event] = {}  # by letter
        self._replayed: dict[str, Event] = {}  # by entry

    def run(self, stopping: threading.Event) -> None:
        """End what a desk that was killed has left open: until then nobody could read past it."""
        with self._turn:
            writer = kafka.Transactions(self._settings, STAGE, TRANSACTIONAL_ID)
            try:
                writer.prepare(stopping)
            except FencedError as error:  # another came between, which has the same effect
                log.warning("fenced at the start", error=str(error))
            finally:
                writer.discard()

    def close(self, closings: Sequence[Closing]) -> list[Event | None]:
        """Close these letters in one transaction; for each None, or the event that had closed it before.

        Raises KafkaUnavailableError: then some attempt may have taken place, or none; asked again, each is closed once.
        """
        with self._at_the_desk():
            problem: Exception | None = None
            for attempt in range(ATTEMPTS):
                if attempt:
                    time.sleep(random.uniform(0.05, 0.2) * 2**attempt)  # noqa: S311 - no secret
                try:
                    return self._attempt(closings)
                except (FencedError, AbortRequiredError, KafkaUnavailableError) as error:
                    problem = error
                    log.warning("dead letters were not closed, trying again", error=str(error))
            raise KafkaUnavailableError(f"dead letters could not be closed: {problem}")

    @contextmanager
    def _at_the_desk(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=TURN_S):
            raise KafkaUnavailableError("dead letters are being replayed; try again when that is done")
        try:
            yield
        finally:
            self._turn.release()

    def _attempt(self, closings: Sequence[Closing]) -> list[Event | None]:
        large = sum(closing.size for closing in closings) > LARGE
        timeout_ms = LARGE_TIMEOUT_MS if large else None
        writer = kafka.Transactions(self._settings, STAGE, TRANSACTIONAL_ID, timeout_ms)
        try:
            self._begin(writer)
            before = [self._known(closing) for closing in closings]
            new = [closing for closing, event in zip(closings, before, strict=True) if event is None]
            new = _first_of_each_entry(new)
            if new:
                writer.begin()
                for closing in new:
                    self._send(writer, closing)
                writer.commit()
                for closing in new:
                    self._remember(closing.event)
                    metrics.DEAD_LETTERS_CLOSED.labels(closing.event.action).inc()
        finally:
            writer.discard()
        # an attempt before this one may have committed, though its answer was lost: then the event is our own
        return [
            None if (event := self._known(closing)) is not None and event.event_id == closing.event.event_id else event
            for closing in closings
        ]

    def _begin(self, writer: kafka.Transactions) -> None:
        late = threading.Event()
        timer = threading.Timer(TURN_S, late.set)
        timer.start()
        try:
            if not writer.prepare(late):
                raise KafkaUnavailableError(f"Kafka did not answer within {TURN_S:.0f} s")
            self._catch_up(late)
        finally:
            timer.cancel()

    def _catch_up(self, late: threading.Event) -> None:
        events = self._settings.topic(DEAD_LETTER_EVENTS)
        names = {name: self._settings.topic(name) for name in TOPICS}
        counts = self._topics.partitions(list(names.values()))
        self._partitions = {name: counts[full] for name, full in names.items()}
        topic_id = self._topics.ids([events])[events]
        if topic_id != self._topic_id:  # the first time, or it was made anew
            self._topic_id = topic_id
            self._read.clear()
            self._closed.clear()
            self._replayed.clear()
        places = [(events, partition) for partition in range(counts[events])]
        for message in kafka.read_to_end(self._settings, self._topics, places, late, self._read):
            self._read[events, message.partition()] = message.offset() + 1
            try:
                self._remember(msgspec.json.decode(message.value() or b"", type=Event))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                log.warning("no event of ours", partition=message.partition(), offset=message.offset())

    def _known(self, closing: Closing) -> Event | None:
        event = closing.event
        if event.action == Action.REPLAYED:
            return self._closed.get(event.letter) or self._replayed.get(event.entry)
        return self._closed.get(event.letter)

    def _remember(self, event: Event) -> None:
        """The first counts."""
        self._closed.setdefault(event.letter, event)
        if event.action == Action.REPLAYED:
            self._replayed.setdefault(event.entry, event)

    def _send(self, writer: kafka.Transactions, closing: Closing) -> None:
        if closing.message is not None and closing.value is not None:
            self._send_entry(writer, closing.message, closing.value)
        key = closing.event.letter.encode()
        topic = self._settings.topic(DEAD_LETTER_EVENTS)
        partition = partition_of(key, self._partitions[DEAD_LETTER_EVENTS])
        writer.send(topic, msgspec.json.encode(closing.event), key, partition)

    def _send_entry(self, writer: kafka.Transactions, message: Outgoing, value: Payload) -> None:
        count = self._partitions[message.topic]
        topic = self._settings.topic(message.topic)
        partition = message.partition
        if partition is None or partition >= count:
            partition = partition_of(message.key or b"", count)
        chunk_bytes = self._settings.chunk_bytes
        if value.size <= chunk_bytes:
            writer.send(topic, value.read(), message.key, partition, list(message.headers))
            return
        with value.open() as source:
            writer.send_in_chunks(topic, source, value.size, chunk_bytes, message.key, partition, message.headers)


def _first_of_each_entry(closings: Sequence[Closing]) -> list[Closing]:
    """Two letters of one entry may be asked for together: only the first is sent."""
    first: dict[tuple[str, str], Closing] = {}
    for closing in closings:
        of = closing.event.entry if closing.event.action == Action.REPLAYED else closing.event.letter
        first.setdefault((closing.event.action, of), closing)
    return list(first.values())
