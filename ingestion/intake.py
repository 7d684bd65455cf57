"""How a push is taken, whatever its protocol: bounds first, then its body, then its transaction.

    request -> admitted? -> body, unpacked > entries -> push -> receipt

What can't be taken now is refused before memory grows (429, 503, with Retry-After), so that the client keeps it.
"""

import asyncio
import hashlib
import re
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, Protocol, TypeVar

from fastapi import Header, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from ingestion.entries import MalformedBodyError, UnreadableSourceError
from ingestion.ingest import BusyError, EntryTooLargeError, Ingest, Push, Shape, new_run_id, run_id_of
from shared import logs, metrics
from shared.config import KIB, Settings
from shared.errors import KafkaUnavailableError, SpoolFullError
from shared.records import Receipt
from shared.service import ProblemError
from shared.spool import Entry, Spool
from shared.topics import BRIEFLY

log = logs.logger("ingestion.intake")

PUSHED_MAX: Final = 128 * KIB * KIB  # bytes of all entries of a push that is taken apart in memory
RUN_HEADER: Final = "Sluice-Run"  # of an answer whose protocol has no place for the run id
_KEY_MAX: Final = 255
# for the OpenAPI only: `idempotency_key` refuses others, in the words of each protocol
KEY_SCHEMA: Final[dict[str, Any]] = {"minLength": 1, "maxLength": _KEY_MAX}
KeyHeader = Annotated[
    str | None, Header(description="Makes a retry safe, as with /ingest.", json_schema_extra=KEY_SCHEMA)
]
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_IN_MEMORY: Final = 4 * KIB * KIB  # a body up to this stays in memory
_SLOWEST: Final = 16 * KIB  # bytes a second that a body must reach, after its first BODY_SECONDS


def check_entries(size: int) -> None:
    """Raises a 413 where the entries of a push hold more than PUSHED_MAX bytes together.

    Each has its resource or its labels with it, so that a small body may hold any number of bytes.
    """
    if size > PUSHED_MAX:
        raise ProblemError(
            413,
            "Body too large",
            f"its entries, each with its resource or labels, hold over {PUSHED_MAX} bytes; send fewer in a push",
        )


class RecentReceipts:
    """Receipts that the store may not have yet."""

    def __init__(self, limit: int = 1_000) -> None:
        self._limit = limit
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()

    def add(self, receipt: Receipt) -> None:
        self._receipts[receipt.run_id] = receipt
        while len(self._receipts) > self._limit:
            self._receipts.popitem(last=False)

    def get(self, run_id: str) -> Receipt | None:
        return self._receipts.get(run_id)


class Parsed(Protocol):
    """What a protocol's body holds."""

    @property
    def entries(self) -> Sequence[bytes]:
        """JSON objects without LF, which become entries; what was refused of the body is not among them."""

    @property
    def unique(self) -> bool:
        """Whether the same entries can only come again as a retry."""


P = TypeVar("P", bound=Parsed)


class Held:
    """The bytes of memory that a request holds; made by Intake.admitted."""

    def __init__(self, intake: "Intake") -> None:
        self._intake = intake
        self.size = 0

    def take(self, size: int) -> None:
        """Book bytes. Raises a 429 over the bound on all requests' bytes."""
        self._intake.book(size)
        self.size += size


