"""Bytes read back from Kafka: the message that lies at an offset, put together where it is in chunks."""

import io
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO, Final, NamedTuple, Self

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from shared import kafka
from shared.chunking import Assembler, Payload, Poisoned, Watermark, is_chunk
from shared.config import Settings
from shared.errors import KafkaUnavailableError
from shared.service import ProblemError
from shared.spool import Spool
from shared.topics import H_CHUNK, H_CONTENT_TYPE

_LOCATION: Final = re.compile(r"([0-9a-f]{8})-(\d{1,5})-(\d{1,19})-(\d{1,9})")
_PIECE: Final = 1024 * 1024
_PATIENCE_S: Final = 30.0
_AT_ONCE: Final = 4  # each holds one of the some 40 threads that all routes of the process share
_NEAR: Final = 2_000  # messages that are rather passed over than sought across


@dataclass(frozen=True, slots=True)
class Location:
    """Where an entry lies: a record_id, or the id of a dead letter."""

    topic_id: str
    partition: int
    offset: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        found = _LOCATION.fullmatch(text)
        return cls(found[1], int(found[2]), int(found[3]), int(found[4])) if found else None


class Plain:
    """Bytes in memory, as a Payload."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self.size = len(value)

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        return self._value[start : None if length is None else start + length]

    def open(self) -> BinaryIO:
        return io.BytesIO(self._value)

    def release(self) -> None:
        """Nothing is kept elsewhere."""


class Original(NamedTuple):
    """A message as its producer meant it. Whoever has it releases the payload."""

    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]  # without sluice-chunk
    payload: Payload
    chunked: bool

    @property
    def content_type(self) -> str | None:
        kind = dict(self.headers).get(H_CONTENT_TYPE)
        return kind.decode(errors="replace") if kind else None


class Originals:
    """Reads messages of one topic back. Raises ProblemError: 404 not there, 410 no longer there, 503 not now."""

    def __init__(self, settings: Settings, topic: str, spool: Spool, free: threading.BoundedSemaphore) -> None:
        self._settings = settings
        self._topic = settings.topic(topic)
        self._spool = spool
        self._free = free
        self._topics = kafka.Topics(settings, "raw")

    @contextmanager
    def reading(self) -> Iterator["Reading"]:
        """A reader for any number of messages, one of a few that there may be at once."""
        if not self._free.acquire(blocking=False):
            raise ProblemError(
                503, "Too busy", f"{_AT_ONCE} originals are being read back from Kafka already", {"Retry-After": "2"}
            )
        try:
            reading = Reading(self._settings, self._topics, self._topic, self._spool)
            try:
                yield reading
            finally:
                reading.close()
        finally:
            self._free.release()

    def read(self, place: Location) -> Original:
        """The message at this place."""
        with self.reading() as reading:
            return reading.original(place)


def limit() -> threading.BoundedSemaphore:
    """How many may read back at once."""
    return threading.BoundedSemaphore(_AT_ONCE)


class Reading:
    """Messages read back one after another, of those that are there when it begins; quick where they lie in a row."""

    def __init__(self, settings: Settings, topics: kafka.Topics, topic: str, spool: Spool) -> None:
        self._settings = settings
        self._topics = topics
        self._topic = topic
        self._topic_id = ""
        self._bounds: list[tuple[int, int]] = []  # first offset and end of each partition
        self._spool = spool
        self._reader: kafka.Reader | None = None
        self._messages: Iterator[kafka.Consumed] = iter(())
        self._partition = -1
        self._next = 0

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    def original(self, place: Location) -> Original:
        """The message at this place, whole."""
        message, headers = self._message(place)
        if is_chunk(headers):
            return self._assembled(message)
        return Original(message.key(), tuple(headers), Plain(message.value() or b""), chunked=False)

    def head(self, place: Location) -> Original:
        """The same, with the bytes of its first chunk only."""
        message, headers = self._message(place)
        own = tuple(header for header in headers if header[0] != H_CHUNK)
        return Original(message.key(), own, Plain(message.value() or b""), chunked=len(own) < len(headers))

    def _message(self, place: Location) -> tuple[kafka.Consumed, list[tuple[str, bytes | None]]]:
        self._check(place)
        partition, offset = place.partition, place.offset
        if partition != self._partition or not 0 <= offset - self._next <= _NEAR:
            self._go_to(partition, offset)
        message = self._at(offset)
        if message is None:
            self._go_to(partition, offset)  # what was read before may have ended short of it
            message = self._at(offset)
        if message is None:
            raise ProblemError(404, "No such record", f"there is no committed message at offset {offset}")
        return message, message.headers() or []

    def _check(self, place: Location) -> None:
        """Raise ProblemError unless the topic is the same, and holds this offset."""
        topic = self._topic
        self._topic_id = self._topic_id or self._topics.ids([topic])[topic]
        if self._topic_id != place.topic_id:
            raise ProblemError(
                410, "Gone", f"{topic} was deleted and made anew since; these bytes are no longer in Kafka"
            )
        self._bounds = self._bounds or self._bounds_now()
        if place.partition >= len(self._bounds):
            raise ProblemError(404, "No such record", f"{topic} has no partition {place.partition}")
        start, end = self._bounds[place.partition]
        if place.offset < start:
            raise ProblemError(
                410, "Gone", f"{topic} no longer retains offset {place.offset} of partition {place.partition}"
            )
        if place.offset >= end:
            raise ProblemError(
                404, "No such record", f"partition {place.partition} of {topic} ends before offset {place.offset}"
            )

    def _bounds_now(self) -> list[tuple[int, int]]:
        places = [(self._topic, n) for n in range(self._topics.partitions([self._topic])[self._topic])]
        starts, ends = self._topics.starts(places), self._topics.ends(places)
        return [(starts[place], ends[place]) for place in places]

    def _go_to(self, partition: int, offset: int) -> None:
        if self._reader is None:
            self._reader = kafka.Reader(self._settings, "raw-reader", "raw-reader", subscribes=False)
        self._reader.assign({(self._topic, partition): offset})
        self._partition, self._next = partition, offset
        self._messages = self._from(self._reader, partition, offset)

    def _at(self, offset: int) -> kafka.Consumed | None:
        for message in self._messages:
            if message.offset() >= offset:
                return message if message.offset() == offset else None
        return None

    def _from(self, reader: kafka.Reader, partition: int, offset: int) -> Iterator[kafka.Consumed]:
        """Messages until the end of the partition. Raises KafkaUnavailableError when none come in time."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            for message in reader.fetch(10, 0.1):
                error = message.error()
                if message.partition() != partition:
                    continue  # on its way since before the last assignment
                if error is None and message.offset() >= offset:
                    until = time.monotonic() + _PATIENCE_S
                    self._next = message.offset() + 1
                    yield message
                elif error is not None and error.code() == kafka.PARTITION_EOF and message.offset() >= offset:
                    return
        raise KafkaUnavailableError(f"Kafka did not answer within {_PATIENCE_S:.0f} s")

    def _assembled(self, head: kafka.Consumed) -> Original:
        """The message that begins with the chunk `head`."""
        assembler = Assembler(self._spool, self._settings.entry_max_bytes)
        partition = head.partition()
        assembler.restore(partition, Watermark(0))
        try:
            for message in chain([head], self._messages):
                headers = message.headers() or []
                if not is_chunk(headers):
                    continue
                for result in assembler.feed(
                    partition, message.offset(), message.timestamp()[1], message.key(), message.value(), headers
                ):
                    if result.offset == head.offset():
                        if isinstance(result, Poisoned):
                            raise ProblemError(410, "Gone", f"the message is broken: {result.detail}")
                        return Original(result.key, result.headers, result.payload, chunked=True)
                    if not isinstance(result, Poisoned):
                        result.payload.release()
                if assembler.waiting:
                    raise ProblemError(503, "No room", "the spool is full; raise SPOOL_MAX_BYTES", {"Retry-After": "5"})
            raise ProblemError(404, "No such record", "the message has no end yet")
        finally:
            assembler.drop(partition)


class PayloadResponse(StreamingResponse):
    """Streams a payload and releases it in the end, also when the client has left before the first byte."""

    def __init__(self, payload: Payload, content_type: str | None) -> None:
        self._payload = payload
        super().__init__(
            _pieces(payload),
            media_type="application/octet-stream",
            headers={"Content-Length": str(payload.size), "Sluice-Content-Type": _printable(content_type or "")},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._payload.release()


def _printable(text: str) -> str:
    """As it may stand in a header of HTTP; a foreign producer may have put anything there."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _pieces(payload: Payload) -> Iterator[bytes]:
    with payload.open() as stream:
        while piece := stream.read(_PIECE):
            yield piece
