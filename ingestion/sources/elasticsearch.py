"""Elasticsearch's _bulk, as its clients and shippers send it: documents to be created or indexed become entries.

A document's bytes stay; its index, and its id if it has one, are put before its own keys. Nothing is updated or
deleted: raw-logs only grows.
https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk
"""

import time
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ingestion.intake import RUN_HEADER, Intake, KeyHeader, told_by
from shared.config import Settings
from shared.service import ProblemError

VERSION: Final = "9.0.0"  # whose _bulk this follows
PRODUCT: Final = {"X-Elastic-Product": "Elasticsearch"}  # without it the official clients refuse to talk
ACTIONS_MAX: Final = 50_000  # of a request: each needs many times its bytes in memory
_WITH_DOCUMENT: Final = frozenset({"create", "index", "update"})
_ACTIONS: Final = _WITH_DOCUMENT | {"delete"}


class _Target(msgspec.Struct):
    """What an action says of its document."""

    index: str | None = msgspec.field(default=None, name="_index")
    id: str | int | None = msgspec.field(default=None, name="_id")


_action: Final = msgspec.json.Decoder(dict[str, _Target])
_document: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True)
class Item:
    """One action, and what became of it."""

    action: str
    index: str
    id: str | None
    status: int = 201
    error: dict[str, str] | None = None

    def told(self, number: int, run_id: str) -> dict[str, Any]:
        named = {"_index": self.index, "_id": self.id if self.id is not None else f"{run_id}-{number}"}
        if self.error is not None:
            return {self.action: named | {"status": self.status, "error": self.error}}
        done = {
            "_version": 1,
            "result": "created",
            "_shards": {"total": 1, "successful": 1, "failed": 0},
            "_seq_no": number,
            "_primary_term": 1,
            "status": self.status,
        }
        return {self.action: named | done}


@dataclass(frozen=True)
class Bulk:
    """The documents of a body as entries, and an item for each action."""

    entries: list[bytes] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    @property
    def unique(self) -> bool:
        return all(item.id is not None for item in self.items)


def bulk_of(body: bytes, index: str | None, entry_max: int) -> Bulk:
    """Take a body apart; `index` is the path's. Raises a 400 where actions and documents can't be told apart."""
    bulk = Bulk()
    lines = iter(enumerate(body.split(b"\n"), 1))
    for number, line in lines:
        if not line.strip():
            continue
        action, target = _read_action(line, number)
        wanted = target.index if target.index is not None else index
        if not wanted:
            raise _malformed(f"line {number}: the action names no _index, and the path neither")
        document = next(lines, (0, b""))[1].strip() if action in _WITH_DOCUMENT else b""
        item = Item(action, wanted, None if target.id is None else str(target.id))
        refused: Item | None
        if action not in {"create", "index"}:
            refused = _error(item, 400, "illegal_argument_exception", f"[{action}] is not possible: logs only grow")
        else:
            refused = _fault(item, document, entry_max)
        bulk.items.append(refused or item)
        if len(bulk.items) > ACTIONS_MAX:
            raise ProblemError(413, "Body too large", f"over {ACTIONS_MAX} actions; send fewer in a request")
        if refused is None:
            bulk.entries.append(_entry(item, document))
    if not bulk.items:
        raise _malformed("request body is required")
    return bulk


def _read_action(line: bytes, number: int) -> tuple[str, _Target]:
    try:
        found = _action.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(f"line {number} is no action: {error}") from error
    action = next(iter(found), "")
    if len(found) != 1 or action not in _ACTIONS:
        raise _malformed(f"line {number} is no action: expected one of [create, delete, index, update]")
    return action, found[action]


def _fault(item: Item, document: bytes, entry_max: int) -> Item | None:
    """The item with its error, if the document can't be an entry."""
    if len(document) > entry_max:
        return _error(item, 413, "illegal_argument_exception", f"over {entry_max} bytes (ENTRY_MAX_BYTES)")
    try:
        _document.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _error(item, 400, "document_parsing_exception", f"no JSON object: {error}")
    return None


def _error(item: Item, status: int, kind: str, reason: str) -> Item:
    return Item(item.action, item.index, item.id, status, {"type": kind, "reason": reason})


def _entry(item: Item, document: bytes) -> bytes:
    """The document with where it belongs, its own bytes untouched."""
    where = {"elasticsearch.index": item.index} | ({} if item.id is None else {"elasticsearch.id": item.id})
    rest = document[1:].lstrip()
    return msgspec.json.encode(where)[:-1] + (b"}" if rest == b"}" else b"," + rest)


def _malformed(detail: str) -> ProblemError:
    return ProblemError(400, "illegal_argument_exception", f"Malformed bulk request: {detail}")


def router(settings: Settings, intake: Intake) -> APIRouter:
    routes = APIRouter(tags=["Elasticsearch"], route_class=told_by(_failure))
    body: dict[str, Any] = {
        "responses": {
            code: {"description": "An error of Elasticsearch's form."}
            for code in (400, 401, 408, 413, 415, 422, 429, 503)
        },
        "openapi_extra": {
            "requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}
        },
    }

    async def bulk(request: Request, index: str | None) -> Response:
        begun = time.monotonic()
        found, receipt = await intake.take(request, lambda data: bulk_of(data, index, settings.entry_max_bytes))
        run_id = receipt.run_id if receipt else ""
        answer = {
            "took": int((time.monotonic() - begun) * 1000),
            "errors": any(item.error for item in found.items),
            "items": [item.told(number, run_id) for number, item in enumerate(found.items)],
        }
        return JSONResponse(answer, headers=PRODUCT | ({RUN_HEADER: run_id} if run_id else {}))

    @routes.get("/", response_class=JSONResponse)
    @routes.head("/", response_class=JSONResponse, include_in_schema=False)
    async def about() -> Response:
        """What an Elasticsearch client asks first: who is there."""
        return JSONResponse(
            {
                "name": "sluice",
                "cluster_name": "sluice",
                "version": {"number": VERSION, "build_flavor": "default"},
                "tagline": "You Know, for Search",
            },
            headers=PRODUCT,
        )

    @routes.put("/_bulk", response_class=JSONResponse, **body)
    @routes.post("/_bulk", response_class=JSONResponse, **body)
    async def bulk_of_any(request: Request, idempotency_key: KeyHeader = None) -> Response:  # noqa: ARG001 - intake reads it
        """Elasticsearch's _bulk: documents to create or index. Answers once Kafka has them, item by item."""
        return await bulk(request, None)

    @routes.put("/{index}/_bulk", response_class=JSONResponse, **body)
    @routes.post("/{index}/_bulk", response_class=JSONResponse, **body)
    async def bulk_of_index(
        request: Request,
        index: str,
        idempotency_key: KeyHeader = None,  # noqa: ARG001 - intake reads it
    ) -> Response:
        """The same; the path names the index of actions that name none."""
        return await bulk(request, index)

    return routes


def _failure(_: Request, error: ProblemError) -> Response:
    kinds = {401: "security_exception", 429: "es_rejected_execution_exception", 503: "unavailable_shards_exception"}
    kind = error.title if error.title.endswith("_exception") else kinds.get(error.status, "illegal_argument_exception")
    cause = {"type": kind, "reason": error.detail}
    return JSONResponse(
        {"error": {"root_cause": [cause], **cause}, "status": error.status}, error.status, error.headers | PRODUCT
    )
