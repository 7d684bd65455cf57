"""GET /analytics/windows: minute by minute, from mergeable sketches."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from processing.api.filters import SeriesQuery
from processing.api.paging import cut
from processing.api.values import Instant
from processing.store import Store
from processing.windows import quantile
from shared.paging import Listing, Page, after

_SERIES: Final = {
    "series": "service_name AS source, event_name AS operation",
    "source": "service_name AS source, '' AS operation",
    "all": "'' AS source, '' AS operation",
}

_MERGED: Final = """
SELECT
  minute, toInt64(minute) AS seconds, {series},
  sum(total) AS entries, sum(success) AS successes, sum(failure) AS failures, sum(other) AS others,
  sum(duration_count) AS durations, sum(duration_sum) AS duration_total, min(duration_min) AS duration_least,
  max(duration_max) AS duration_most, sumMap(duration_sketch) AS duration_buckets,
  sum(memory_count) AS memories, sum(memory_sum) AS memory_total, min(memory_min) AS memory_least,
  max(memory_max) AS memory_most, sumMap(memory_sketch) AS memory_buckets,
  sum(efficiency_count) AS scored, sum(efficiency_sum) AS efficiency_total,
  sum(rows) AS rows_total, sum(transfer_bytes) AS transfer_total
FROM windows {where}
GROUP BY minute, source, operation
{having}
ORDER BY minute DESC, source, operation
LIMIT {limit}
"""

_NUMBER: Final = "SELECT count() AS total FROM (SELECT minute, {series} FROM windows {where} GROUP BY ALL)"


class Distribution(BaseModel):
    """A measure within a window, in base units; null where no entry has it. Quantiles are within 1 %."""

    count: int
    mean: float | None
    min: float | None
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None


class Window(BaseModel):
    """One minute of a series."""

    minute: Instant = Field(description="Where the minute begins.")
    source: str | None = Field(description="The source; null where all are summed.")
    operation: str | None = Field(description="The operation; null where all are summed.")
    total: int = Field(description="Entries.")
    success: int
    failure: int = Field(description="Failures and timeouts.")
    other: int
    success_rate: float | None = Field(description="Successes / entries, 0 to 1.")
    duration_seconds: Distribution
    memory_bytes: Distribution
    efficiency_mean: float | None = Field(description="0 to 100, of the entries that have a score.")
    rows: int = Field(description="Rows that the entries say they handled.")
    transfer_bytes: int = Field(description="Bytes that the entries say they moved.")


class WindowPage(Listing):
    """Windows, the latest minute first."""

    windows: list[Window]


class WindowQuery(SeriesQuery, Page):
    """Filters and page of windows."""

    by: Literal["series", "source", "all"] = Field(
        "series", description="A window per source and operation, per source, or one for all."
    )


def windows(store: Store, query: WindowQuery) -> WindowPage:
    """A page of windows, the latest minute first."""
    where = query.where("minute")
    series = _SERIES[query.by]
    (number,) = store.query(_NUMBER.format(series=series, where=where), where.parameters)
    having, parameters = "", dict(where.parameters)
    kind = f"windows by {query.by}"
    if query.cursor is not None:
        seconds, source, operation = after(kind, query.cursor, int, str, str)
        having = (
            "HAVING seconds < {seconds:Int64} OR (seconds = {seconds:Int64} "
            "AND (source, operation) > ({after_source:String}, {after_operation:String}))"
        )
        parameters |= {"seconds": seconds, "after_source": source, "after_operation": operation}
    merged = _MERGED.format(series=series, where=where, having=having, limit=query.limit + 1)
    found = cut(number["total"], store.query(merged, parameters), query.limit, kind, ("seconds", "source", "operation"))
    return WindowPage(total=found.total, windows=[_shown(row) for row in found.rows], next_cursor=found.next_cursor)


def _shown(row: dict[str, Any]) -> Window:
    entries = row["entries"]
    return Window(
        minute=row["minute"],
        source=row["source"] or None,
        operation=row["operation"] or None,
        total=entries,
        success=row["successes"],
        failure=row["failures"],
        other=row["others"],
        success_rate=row["successes"] / entries if entries else None,
        duration_seconds=_distribution(row, "durations", "duration"),
        memory_bytes=_distribution(row, "memories", "memory"),
        efficiency_mean=row["efficiency_total"] / row["scored"] if row["scored"] else None,
        rows=row["rows_total"],
        transfer_bytes=row["transfer_total"],
    )


def _distribution(row: dict[str, Any], count: str, measure: str) -> Distribution:
    keys, counts = row[f"{measure}_buckets"]
    return Distribution(
        count=row[count],
        mean=row[f"{measure}_total"] / row[count] if row[count] else None,
        min=row[f"{measure}_least"],
        p50=quantile(keys, counts, 0.5),
        p90=quantile(keys, counts, 0.9),
        p95=quantile(keys, counts, 0.95),
        p99=quantile(keys, counts, 0.99),
        max=row[f"{measure}_most"],
    )


def router(store: Store) -> APIRouter:
    """The route, on this store."""
    routes = APIRouter(tags=["analytics"])

    @routes.get("/analytics/windows")
    def list_windows(query: Annotated[WindowQuery, Query()]) -> WindowPage:
        """Entries, durations and memory, minute by minute."""
        return windows(store, query)

    return routes
