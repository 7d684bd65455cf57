"""GET /analytics/recent and GET /records/{record_id}: stored records as they are."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from processing.api.filters import EntryQuery
from processing.api.paging import newest
from processing.api.values import Fields, Instant, OptionalText
from processing.store import Store
from shared.paging import Listing, Page
from shared.records import status_of
from shared.service import Problem, ProblemError


class StoredRecord(BaseModel):
    """A standardized record with its metrics. Base units: seconds, bytes."""

    record_id: str = Field(description="Where the entry lies: topic, partition, offset and index in the frame.")
    run_id: OptionalText = Field(description="The ingest run that brought it.")
    origin: OptionalText = Field(description="The first record_id, when this is a replay.")
    timestamp: Instant = Field(description="When it happened.")
    observed_timestamp: Instant = Field(description="When raw-logs took it.")
    stored_at: Instant = Field(description="When it was stored.")
    service_name: str = Field(description="The source.")
    event_name: str = Field(description="The operation.")
    outcome: str = Field(description="How it ended.")
    status: str = Field(description="SUCCESS, FAILED, or the outcome in capitals.")
    severity_number: int
    severity_text: str
    body: OptionalText = Field(description="The message.")
    duration_s: float | None = Field(description="Seconds.")
    memory_bytes: int | None
    rows: int | None = Field(description="Rows, items or records that the entry says it handled.")
    transfer_bytes: int | None = Field(description="Bytes that the entry says it moved.")
    efficiency: float | None = Field(description="0 to 100.")
    rows_per_s: float | None
    bytes_per_s: float | None
    anomalies: list[str] = Field(description="Why it stands out; empty when it does not.")
    trace_id: OptionalText
    span_id: OptionalText
    resource: Fields = Field(description="What emitted it.")
    attributes: Fields = Field(description="Everything else that the entry held.")
    truncated_fields: list[str] = Field(description="Fields that were cut to fit; /records/{record_id}/raw has them.")
    original_bytes: int | None = Field(description="Size of the original, where it was cut or not parsed.")


class RecordPage(Listing):
    """Records, the newest stored first."""

    records: list[StoredRecord]


class RecordQuery(EntryQuery, Page):
    """Filters and page of records."""


def recent(store: Store, query: RecordQuery) -> RecordPage:
    """A page of records, the newest stored first."""
    found = newest(store, "records", "records", query.where(), query)
    return RecordPage(total=found.total, records=[_shown(row) for row in found.rows], next_cursor=found.next_cursor)


def find(store: Store, record_id: str) -> StoredRecord:
    """The record with this identity. Raises ProblemError (404)."""
    rows = store.query("SELECT * FROM records WHERE record_id = {record_id:String} LIMIT 1", {"record_id": record_id})
    if not rows:
        raise ProblemError(
            404,
            "Not found",
            f"no record {record_id} is stored: it may still be on its way, or be among /dead-letters",
        )
    return _shown(rows[0])


def _shown(row: dict[str, Any]) -> StoredRecord:
    return StoredRecord(status=status_of(row["outcome"]), **row)


def router(store: Store) -> APIRouter:
    """The routes, on this store."""
    routes = APIRouter()

    @routes.get("/analytics/recent", tags=["analytics"])
    def recent_records(query: Annotated[RecordQuery, Query()]) -> RecordPage:
        """The newest stored first."""
        return recent(store, query)

    @routes.get("/records/{record_id}", tags=["records"], responses={404: {"model": Problem}})
    def record(record_id: Annotated[str, PathParameter(description="The record's identity.")]) -> StoredRecord:
        """One record, by its identity."""
        return find(store, record_id)

    return routes
