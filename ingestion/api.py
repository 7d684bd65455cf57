"""Ingestion's HTTP API: push entries, trigger a file, ask for receipts."""

import asyncio
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, FastAPI, Header, Query, Request
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from ingestion.entries import MalformedBodyError, UnreadableSourceError
from ingestion.ingest import (
    JSON,
    BusyError,
    EntryTooLargeError,
    Ingest,
    Push,
    Shape,
    new_run_id,
    run_id_of,
    shape_of,
    shape_of_file,
)
from ingestion.sources.file import FileRefusedError, open_file
from shared import logs
from shared.config import Settings
from shared.errors import KafkaUnavailableError, SpoolFullError
from shared.records import Receipt
from shared.service import Problem, ProblemError
from shared.spool import Entry, Spool
from shared.topics import NDJSON

log = logs.logger("ingestion.api")

CSV = "text/csv"
_TYPES = {
    JSON: True,
    NDJSON: False,
    "application/ndjson": False,
    "application/jsonl": False,
    "application/json-lines": False,
}
_SOURCE_MAX = 200
_KEY_MAX = 255
_PRINTABLE = r"^\P{Cc}+$"  # no control characters: it becomes a header, a key and a label
_LENGTH = re.compile(r"[0-9]{1,18}")
_IN_MEMORY = 4 * 1024 * 1024  # a body up to this stays in memory


class Accepted(BaseModel):
    """What Kafka has acknowledged."""

    run_id: str = Field(description="Ask /ingest/runs/{run_id} what became of it.")
    accepted: int = Field(description="Entries written to raw-logs.")
    bytes: int = Field(description="Size of the body.")


class Triggered(Accepted):
    """Likewise, of a file."""

    file: str


class Run(BaseModel):
    """A receipt: accepted = stored + dead_lettered + in_flight, always."""

    run_id: str
    source: str | None = None
    file: str | None = None
    time: str | None = Field(None, description="When ingestion wrote it, RFC 3339 UTC.")
    accepted: int
    stored: int
    dead_lettered: int
    in_flight: int
    complete: bool = Field(description="Whether nothing is in flight.")


class Runs(BaseModel):
    """Newest first."""

    total: int
    runs: list[Run]
    next_cursor: str | None = None


class RecentReceipts:
    """Receipts that the store may not have yet."""

    def __init__(self, limit: int = 1_000) -> None:
        self._limit = limit
        self._receipts: OrderedDict[str, Receipt] = OrderedDict()

    def add(self, receipt: Receipt) -> None:
        self._receipts[receipt.run_id] = receipt
        while len(self._receipts) > self._limit:
            self._receipts.popitem(last=False)

    def run(self, run_id: str) -> Run | None:
        receipt = self._receipts.get(run_id)
        if receipt is None:
            return None
        return Run(
            run_id=run_id,
            source=receipt.source,
            file=receipt.file,
            time=receipt.time,
            accepted=receipt.entries,
            stored=0,
            dead_lettered=0,
            in_flight=receipt.entries,
            complete=False,
        )


