"""GET /analytics/anomalies: what stands out, and why."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from processing.api.filters import EntryQuery, Where
from processing.api.paging import newest
from processing.api.values import Instant, OptionalText
from processing.store import Store
from shared.paging import Listing, Page
from shared.records import status_of


class Anomaly(BaseModel):
    """One reason why one entry stands out."""

    record_id: str = Field(description="The entry.")
    run_id: OptionalText
    timestamp: Instant = Field(description="When it happened.")
    observed_timestamp: Instant = Field(description="When raw-logs took it.")
    stored_at: Instant = Field(description="When it was stored.")
    service_name: str = Field(description="The source.")
    event_name: str = Field(description="The operation.")
    outcome: str
    status: str = Field(description="SUCCESS, FAILED, or the outcome in capitals.")
    reason: str = Field(description="Why it stands out.")
    value: float | None = Field(description="What was measured.")
    expected: float | None = Field(description="What would have been usual.")
    limit: float | None = Field(description="Beyond this it stands out.")
    unit: OptionalText = Field(description="Of value, expected and limit.")
    detail: OptionalText = Field(description="All of it in a sentence.")


class AnomalyPage(Listing):
    """Anomalies, the newest stored first."""

    anomalies: list[Anomaly]


class AnomalyQuery(EntryQuery, Page):
    """Filters and page of anomalies."""

    reason: str | None = Field(None, description="Only anomalies for this reason.")

    def where(self, time: str = "timestamp") -> Where:
        where = super().where(time)
        return where if self.reason is None else where.and_("reason = {reason:String}", reason=self.reason)


def anomalies(store: Store, query: AnomalyQuery) -> AnomalyPage:
    """A page of anomalies, the newest stored first."""
    found = newest(store, "anomalies", "anomalies", query.where(), query)
    shown = [Anomaly(status=status_of(row["outcome"]), **row) for row in found.rows]
    return AnomalyPage(total=found.total, anomalies=shown, next_cursor=found.next_cursor)


def router(store: Store) -> APIRouter:
    """The route, on this store."""
    routes = APIRouter(tags=["analytics"])

    @routes.get("/analytics/anomalies")
    def list_anomalies(query: Annotated[AnomalyQuery, Query()]) -> AnomalyPage:
        """Failures, long durations, high memory: each with its reason and the value expected."""
        return anomalies(store, query)

    return routes
