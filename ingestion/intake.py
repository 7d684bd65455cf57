"""How a push is taken, whatever its protocol: bounds first, then its body, then its transaction.

    request -> admitted? -> body, unpacked > entries -> push -> receipt

What can't be taken now is refused before memory grows (429, 503, with Retry-After), so that the client keeps it.
"""

import asyncio
import hashlib
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, Final, Protocol, TypeVar

from fastapi import Header, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from ingestion.entries import MalformedBodyError, Source, UnreadableSourceError
from ingestion.gate import Gate, Sender
from ingestion.ingest import BusyError, EntryTooLargeError, Ingest, Push, Shape, new_run_id, run_id_of
from ingestion.unpacking import (
    PUSH_WINDOW,
    PackedWronglyError,
    Unpacker,
    UnpacksTooLargeError,
    packing_of,
    unpacked,
)
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

    def __init__(
        self, settings: Settings, ingest: Ingest, spool: Spool, gate: Gate, kafka_reachable: Callable[[], bool]
    ) -> None:
        self.recent = RecentReceipts()
        self._settings = settings
        self._ingest = ingest
        self._spool = spool
        self._gate = gate
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

    async def receive(self, request: Request, sender: Sender, limit: int) -> Entry:
        """The body, spooled and unpacked as it comes. Raises a ProblemError: too large, too slow, cut off, ..."""
        body = self._spool.create(_IN_MEMORY)
        begun = time.monotonic()
        try:
            async for piece in self._plain(request, sender, limit, "BODY_MAX_BYTES"):
                body.append(piece)
        except BaseException as error:
            body.release()
            if isinstance(error, SpoolFullError):
                raise ProblemError(507, "No room", str(error), {"Retry-After": "5"}) from error
            raise
        log.debug("received", bytes=body.size, seconds=round(time.monotonic() - begun, 3))
        return body

    def sender(self, request: Request, named: str | None = None) -> Sender:
        """Who pushes, naming this source or none. Raises a ProblemError where that may not be, or not now."""
        return self._gate.admit(request, named)

    async def unpacked(self, source: Source) -> Source:
        """A file's bytes, unpacked if they are packed; what it was is released then, and after a ProblemError."""
        limit = self._settings.body_max_bytes
        with ExitStack() as leaving:
            leaving.callback(source.release)
            try:
                packing = packing_of(source.read(0, 8))
                if packing is not None:
                    return await asyncio.to_thread(unpacked, source, packing, self._spool, limit, "BODY_MAX_BYTES")
            except PackedWronglyError as error:
                raise ProblemError(422, "Packed wrongly", str(error)) from error
            except UnpacksTooLargeError as error:
                raise ProblemError(413, "File too large", str(error)) from error
            except UnreadableSourceError as error:
                raise ProblemError(409, "Not readable to its end", str(error)) from error
            except SpoolFullError as error:
                raise ProblemError(507, "No room", str(error), {"Retry-After": "5"}) from error
            leaving.pop_all()
        return source

    async def take(self, request: Request, split: Callable[[bytes], P]) -> tuple[P, Receipt | None]:
        """A push of a protocol whose body `split` takes apart: what it held, and the receipt if there was any entry.

        Either all of the entries are taken or, with a ProblemError, none. `split` runs in a thread of its own.
        """
        key = idempotency_key(request.headers.get("idempotency-key"))
        sender = self.sender(request)
        with self.admitted() as held:
            data = await self._unpacked(request, sender, held)
            async with self._parsing:
                parsed = await asyncio.to_thread(split, data)
            if not parsed.entries:
                return parsed, None
            return parsed, await self.write(self._push(parsed, key, sender), sender)

    async def _unpacked(self, request: Request, sender: Sender, held: Held) -> bytes:
        """The body in memory, without its Content-Encoding; never more than PUSH_MAX_BYTES of it."""
        limit = self._settings.push_max_bytes
        pieces: list[bytes] = []
        # snappy is Loki's, within its protobuf
        async for piece in self._plain(request, sender, limit, "PUSH_MAX_BYTES", ("identity", "", "snappy")):
            held.take(len(piece))
            if piece:
                pieces.append(piece)
        return b"".join(pieces)

    async def _plain(
        self, request: Request, sender: Sender, limit: int, setting: str, passes: Sequence[str] = ("identity", "")
    ) -> AsyncIterator[bytes]:
        """The body as it comes, without its Content-Encoding, in pieces of a block at most; a 413 beyond the limit.

        What comes is booked on its sender, whatever becomes of the body.
        """
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        unpacker = None if encoding in passes else _unpacker(encoding, limit, setting)
        _check_size(_announced(request), limit, setting)
        size = 0
        async for piece in self._pieces(request):
            size += len(piece)
            if unpacker is None:
                sender.sent(len(piece))
                _check_size(size, limit, setting)
                yield piece
                continue
            _check_size(size, limit, setting)  # what unpacks to nothing could come without end
            before = unpacker.out
            try:
                with unpacking():
                    for plain in unpacker.feed(piece):
                        yield plain
                        await asyncio.sleep(0)  # a small piece may unpack to many blocks: others have their turn
            finally:
                sender.sent(unpacker.out - before)
        if unpacker is not None:
            with unpacking():
                unpacker.end()

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

    def _push(self, parsed: Parsed, key: str | None, sender: Sender) -> Push:
        """Few clients of these protocols can send a key with a retry, so what can only be a retry counts once, too."""
        lines = b"\n".join(parsed.entries)
        body = self._spool.create(_IN_MEMORY)
        try:
            body.append(lines)
        except SpoolFullError as error:
            body.release()
            raise ProblemError(503, "No room", str(error), {"Retry-After": "5"}) from error
        push = Push(body, Shape.NDJSON, new_run_id(), sender.source, keyed_by=sender.keyed_by, host=sender.host)
        if key is None and parsed.unique:
            push = keyed(push, hashlib.sha256(lines).hexdigest())
            push.attempt = f"{BRIEFLY}{push.attempt}"
            return push
        return keyed(push, key)

    async def write(self, push: Push, sender: Sender | None = None) -> Receipt:
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
        if sender is not None and sender.declared is not None:
            sender.declared.taken(receipt)
        log.info("ingested", run_id=receipt.run_id, source=receipt.source, entries=receipt.entries, bytes=receipt.bytes)
        return receipt


def _unpacker(encoding: str, limit: int, setting: str) -> Unpacker:
    """What unpacks a body of this Content-Encoding. Raises a 415."""
    match encoding:
        case "gzip" | "zstd":
            return Unpacker(encoding, limit, setting, PUSH_WINDOW)
    raise ProblemError(
        415,
        "Unsupported encoding",
        f"Content-Encoding is {encoding!r}; send gzip, zstd or none",
        {"Accept-Encoding": "gzip, zstd"},
    )


@contextmanager
def unpacking() -> Iterator[None]:
    """What is wrong with packed bytes, as a ProblemError."""
    try:
        yield
    except PackedWronglyError as error:
        raise ProblemError(400, "Packed wrongly", f"the body is not what its Content-Encoding says: {error}") from error
    except UnpacksTooLargeError as error:
        raise ProblemError(413, "Body too large", f"{error}; send it in several pushes") from error


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
