"""GET /api/v1/gpus/{uuid}/telemetry: the readings of one GPU, as they are or by steps of time."""

import re
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field, model_validator

from processing.api import filters
from processing.api.filters import Where
from processing.api.gpus import NAME_MAX, not_known, page_of
from processing.api.paging import cut
from processing.api.values import Instant, OptionalText
from processing.store import Store
from shared import dcgm
from shared.paging import Listing, Page, after
from shared.service import Problem, ProblemError

POINTS_MAX: Final = 11_000  # what a chart may ask for in one query, as in Prometheus

_STEP: Final = re.compile(r"([1-9]\d{0,7})(s|m|h|d)?", re.ASCII)
_STEP_MAX_NS: Final = 366 * 86_400 * 1_000_000_000
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_QUANTILES: Final = {f"p{percent}": f"quantileExactInclusive(0.{percent})(value)" for percent in (50, 90, 95, 99)}
_AGGREGATES: Final = {
    "avg": "avg(value)",
    "min": "min(value)",
    "max": "max(value)",
    "last": "argMax(value, tuple(timestamp, seq))",
    "sum": "sum(value)",
    "count": "toNullable(toFloat64(count(value)))",
    **_QUANTILES,
}
_OF_CODES: Final = frozenset({"min", "max", "last", "count"})  # the mean of two codes is one that nobody had

_RAW: Final = """
SELECT timestamp, toUnixTimestamp64Nano(timestamp) AS nanoseconds, seq, metric, source_metric, unit, value,
  toUInt64(1) AS samples, record_id
FROM samples {where}
ORDER BY nanoseconds, source_metric, seq LIMIT {limit}
"""
# The step's beginning is named within as no column is, or it would be what the filter and `last` go by.
_BY_STEP: Final = """(
  SELECT nanoseconds, fromUnixTimestamp64Nano(nanoseconds, 'UTC') AS timestamp, metric, source_metric, unit, value,
    samples, record_id
  FROM (
  SELECT intDiv(toUnixTimestamp64Nano(s.timestamp), {{step:Int64}}) * {{step:Int64}} AS nanoseconds,
    any(s.metric) AS metric, source_metric, any(s.unit) AS unit,
    if(source_metric IN {{codes:Array(String)}}, {of_codes}, {aggregate}) AS value, count() AS samples,
    '' AS record_id
  FROM samples AS s {where} GROUP BY nanoseconds, source_metric)
)"""

_EXTENT: Final = """
SELECT uniqExact(source_metric) AS series, toUnixTimestamp64Nano(min(timestamp)) AS first,
  toUnixTimestamp64Nano(max(timestamp)) AS last
FROM samples {where}
"""
_CODES: Final = frozenset(name for name, known in dcgm.FIELDS.items() if known.kind == "code")

Aggregate = Literal["avg", "min", "max", "last", "sum", "count", "p50", "p90", "p95", "p99"]


class Reading(BaseModel):
    """One reading, or all of one metric within a step."""

    timestamp: Instant = Field(description="When it was taken; of a step, where it begins.")
    metric: str = Field(description="OpenTelemetry's name.")
    source_metric: str = Field(description="The source's name.")
    unit: OptionalText = Field(description="UCUM; null where it is not known.")
    value: float | None = Field(description="In base units; null where the source had none.")
    samples: int = Field(description="How many samples this is.")
    record_id: OptionalText = Field(description="The sample's identity, for /records/{record_id}/raw; not of a step.")


class TelemetryPage(Listing):
    """Readings in the order of time, then of the source's name of their metric."""

    uuid: str
    telemetry: list[Reading]