class Intake:
    """Takes pushes within the bounds of the settings. For the event loop's thread."""

    def __init__(self, settings: Settings, ingest: Ingest, spool: Spool, kafka_reachable: Callable[[], bool]) -> None:
        self.recent = RecentReceipts()
        self._settings = settings
        self._ingest = ingest
        self._spool = spool
        self._kafka_reachable = kafka_reachable
        self._requests = 0
        self._bytes = 0
        self._parsing = asyncio.Lock()  # one body is taken apart at a time: it needs many times its size
        metrics.PUSH_REQUESTS.set_function(lambda: self._requests)
        metrics.PUSH_BYTES.set_function(lambda: self._bytes)

    # bounds

    @contextmanager
    def admitted(self) -> Iterator[Held]:
        """A request's place among those in flight. Raises a 429 where all are taken, a 503 without Kafka."""
        if not self._kafka_reachable():
            raise no_kafka("no broker answers")
        if self._requests >= self._settings.push_requests_max:
            raise _too_many(f"{self._requests} pushes are in flight already (PUSH_REQUESTS_MAX)")
        held = Held(self)
        self._requests += 1
        try:
            yield held
        finally:
            self._requests -= 1
            self._bytes -= held.size

    def book(self, size: int) -> None:
        """Book bytes of memory; for Held. Raises a 429 over the bound."""
        if self._bytes + size > self._settings.push_bytes_max:
            raise _too_many(f"the pushes in flight hold {self._bytes} bytes already (PUSH_BYTES_MAX)")
        self._bytes += size

    # bodies

    async def receive(self, request: Request, limit: int) -> Entry:
        """The body, spooled as it comes. Raises a ProblemError where it is too large, too slow or cut off."""
        _check_size(_announced(request), limit, "BODY_MAX_BYTES")
        body = self._spool.create(_IN_MEMORY)
        begun = time.monotonic()
        try:
            async for piece in self._pieces(request):
                _check_size(body.size + len(piece), limit, "BODY_MAX_BYTES")
                body.append(piece)
        except BaseException as error:
            body.release()
            if isinstance(error, SpoolFullError):
                raise ProblemError(507, "No room", str(error), {"Retry-After": "5"}) from error
            raise
        log.debug("received", bytes=body.size, seconds=round(time.monotonic() - begun, 3))
        return body

    async def take(self, request: Request, split: Callable[[bytes], P]) -> tuple[P, Receipt | None]:
        """A push of a protocol whose body `split` takes apart: what it held, and the receipt if there was any entry.

        Either all of the entries are taken or, with a ProblemError, none. `split` runs in a thread of its own.
        """
        key = idempotency_key(request.headers.get("idempotency-key"))
        with self.admitted() as held:
            data = await self._unpacked(request, held)
            async with self._parsing:
                parsed = await asyncio.to_thread(split, data)
            if not parsed.entries:
                return parsed, None
            return parsed, await self.write(self._push(parsed, key))

    async def _unpacked(self, request: Request, held: Held) -> bytes:
        """The body in memory, without its Content-Encoding; never more than PUSH_MAX_BYTES of it."""
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in {"", "identity", "gzip", "snappy"}:  # snappy: Loki's, within its protobuf
            raise ProblemError(415, "Unsupported encoding", f"Content-Encoding is {encoding!r}; send gzip or none")
        limit = self._settings.push_max_bytes
        _check_size(_announced(request), limit, "PUSH_MAX_BYTES")
        gzip = Gunzip() if encoding == "gzip" else None
        pieces: list[bytes] = []
        size = 0
        async for piece in self._pieces(request):
            plain = piece if gzip is None else gzip.feed(piece, limit - size)
            size += len(plain)
            _check_size(size, limit, "PUSH_MAX_BYTES")
            held.take(len(plain))
            pieces.append(plain)
        if gzip is not None:
            gzip.end()
        return b"".join(pieces)

    async def _pieces(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it comes. A 408 for one that comes too slowly: what it holds is others' room."""
        begun, size = time.monotonic(), 0
        stream = aiter(request.stream())
        while True:
            left = begun + self._settings.body_seconds + size / _SLOWEST - time.monotonic()
            try:
                piece = await asyncio.wait_for(anext(stream), max(left, 0.001))
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise ProblemError(
                    408,
                    "Body too slow",
                    f"{size} bytes came in {time.monotonic() - begun:.0f} s (BODY_SECONDS)",
                    {"Connection": "close"},
                ) from error
            except ClientDisconnect as error:  # nobody reads this answer, but the metrics count it
                raise ProblemError(400, "Body cut off", f"the client left after {size} bytes") from error
            size += len(piece)
            yield piece

    # pushes

    def _push(self, parsed: Parsed, key: str | None) -> Push:
        """Few clients of these protocols can send a key with a retry, so what can only be a retry counts once, too."""
        lines = b"\n".join(parsed.entries)
        body = self._spool.create(_IN_MEMORY)
        try:
            body.append(lines)
        except SpoolFullError as error:
            body.release()
            raise ProblemError(503, "No room", str(error), {"Retry-After": "5"}) from error
        push = Push(body, Shape.NDJSON, new_run_id())
        if key is None and parsed.unique:
            push = keyed(push, hashlib.sha256(lines).hexdigest())
            push.attempt = f"{BRIEFLY}{push.attempt}"
            return push
        return keyed(push, key)

    async def write(self, push: Push) -> Receipt:
        """Write a push, and give its receipt once Kafka has it. Raises a ProblemError where nothing was taken."""
        try:
            receipt = await asyncio.shield(asyncio.wrap_future(self._ingest.submit(push)))
        except BusyError as error:
            raise ProblemError(503, "Too busy", str(error), {"Retry-After": "1"}) from error
        except MalformedBodyError as error:
            raise ProblemError(422, "No entries can be told apart", str(error)) from error
        except EntryTooLargeError as error:
            raise ProblemError(413, "Entry too large", str(error)) from error
        except UnreadableSourceError as error:
            raise ProblemError(409, "Not readable to its end", str(error)) from error
        except OSError as error:
            raise ProblemError(500, "Not readable", f"what was received can't be read back: {error}") from error
        except KafkaUnavailableError as error:
            raise no_kafka(str(error)) from error
        self.recent.add(receipt)
        log.info("ingested", run_id=receipt.run_id, source=receipt.source, entries=receipt.entries, bytes=receipt.bytes)
        return receipt


class Gunzip:
    """Unpacks gzip as it comes, of any number of members, and never more than there is room for."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(31)

    def feed(self, data: bytes, room: int) -> bytes:
        """What these bytes unpack to; of more than `room` bytes, `room` + 1."""
        plain = bytearray()
        while data and len(plain) <= room:
            if self._member.eof:
                self._member = zlib.decompressobj(31)
            try:
                plain += self._member.decompress(data, room + 1 - len(plain))
            except zlib.error as error:
                raise ProblemError(
                    400, "Not gzip", f"the body is not what its Content-Encoding says: {error}"
                ) from error
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return bytes(plain)

    def end(self) -> None:
        if not self._member.eof:
            raise ProblemError(400, "Not gzip", "the body ends within its gzip stream")


def idempotency_key(key: str | None) -> str | None:
    """The header's value if it has one that can be used. Raises a 422."""
    if key is not None and not 0 < len(key) <= _KEY_MAX:
        raise ProblemError(422, "Invalid Idempotency-Key", f"it has 1 to {_KEY_MAX} characters")
    return key


def keyed(push: Push, key: str | None) -> Push:
    """The push, as an attempt of the one with this Idempotency-Key if there is one."""
    if key is not None:
        push.run_id = run_id_of(push.source, key)
        push.attempt = uuid.uuid4().hex[:8]
    return push


def told_by(answer: Callable[[Request, ProblemError], Response]) -> type[APIRoute]:
    """Routes that tell problems as their protocol does."""

    class ToldRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def told(request: Request) -> Response:
                try:
                    found: Response = await handle(request)
                except ProblemError as error:
                    return answer(request, error)
                return found

            return told

    return ToldRoute


def no_kafka(detail: str) -> ProblemError:
    return ProblemError(
        503,
        "Kafka is not reachable",
        f"{detail}; nothing was taken for sure: try again, with the same Idempotency-Key if you sent one",
        {"Retry-After": "2"},
    )


def _too_many(detail: str) -> ProblemError:
    metrics.PUSHES_REFUSED.inc()
    return ProblemError(429, "Too many pushes", detail, {"Retry-After": "1"})


def _check_size(size: int, limit: int, setting: str) -> None:
    if size > limit:
        raise ProblemError(
            413, "Body too large", f"at most {limit} bytes are taken ({setting}); send it in several pushes"
        )


def _announced(request: Request) -> int:
    """The size that the client says its body has; 0 where it says none."""
    length = request.headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise ProblemError(400, "Invalid Content-Length", f"{length!r} is no number of bytes")
    return int(length)
