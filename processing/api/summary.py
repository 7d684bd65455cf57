"""GET /analytics/summary: what is stored, at a glance."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from processing.api.counts import counts
from processing.api.filters import EntryQuery, Where
from processing.api.values import Instant
from processing.store import Store
from shared.records import SUCCESS, status_of

_TOP: Final = 5

# quantilesDD: relative error at most its first parameter
_MEASURES: Final = """
SELECT
  count(duration_s) AS durations, avg(duration_s) AS duration_mean, max(duration_s) AS duration_max,
  quantilesDD(0.005, 0.5, 0.9, 0.95, 0.99)(duration_s) AS duration_quantiles,
  count(memory_bytes) AS memories, avg(memory_bytes) AS memory_mean, max(memory_bytes) AS memory_max,
  quantilesDD(0.005, 0.5, 0.9, 0.95, 0.99)(memory_bytes) AS memory_quantiles,
  count(efficiency) AS efficiencies, avg(efficiency) AS efficiency_mean, min(efficiency) AS efficiency_min,
  quantilesDD(0.005, 0.5)(efficiency) AS efficiency_quantiles,
  minOrNull(timestamp) AS first_timestamp, maxOrNull(timestamp) AS last_timestamp
FROM records {where}
"""

_EXTREMES: Final = """
SELECT
  service_name AS source, event_name AS operation, count() AS entries, max({measure}) AS most,
  argMax((record_id, duration_s, memory_bytes), {measure}) AS entry
FROM records {where}
GROUP BY service_name, event_name
HAVING isNotNull(most)
ORDER BY most DESC, source, operation
LIMIT {top}
"""


class Durations(BaseModel):
    """Durations in seconds; null where no entry has one. Quantiles are within 1 %, the rest is exact."""

    count: int = Field(description="Entries that have a duration.")
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None


class Memory(BaseModel):
    """Memory in bytes; null where no entry has any. Quantiles are within 1 %, the rest is exact."""

    count: int = Field(description="Entries that have a memory use.")
    mean: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: int | None


class Efficiency(BaseModel):
    """Efficiency scores, 0 to 100; null where no entry has one."""

    count: int = Field(description="Entries that have a score.")
    mean: float | None
    p50: float | None
    min: float | None


class Extreme(BaseModel):
    """An operation, with the one entry of it that took longest or most."""

    source: str
    operation: str
    record_id: str = Field(description="That entry.")
    duration_seconds: float | None = Field(description="Its duration.")
    memory_bytes: int | None = Field(description="Its memory.")
    entries: int = Field(description="Entries of this operation.")


class Summary(BaseModel):
    """What is stored, at a glance."""

    total: int = Field(description="Entries.")
    by_source: dict[str, dict[str, int]] = Field(description="Entries by source and status.")
    by_status: dict[str, int] = Field(description="Entries by status: SUCCESS, FAILED, or the outcome in capitals.")
    success_rate: float | None = Field(description="Successes / entries, 0 to 1; null when there are none.")
    duration_seconds: Durations
    memory_bytes: Memory
    efficiency: Efficiency
    slowest: list[Extreme] = Field(description="The five operations with the longest entry, longest first.")
    heaviest: list[Extreme] = Field(description="The five operations with the heaviest entry, heaviest first.")
    first_timestamp: Instant | None = Field(description="When the earliest entry happened.")
    last_timestamp: Instant | None = Field(description="When the latest entry happened.")
    anomalies: int = Field(description="Anomalies found; an entry may have several.")


def summarize(store: Store, query: EntryQuery) -> Summary:
    """The summary of what the filters select."""
    where = query.where()
    found = counts(store, where)
    by_source: dict[str, dict[str, int]] = {}
    by_status: dict[str, int] = {}
    for (source, outcome), entries in sorted(found.items()):
        status = status_of(outcome)
        by_source.setdefault(source, {})[status] = entries
        by_status[status] = by_status.get(status, 0) + entries
    total = sum(found.values())
    (measured,) = store.query(_MEASURES.format(where=where), where.parameters)
    (anomalies,) = store.query(f"SELECT count() AS total FROM anomalies {where}", where.parameters)  # noqa: S608 - our own names
    return Summary(
        total=total,
        by_source=by_source,
        by_status=by_status,
        success_rate=by_status.get(status_of(SUCCESS), 0) / total if total else None,
        duration_seconds=Durations(
            count=measured["durations"],
            mean=measured["duration_mean"],
            max=measured["duration_max"],
            **_quantiles(measured["duration_quantiles"]),
        ),
        memory_bytes=Memory(
            count=measured["memories"],
            mean=measured["memory_mean"],
            max=measured["memory_max"],
            **_quantiles(measured["memory_quantiles"]),
        ),
        efficiency=Efficiency(
            count=measured["efficiencies"],
            mean=measured["efficiency_mean"],
            p50=measured["efficiency_quantiles"][0],
            min=measured["efficiency_min"],
        ),
        slowest=_extremes(store, where, "duration_s"),
        heaviest=_extremes(store, where, "memory_bytes"),
        first_timestamp=measured["first_timestamp"],
        last_timestamp=measured["last_timestamp"],
        anomalies=anomalies["total"],
    )


def _quantiles(values: list[float | None]) -> dict[str, Any]:
    return dict(zip(("p50", "p90", "p95", "p99"), values, strict=True))


def _extremes(store: Store, where: Where, measure: str) -> list[Extreme]:
    rows = store.query(_EXTREMES.format(where=where, measure=measure, top=_TOP), where.parameters)
    return [
        Extreme(
            source=row["source"],
            operation=row["operation"],
            record_id=row["entry"][0],
            duration_seconds=row["entry"][1],
            memory_bytes=row["entry"][2],
            entries=row["entries"],
        )
        for row in rows
    ]


def router(store: Store) -> APIRouter:
    """The route, on this store."""
    routes = APIRouter(tags=["analytics"])

    @routes.get("/analytics/summary")
    def summary(query: Annotated[EntryQuery, Query()]) -> Summary:
        """Totals by source and status, durations, memory, efficiency, and what stands out."""
        return summarize(store, query)

    return routes
