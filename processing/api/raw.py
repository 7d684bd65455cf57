"""GET /records/{record_id}/raw: the original bytes of an entry, read back from Kafka."""

import re
import threading
import time
from collections.abc import Iterator
from itertools import chain
from typing import Final

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from shared import kafka
from shared.chunking import Assembler, Payload, Poisoned, Watermark, is_chunk
from shared.config import Settings
from shared.errors import KafkaUnavailableError
from shared.frames import entries
from shared.service import Problem, ProblemError
from shared.spool import Spool
from shared.topics import H_CONTENT_TYPE, RAW_LOGS

_RECORD_ID: Final = re.compile(r"([0-9a-f]{8})-(\d{1,5})-(\d{1,19})-(\d{1,9})")
_PIECE: Final = 1024 * 1024
_PATIENCE_S: Final = 30.0
_AT_ONCE: Final = 4  # each holds one of the some 40 threads that all routes of the process share


def router(settings: Settings, spool: Spool) -> APIRouter:
    routes = APIRouter(tags=["records"])
    topics = kafka.Topics(settings, "raw")
    free = threading.BoundedSemaphore(_AT_ONCE)

    @routes.get(
        "/records/{record_id}/raw",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/octet-stream": {}}, "description": "The bytes as they were pushed."},
            **{code: {"model": Problem} for code in (404, 410, 503)},
        },
    )
    def raw(record_id: str) -> StreamingResponse:
        """The original bytes of an entry, as long as raw-logs retains them."""
        found = _RECORD_ID.fullmatch(record_id)
        if found is None:
            raise ProblemError(
                404, "No such record", "a record_id is <8 hex digits>-<partition>-<offset>-<index>, as records carry it"
            )
        if not free.acquire(blocking=False):
            raise ProblemError(
                503, "Too busy", f"{_AT_ONCE} originals are being read back from Kafka already", {"Retry-After": "2"}
            )
        try:
            return read_back(found[1], int(found[2]), int(found[3]), int(found[4]))
        finally:
            free.release()

    def read_back(topic_id: str, partition: int, offset: int, index: int) -> StreamingResponse:
        topic = settings.topic(RAW_LOGS)
        if topics.ids([topic])[topic] != topic_id:
            raise ProblemError(
                410, "Gone", f"{topic} was deleted and made anew since; these bytes are no longer in Kafka"
            )
        if partition >= topics.partitions([topic])[topic]:
            raise ProblemError(404, "No such record", f"{topic} has no partition {partition}")
        place = (topic, partition)
        if offset < topics.starts([place])[place]:
            raise ProblemError(410, "Gone", f"{topic} no longer retains offset {offset} of partition {partition}")
        if offset >= topics.ends([place])[place]:
            raise ProblemError(404, "No such record", f"partition {partition} of {topic} ends before offset {offset}")
        return _answer(settings, spool, place, offset, index)

    return routes


def _answer(settings: Settings, spool: Spool, place: tuple[str, int], offset: int, index: int) -> StreamingResponse:
    reader = kafka.Reader(settings, "raw-reader", "raw-reader", subscribes=False)
    try:
        reader.assign({place: offset})
        messages = _messages(reader)
        message = next(messages, None)
        if message is None or message.offset() != offset:
            raise ProblemError(404, "No such record", f"there is no committed message at offset {offset}")
        headers = message.headers() or []
        kind = dict(headers).get(H_CONTENT_TYPE)
        content_type = kind.decode(errors="replace") if kind else None
        if is_chunk(headers):
            if index != 0:
                raise ProblemError(404, "No such record", f"the message at offset {offset} is one entry, in chunks")
            return PayloadResponse(_assembled(settings, spool, message, messages), content_type)
        lines = entries(message.value() or b"", content_type)
        if index >= len(lines):
            raise ProblemError(404, "No such record", f"the message at offset {offset} has {len(lines)} entries")
        return StreamingResponse(iter([lines[index]]), media_type="application/octet-stream")
    finally:
        reader.close()


def _messages(reader: kafka.Reader) -> Iterator[kafka.Consumed]:
    """Messages until the end of the partition. Raises KafkaUnavailableError when none come in time."""
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        for message in reader.fetch(10, 0.1):
            error = message.error()
            if error is None:
                until = time.monotonic() + _PATIENCE_S
                yield message
            elif error.code() == kafka.PARTITION_EOF:
                return
    raise KafkaUnavailableError(f"Kafka did not answer within {_PATIENCE_S:.0f} s")


def _assembled(settings: Settings, spool: Spool, head: kafka.Consumed, rest: Iterator[kafka.Consumed]) -> Payload:
    """The payload of the message that begins with the chunk `head`; `rest` is what follows it."""
    assembler = Assembler(spool, settings.entry_max_bytes)
    partition = head.partition()
    assembler.restore(partition, Watermark(0))
    try:
        for message in chain([head], rest):
            headers = message.headers() or []
            if not is_chunk(headers):
                continue
            for result in assembler.feed(
                partition, message.offset(), message.timestamp()[1], message.key(), message.value(), headers
            ):
                if result.offset == head.offset():
                    if isinstance(result, Poisoned):
                        raise ProblemError(410, "Gone", f"the message is broken: {result.detail}")
                    return result.payload
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
            headers={"Content-Length": str(payload.size), "Sluice-Content-Type": content_type or ""},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._payload.release()


def _pieces(payload: Payload) -> Iterator[bytes]:
    with payload.open() as stream:
        while piece := stream.read(_PIECE):
            yield piece
