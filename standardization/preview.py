"""What would become of an entry: its record, or the reason why there is none. Nothing is written or learned."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from shared.config import Settings
from shared.errors import DeclarationError
from shared.frames import entries
from shared.records import timestamp_of
from shared.service import Problem, ProblemError
from standardization.declared import Mappings
from standardization.mapping import Arrival
from standardization.mappings import read_mappings
from standardization.redaction import Redaction
from standardization.standardize import Standardizer

MAX_BYTES: Final = 1024 * 1024
MAX_MAPPING: Final = 32 * 1024  # characters: YAML is slow to read, and a preview runs beside the stage
_BYTES: Final = {"type": "string", "format": "binary"}
TRIAL: Final = "application/vnd.sluice.preview+json"
RECORD_ID: Final = "00000000-0-0-0"  # of an entry that lies nowhere


class Trial(BaseModel):
    """An entry, and a mapping to read it by."""

    model_config = ConfigDict(extra="forbid")

    entry: str = Field(description="The entry's text.")
    content_type: str | None = Field(None, max_length=1_024, description="The entry's type, as in raw-logs.")
    source: str | None = Field(None, max_length=1_024, description="The declared source.")
    mapping: str | None = Field(
        None,
        max_length=MAX_MAPPING,
        description="YAML as in a file of MAPPINGS_DIR, in place of the active mappings; null: these.",
    )


class Refusal(BaseModel):
    """Why the entry would become a dead letter."""

    reason: str
    detail: str = Field(description="What was wrong and what to do.")


class Preview(BaseModel):
    """One of the two is null."""

    record: dict[str, Any] | None = Field(description="The record or GPU sample as it would be on standardized-logs.")
    dead_letter: Refusal | None


def preview(
    entry: bytes,
    content_type: str | None,
    source: str | None,
    now: datetime,
    settings: Settings,
    redaction: Redaction | None,
    mappings: Mappings,
) -> Preview:
    """What would become of the entry, if it came now. Raises ProblemError where the bytes are not one entry."""
    lines = entries(entry, content_type)
    if len(lines) != 1:
        raise ProblemError(422, "Not one entry", f"the body holds {len(lines)} entries; a preview is of one")
    at_ms = int(now.timestamp() * 1000)
    arrival = Arrival(timestamp_of(at_ms * 1_000_000), source, at_ms=at_ms)
    # one of its own, so that a preview teaches the stage no shapes and no templates
    standardizer = Standardizer(
        settings.parse_max_bytes, settings.record_max_bytes, redaction=redaction, mappings=mappings
    )
    found = standardizer.entries(content_type, lines, [RECORD_ID], [arrival])
    standardizer.redactions()  # they are no redactions of what is stored
    for bad in found.rejected:
        return Preview(record=None, dead_letter=Refusal(reason=bad.reason, detail=bad.detail))
    ((_, line),) = [*found.records, *found.samples]
    return Preview(record=msgspec.json.decode(line), dead_letter=None)


def router(
    settings: Settings,
    redaction: Redaction | None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    active: Callable[[], Mappings] = Mappings,
) -> APIRouter:
    """The route; `redaction` is its own, `active` are the mappings in use."""
    routes = APIRouter(prefix="/standardization", tags=["standardization"])

    @routes.post(
        "/preview",
        responses={413: {"model": Problem}, 422: {"model": Problem}},
        openapi_extra={
            "requestBody": {
                "required": False,
                "content": {"*/*": {"schema": _BYTES}, TRIAL: {"schema": Trial.model_json_schema()}},
            }
        },
    )
    async def preview_entry(
        request: Request,
        source: Annotated[str | None, Query(max_length=1_024, description="The declared source.")] = None,
        content_type: Annotated[
            str | None, Header(max_length=1_024, description="The entry's type, as in raw-logs.")
        ] = None,
    ) -> Preview:
        """The record that the body would become, or why it would be a dead letter; nothing is written.

        A body of type application/vnd.sluice.preview+json holds the entry, and a mapping to try.
        """
        entry = await _read(request.stream())
        mappings = active()
        if (content_type or "").partition(";")[0].strip().lower() == TRIAL:
            trial = _trial(entry)
            entry, content_type, source = (
                trial.entry.encode(errors="replace"),
                trial.content_type,
                trial.source or source,
            )
            if trial.mapping is not None:
                mappings = await run_in_threadpool(_tried, trial.mapping)
        return await run_in_threadpool(preview, entry, content_type, source, clock(), settings, redaction, mappings)

    return routes


def _trial(body: bytes) -> Trial:
    try:
        return Trial.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in found["loc"]) or "the body"
        raise ProblemError(422, "Invalid request", f"{where}: {found['msg']}") from None


def _tried(text: str) -> Mappings:
    """The mappings of a text that was sent to be tried."""
    try:
        return read_mappings({"mapping": text})
    except DeclarationError as error:
        raise ProblemError(422, "Not a usable mapping", str(error)) from None


async def _read(stream: AsyncIterator[bytes]) -> bytes:
    read = bytearray()
    async for piece in stream:
        read += piece
        if len(read) > MAX_BYTES:
            raise ProblemError(413, "Content too large", f"a preview takes an entry of up to {MAX_BYTES} bytes")
    return bytes(read)