class TelemetryQuery(Page):
    """Filters, steps and page of readings."""

    limit: int = Field(1_000, ge=1, le=POINTS_MAX, description="At most this many.")
    metric: str | None = Field(
        None, max_length=NAME_MAX, description="Only this metric, by OpenTelemetry's name or the source's."
    )
    start_time: filters.Instant | None = Field(None, description="Only at or after this RFC 3339 time.")
    end_time: filters.Instant | None = Field(None, description="Only at or before this RFC 3339 time.")
    step: str | None = Field(
        None,
        description="One value for each step of this length, such as 30s, 5m, 1h or 1d; steps begin at multiples of it "
        "since 1970. Without it readings come as they are.",
        pattern=r"^[1-9][0-9]{0,7}[smhd]?$",
    )
    agg: Aggregate | None = Field(
        None, description="How a step's readings become one: avg unless said otherwise; of codes, last."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "TelemetryQuery":
        if self.start_time is not None and self.end_time is not None and self.start_time > self.end_time:
            raise ValueError("end_time: it is before start_time")
        if self.agg is not None and self.step is None:
            raise ValueError("agg: it needs a step")
        if (self.step_ns() or 0) > _STEP_MAX_NS:
            raise ValueError("step: at most 366 days")
        return self

    def step_ns(self) -> int | None:
        """The length of a step in nanoseconds."""
        found = None if self.step is None else _STEP.fullmatch(self.step)
        return None if found is None else int(found[1]) * _SECONDS[found[2] or "s"] * 1_000_000_000


def telemetry(store: Store, uuid: str, query: TelemetryQuery) -> TelemetryPage:
    """A page of a GPU's readings. Raises ProblemError: 404 for a GPU that is not known, 422 for too many steps."""
    where = Where().and_("hw_id = {uuid:String}", uuid=uuid)
    if query.metric is not None:
        where = where.and_("source_metric IN {metrics:Array(String)}", metrics=dcgm.names_of(query.metric))
    if query.start_time is not None:
        where = where.and_(f"timestamp >= {_INSTANT.format('since')}", since=filters.sql_instant(query.start_time))
    if query.end_time is not None:
        where = where.and_(f"timestamp <= {_INSTANT.format('until')}", until=filters.sql_instant(query.end_time))
    step_ns = query.step_ns()
    found = _raw(store, where, query) if step_ns is None else _by_step(store, where, query, step_ns)
    if not found["total"] and not store.query(
        "SELECT 1 FROM samples WHERE hw_id = {uuid:String} LIMIT 1", {"uuid": uuid}
    ):
        raise not_known(uuid)
    return TelemetryPage.model_validate({**found, "uuid": uuid})


_INSTANT: Final = "{{{}:DateTime64(9, 'UTC')}}"


def _raw(store: Store, where: Where, query: TelemetryQuery) -> dict[str, Any]:
    (counted,) = store.query(f"SELECT count() AS total FROM samples {where}", where.parameters)  # noqa: S608 - our own names
    kind = "telemetry"
    if query.cursor is not None:
        nanoseconds, source_metric, seq = after(kind, query.cursor, int, str, int)
        where = where.and_(
            "timestamp >= fromUnixTimestamp64Nano({ns:Int64}, 'UTC') AND (toUnixTimestamp64Nano(timestamp), "
            "source_metric, seq) > ({ns:Int64}, {after_metric:String}, {after_seq:Int64})",
            ns=nanoseconds,
            after_metric=source_metric,
            after_seq=seq,
        )
    rows = store.query(_RAW.format(where=where, limit=query.limit + 1), where.parameters)
    found = cut(counted["total"], rows, query.limit, kind, ("nanoseconds", "source_metric", "seq"))
    return {"total": found.total, "telemetry": found.rows, "next_cursor": found.next_cursor}


def _by_step(store: Store, where: Where, query: TelemetryQuery, step_ns: int) -> dict[str, Any]:
    aggregate = query.agg or "avg"
    if query.agg not in (None, *_OF_CODES) and query.metric is not None and set(dcgm.names_of(query.metric)) <= _CODES:
        raise ProblemError(
            422, "Invalid request", f"agg: {query.metric} is a code, of which there is {', '.join(sorted(_OF_CODES))}"
        )
    _check_points(store, where, query, step_ns)
    where = Where(where.conditions, {**where.parameters, "step": step_ns, "codes": sorted(_CODES)})
    of_codes = _AGGREGATES[aggregate if aggregate in _OF_CODES else "last"]
    source = _BY_STEP.format(aggregate=_AGGREGATES[aggregate], of_codes=of_codes, where=where)
    kind = f"telemetry by {step_ns} {aggregate}"
    key = {"nanoseconds": int, "source_metric": str}
    return page_of(store, kind, source, Where(parameters=where.parameters), key, query, "telemetry")


def _check_points(store: Store, where: Where, query: TelemetryQuery, step_ns: int) -> None:
    """Raises ProblemError (422) where there would be more points than are given."""
    (found,) = store.query(_EXTENT.format(where=where), where.parameters)
    points = found["series"] * ((found["last"] - found["first"]) // step_ns + 1)
    if points > POINTS_MAX:
        raise ProblemError(
            422,
            "Invalid request",
            f"step: {query.step} makes up to {points} points of {found['series']} metrics, and at most {POINTS_MAX} "
            "are given; take a longer step, a shorter time or one metric",
        )


def router(store: Store) -> APIRouter:
    """The route, on this store."""
    routes = APIRouter(prefix="/api/v1", tags=["gpus"])

    @routes.get("/gpus/{uuid}/telemetry", responses={404: {"model": Problem}})
    def list_telemetry(
        uuid: Annotated[str, PathParameter(description="The GPU's identity.", max_length=NAME_MAX)],
        query: Annotated[TelemetryQuery, Query()],
    ) -> TelemetryPage:
        """The readings of one GPU, or one value for each step of time."""
        return telemetry(store, uuid, query)

    return routes