def router(settings: Settings, ingest: Ingest, spool: Spool, kafka_reachable: Callable[[], bool]) -> APIRouter:
    recent = RecentReceipts()
    processing = settings.processing_url or f"http://127.0.0.1:{settings.processing_port}"
    # a proxy of the environment is for the world outside, not for our own services
    client = httpx.AsyncClient(base_url=processing, timeout=10.0, trust_env=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    routes = APIRouter(tags=["ingestion"], lifespan=lifespan)

    async def write(push: Push) -> Receipt:
        try:
            receipt = await asyncio.shield(asyncio.wrap_future(ingest.submit(push)))
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
            raise _no_kafka(str(error)) from error
        recent.add(receipt)
        log.info("ingested", run_id=receipt.run_id, source=receipt.source, entries=receipt.entries, bytes=receipt.bytes)
        return receipt

    async def trigger(file: str) -> Triggered:
        if not kafka_reachable():
            raise _no_kafka("no broker answers")
        try:
            source = open_file(settings.ingest_dir, file)
        except FileRefusedError as error:
            raise ProblemError(404, "No such file", str(error)) from error
        try:
            shape = shape_of_file(source, file)
        except UnreadableSourceError as error:
            source.release()
            raise ProblemError(409, "Not readable to its end", str(error)) from error
        receipt = await write(Push(source, shape, new_run_id(), file=file))
        return Triggered(run_id=receipt.run_id, file=file, accepted=receipt.entries, bytes=receipt.bytes)

    problems: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (404, 409, 413, 422, 503)}
    named = Annotated[
        str,
        Query(
            description="Name of a file under the ingest folder. A .json holds an array or one object; .ndjson, .jsonl "
            "and .log hold lines, a .csv rows under a header; any other is an array where it begins with '[', else "
            "lines.",
            max_length=1024,
        ),
    ]

    @routes.get("/ingest/trigger", responses=problems)
    async def trigger_by_get(file: named = "logs.json") -> Triggered:
        """Ingest a file: logs.json, or another under the ingest folder. Answers once Kafka has it."""
        return await trigger(file)

    @routes.post("/ingest/trigger", responses=problems)
    async def trigger_by_post(file: named = "logs.json") -> Triggered:
        """Ingest a file: logs.json, or another under the ingest folder. Answers once Kafka has it."""
        return await trigger(file)

    @routes.post(
        "/ingest",
        responses={code: {"model": Problem} for code in (400, 413, 415, 422, 503, 507)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {"schema": {"oneOf": [{"type": "object"}, {"type": "array", "items": {}}]}},
                    NDJSON: {"schema": {"type": "string", "description": "One JSON object a line."}},
                    CSV: {"schema": {"type": "string", "description": "A header, then one entry a row."}},
                },
            }
        },
    )
    async def push_entries(
        request: Request,
        source: Annotated[
            str | None,
            Query(
                description="The source of entries that name none; no control characters.",
                min_length=1,
                max_length=_SOURCE_MAX,
                pattern=_PRINTABLE,
            ),
        ] = None,
        idempotency_key: Annotated[
            str | None,
            Header(
                description="Makes a retry safe: pushes of the same source and key count once, for 24 hours; the first "
                "body counts."
            ),
        ] = None,
        content_type: Annotated[
            str | None, Header(description="application/json, application/x-ndjson or text/csv.")
        ] = None,
    ) -> Accepted:
        """Ingest a JSON object, an array of them, NDJSON or CSV: all of it or nothing. Answers once Kafka has it."""
        kind = _kind(content_type)
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ProblemError(415, "Unsupported encoding", "send the body without Content-Encoding")
        if idempotency_key is not None and not 0 < len(idempotency_key) <= _KEY_MAX:
            raise ProblemError(422, "Invalid Idempotency-Key", f"it has 1 to {_KEY_MAX} characters")
        _check_size(_announced(request), settings.body_max_bytes)
        if not kafka_reachable():
            raise _no_kafka("no broker answers")
        body = spool.create(_IN_MEMORY)
        try:
            await _receive(request, body, settings.body_max_bytes)
            shape = Shape.CSV if kind == CSV else shape_of(body, json=_TYPES[kind])
            push = Push(body, shape, new_run_id(), source)
        except BaseException:
            body.release()
            raise
        if idempotency_key is not None:
            push.run_id = run_id_of(source, idempotency_key)
            push.attempt = uuid.uuid4().hex[:8]
        receipt = await write(push)
        return Accepted(run_id=receipt.run_id, accepted=receipt.entries, bytes=receipt.bytes)

    async def ask(path: str, query: dict[str, str]) -> httpx.Response:
        try:
            return await client.get(path, params=query)
        except httpx.HTTPError as error:
            raise ProblemError(
                503,
                "Receipts are not at hand",
                f"processing, which keeps them, does not answer at {processing}: {error!r}",
                {"Retry-After": "2"},
            ) from error

    @routes.get("/ingest/runs", responses={503: {"model": Problem}})
    async def runs(
        limit: Annotated[int, Query(ge=1, le=1_000, description="How many.")] = 50,
        cursor: Annotated[str | None, Query(description="next_cursor of the page before.", max_length=512)] = None,
    ) -> Runs:
        """The runs and what became of them, newest first."""
        answer = await ask("/runs", {"limit": str(limit)} | ({"cursor": cursor} if cursor else {}))
        if answer.status_code != 200:
            raise _relayed(answer)
        return Runs.model_validate_json(answer.content)

    @routes.get("/ingest/runs/{run_id}", responses={404: {"model": Problem}, 503: {"model": Problem}})
    async def run(run_id: str) -> Run:
        """What became of a run: of the entries accepted, how many are stored, dead-lettered and in flight."""
        if not (run_id.isascii() and run_id.isalnum()) or len(run_id) > 64:
            raise ProblemError(404, "No such run", "a run id has up to 64 letters and digits")
        answer = await ask(f"/runs/{run_id}", {})
        if answer.status_code == 200:
            return Run.model_validate_json(answer.content)
        known = recent.run(run_id) if answer.status_code == 404 else None
        if known is None:
            raise _relayed(answer)
        return known

    return routes


def _kind(content_type: str | None) -> str:
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind in _TYPES or kind == CSV:
        return kind
    raise ProblemError(
        415,
        "Unsupported media type",
        f"Content-Type is {kind or 'missing'!r}; send application/json (an object or an array), application/x-ndjson "
        "(one object a line) or text/csv (a header, then one entry a row)",
        {"Accept": f"{JSON}, {NDJSON}, {CSV}"},
    )


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ProblemError(
            413, "Body too large", f"at most {limit} bytes are taken (BODY_MAX_BYTES); send it in several pushes"
        )


def _announced(request: Request) -> int:
    """The size that the client says its body has; 0 where it says none."""
    length = request.headers.get("content-length", "0")
    if not _LENGTH.fullmatch(length):
        raise ProblemError(400, "Invalid Content-Length", f"{length!r} is no number of bytes")
    return int(length)


async def _receive(request: Request, body: Entry, limit: int) -> None:
    begun = time.monotonic()
    try:
        async for piece in request.stream():
            _check_size(body.size + len(piece), limit)
            body.append(piece)
    except SpoolFullError as error:
        raise ProblemError(507, "No room", str(error), {"Retry-After": "5"}) from error
    except ClientDisconnect as error:  # nobody reads this answer, but the metrics count it
        raise ProblemError(400, "Body cut off", f"the client left after {body.size} bytes") from error
    log.debug("received", bytes=body.size, seconds=round(time.monotonic() - begun, 3))


def _no_kafka(detail: str) -> ProblemError:
    return ProblemError(
        503,
        "Kafka is not reachable",
        f"{detail}; nothing was taken for sure: try again, with the same Idempotency-Key if you sent one",
        {"Retry-After": "2"},
    )


def _relayed(answer: httpx.Response) -> ProblemError:
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValueError:
        return ProblemError(503, "Receipts are not at hand", f"processing answered {answer.status_code}")
    return ProblemError(answer.status_code, problem.title, problem.detail)
