"""Ingestion's HTTP API: push entries, trigger a file, ask for receipts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, FastAPI, Header, Query, Request
from pydantic import BaseModel, Field

from ingestion.entries import Source, UnreadableSourceError
from ingestion.ingest import JSON, Push, Shape, new_run_id, shape_of, shape_of_file
from ingestion.intake import KEY_SCHEMA, Intake, keyed
from ingestion.intake import idempotency_key as usable_key
from ingestion.sources.file import FileRefusedError, open_file
from shared.config import Settings
from shared.records import Receipt
from shared.service import Problem, ProblemError
from shared.topics import NDJSON

CSV = "text/csv"
_TYPES = {
    JSON: True,
    NDJSON: False,
    "application/ndjson": False,
    "application/jsonl": False,
    "application/json-lines": False,
}
_SOURCE_MAX = 200
_PRINTABLE = r"^\P{Cc}+$"  # no control characters: it becomes a header, a key and a label


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


def router(settings: Settings, intake: Intake) -> APIRouter:
    processing = settings.processing_url or f"http://127.0.0.1:{settings.processing_port}"
    # a proxy of the environment is for the world outside, not for our own services
    client = httpx.AsyncClient(base_url=processing, timeout=10.0, trust_env=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    routes = APIRouter(tags=["ingestion"], lifespan=lifespan)

    async def trigger(file: str) -> Triggered:
        with intake.admitted():
            try:
                source: Source = open_file(settings.ingest_dir, file)
            except FileRefusedError as error:
                raise ProblemError(404, "No such file", str(error)) from error
            source = await intake.unpacked(source)
            try:
                shape = await asyncio.to_thread(shape_of_file, source, file)  # it may begin with a GiB of spaces
            except BaseException as error:
                source.release()
                if isinstance(error, UnreadableSourceError):
                    raise ProblemError(409, "Not readable to its end", str(error)) from error
                raise
            receipt = await intake.write(Push(source, shape, new_run_id(), file=file))
        return Triggered(run_id=receipt.run_id, file=file, accepted=receipt.entries, bytes=receipt.bytes)

    problems: dict[int | str, dict[str, Any]] = {
        code: {"model": Problem} for code in (404, 409, 413, 422, 429, 503, 507)
    }
    named = Annotated[
        str,
        Query(
            description="Name of a file under the ingest folder. A .json holds an array or one object; .ndjson, .jsonl "
            "and .log hold lines, a .csv or .tsv rows under a header; any other is an array where it begins with '[', "
            "else lines. What is packed with gzip or zstd is unpacked first; .gz and .zst do not count as endings.",
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
        responses={code: {"model": Problem} for code in (400, 401, 403, 408, 413, 415, 422, 429, 503, 507)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    JSON: {"schema": {"oneOf": [{"type": "object"}, {"type": "array", "items": {}, "minItems": 1}]}},
                    NDJSON: {"schema": {"type": "string", "pattern": r"\S", "description": "One JSON object a line."}},
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
                "body counts.",
                json_schema_extra=KEY_SCHEMA,
            ),
        ] = None,
        content_type: Annotated[str | None, Header(include_in_schema=False)] = None,  # the body's description has it
        content_encoding: Annotated[  # noqa: ARG001 - intake reads it
            str | None, Header(description="gzip or zstd, where the body is packed; sizes count unpacked.")
        ] = None,
    ) -> Accepted:
        """Ingest a JSON object, an array of them, NDJSON or CSV: all of it or nothing. Answers once Kafka has it."""
        sender = intake.sender(request, source)
        kind = _kind(content_type)
        key = usable_key(idempotency_key)
        with intake.admitted():
            body = await intake.receive(request, sender, settings.body_max_bytes)
            try:
                # in a thread, for it may begin with a GiB of spaces
                shape = Shape.CSV if kind == CSV else await asyncio.to_thread(shape_of, body, json=_TYPES[kind])
                push = Push(body, shape, new_run_id(), sender.source, keyed_by=sender.keyed_by, host=sender.host)
            except BaseException:
                body.release()
                raise
            receipt = await intake.write(keyed(push, key), sender)
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
        limit: Annotated[int, Query(ge=1, le=100, description="How many.")] = 20,
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
        known = intake.recent.get(run_id) if answer.status_code == 404 else None
        if known is None:
            raise _relayed(answer)
        return _in_flight(known)

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


def _in_flight(receipt: Receipt) -> Run:
    """A run of which the store has nothing yet."""
    return Run(
        run_id=receipt.run_id,
        source=receipt.source,
        file=receipt.file,
        time=receipt.time,
        accepted=receipt.entries,
        stored=0,
        dead_lettered=0,
        in_flight=receipt.entries,
        complete=False,
    )


def _relayed(answer: httpx.Response) -> ProblemError:
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValueError:
        return ProblemError(503, "Receipts are not at hand", f"processing answered {answer.status_code}")
    return ProblemError(answer.status_code, problem.title, problem.detail)
