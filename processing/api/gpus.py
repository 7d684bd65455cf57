"""GET /api/v1/hosts, /api/v1/gpus, /api/v1/metrics: the fleet, as the samples of its GPUs tell it.

All of it is answered from what the store keeps of each GPU and each series (a GPU's metric) beside the samples, so it
is exact whenever they are, and costs what there is of these, not of samples.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from processing.api.filters import Where
from processing.api.paging import cut
from processing.api.values import Instant, OptionalText
from processing.store import Store
from processing.store.schema import GPU_FIELDS, GPUS, LATEST_FIELDS, SERIES
from shared import dcgm
from shared.paging import Listing, Page, after
from shared.service import Problem, ProblemError

NAME_MAX: Final = 500  # characters; no host or GPU has a longer name
_NOTHING: Final = Where()
_THIS: Final = "WHERE hw_id = {uuid:String}"
_COUNT, _FIRST, _LAST, _NEWEST = GPUS
_GPUS: Final = f"""(
  SELECT uuid, samples, first_seen, last_seen, toInt64(ifNull(gpu_index, -1)) AS place,
    {", ".join(f"tupleElement(newest, {at}) AS {name}" for at, name in enumerate(GPU_FIELDS, 1))}
  FROM (
    SELECT hw_id AS uuid, {_COUNT} AS samples, {_FIRST} AS first_seen, {_LAST} AS last_seen, {_NEWEST} AS newest
    FROM samples {{where}} GROUP BY hw_id
  )
)"""  # noqa: S608 - our own names

_READINGS, _TAKEN, _ARRIVED, _LATEST = SERIES
SERIES_SQL: Final = f"""(
  SELECT hw_id, source_metric, readings, last, arrived,
    {", ".join(f"tupleElement(latest, {at}) AS {name}" for at, name in enumerate(LATEST_FIELDS, 1))}
  FROM (
    SELECT hw_id, source_metric, {_READINGS} AS readings, {_TAKEN} AS last, {_ARRIVED} AS arrived, {_LATEST} AS latest
    FROM samples {{where}} GROUP BY hw_id, source_metric
  )
)"""  # noqa: S608 - our own names


class Gpu(BaseModel):
    """A GPU, or a MIG instance, which is a device of its own. Host and model are those of its newest sample."""

    uuid: str = Field(description="Its identity; a MIG instance's is its GPU's with `:mig-` and the instance's id.")
    host: OptionalText = Field(validation_alias="host_name")
    model: OptionalText = Field(validation_alias="hw_model")
    gpu_index: int | None = Field(description="Its number on its host.")
    device: OptionalText
    parent: OptionalText = Field(validation_alias="hw_parent", description="The GPU that a MIG instance is a part of.")
    first_seen: Instant = Field(description="When its oldest sample was taken.")
    last_seen: Instant = Field(description="When its newest sample was taken.")
    samples: int = Field(description="Samples of it that are stored.")


class GpuPage(Listing):
    """GPUs, by host, number on it, and uuid."""

    gpus: list[Gpu]


class Latest(BaseModel):
    """The newest reading of one metric."""

    metric: str = Field(description="OpenTelemetry's name.")
    source_metric: str = Field(description="The source's name.")
    unit: OptionalText = Field(description="UCUM; null where it is not known.")
    value: float | None = Field(description="In base units; null where the source had none.")
    timestamp: Instant
    samples: int = Field(description="Samples of this metric that are stored.")


class GpuDetail(Gpu):
    """A GPU with the newest reading of each of its metrics."""

    latest: list[Latest]


class Host(BaseModel):
    """A host, by the GPUs that were on it last."""

    host: str
    gpus: int = Field(description="GPUs on it, MIG instances included.")
    models: list[str]
    first_seen: Instant
    last_seen: Instant
    samples: int = Field(description="Samples of these GPUs that are stored.")


class HostPage(Listing):
    """Hosts, by name."""

    hosts: list[Host]


class Metric(BaseModel):
    """A metric of which there are samples."""

    metric: str = Field(description="OpenTelemetry's name.")
    source_metric: str = Field(description="The source's name.")
    unit: OptionalText = Field(description="UCUM; null where it is not known.")
    kind: str = Field(description="gauge, counter or code.")
    description: str
    gpus: int = Field(description="GPUs that have it.")
    samples: int


class MetricPage(Listing):
    """Metrics, by the source's name."""

    metrics: list[Metric]


class GpuQuery(Page):
    """Page of GPUs."""

    model: str | None = Field(None, max_length=NAME_MAX, description="Only GPUs of this model.")
    parent: str | None = Field(None, max_length=NAME_MAX, description="Only the MIG instances of this GPU.")

    def where(self) -> Where:
        where = _NOTHING
        if self.model is not None:
            where = where.and_("hw_model = {model:String}", model=self.model)
        if self.parent is not None:
            where = where.and_("hw_parent = {parent:String}", parent=self.parent)
        return where


class FleetQuery(GpuQuery):
    """Filters and page of GPUs."""

    host: str | None = Field(None, max_length=NAME_MAX, description="Only GPUs on this host.")

    def where(self) -> Where:
        where = super().where()
        return where if self.host is None else where.and_("host_name = {host:String}", host=self.host)


def gpus(store: Store, where: Where, page: Page) -> GpuPage:
    """A page of GPUs."""
    return GpuPage.model_validate(
        page_of(
            store, "gpus", _GPUS.format(where=""), where, {"host_name": str, "place": int, "uuid": str}, page, "gpus"
        )
    )


def gpu(store: Store, uuid: str) -> GpuDetail:
    """One GPU. Raises ProblemError (404)."""
    of_it = {"uuid": uuid}
    found = store.query(f"SELECT * FROM {_GPUS.format(where=_THIS)}", of_it)  # noqa: S608 - our own names
    if not found:
        raise not_known(uuid)
    latest = store.query(
        f"SELECT *, last AS timestamp, readings AS samples FROM {SERIES_SQL.format(where=_THIS)} "  # noqa: S608 - our own names
        "ORDER BY source_metric",
        of_it,
    )
    return GpuDetail.model_validate({**found[0], "latest": latest})


def not_known(uuid: str) -> ProblemError:
    """The answer to a GPU of which there is no sample."""
    return ProblemError(404, "Not found", f"no sample of a GPU {uuid} is stored; GET /api/v1/gpus lists those known")


def hosts(store: Store, page: Page) -> HostPage:
    """A page of hosts."""
    by_host = f"""(
      SELECT host_name AS host, count() AS gpus, arraySort(groupUniqArray(hw_model)) AS models,
        min(g.first_seen) AS first_seen, max(g.last_seen) AS last_seen, sum(g.samples) AS samples
      FROM {_GPUS.format(where="")} AS g WHERE host_name != '' GROUP BY host_name
    )"""  # noqa: S608 - our own names
    return HostPage.model_validate(page_of(store, "hosts", by_host, _NOTHING, {"host": str}, page, "hosts"))


def metrics(store: Store, page: Page) -> MetricPage:
    """A page of metrics."""
    by_metric = f"""(
      SELECT source_metric, count() AS gpus, sum(readings) AS samples
      FROM (SELECT hw_id, source_metric, {_READINGS} AS readings FROM samples GROUP BY hw_id, source_metric)
      GROUP BY source_metric
    )"""  # noqa: S608 - our own names
    found = page_of(store, "metrics", by_metric, _NOTHING, {"source_metric": str}, page, "metrics")
    for row in found["metrics"]:
        known = dcgm.field_of(row["source_metric"])
        row |= {"metric": known.metric, "unit": known.unit, "kind": known.kind, "description": known.description}
    return MetricPage.model_validate(found)


def page_of(
    store: Store, kind: str, source: str, where: Where, key: Mapping[str, type], page: Page, name: str
) -> dict[str, Any]:
    """A page of a subquery in the order of its key, which is unique; `kind` is what its cursors are good for.

    The total comes with the rows, for what costs is the subquery.
    """
    beyond = Where(parameters=where.parameters)
    if page.cursor is not None:
        beyond = _beyond(beyond, tuple(key), after(kind, page.cursor, *key.values()))
    rows = store.query(
        f"SELECT * FROM (SELECT *, count() OVER () AS total FROM {source} {where}) {beyond} "  # noqa: S608 - our own names
        f"ORDER BY {', '.join(key)} LIMIT {page.limit + 1}",
        beyond.parameters,
    )
    if rows:
        total = rows[0]["total"]
    else:
        (counted,) = store.query(f"SELECT count() AS total FROM {source} {where}", where.parameters)  # noqa: S608 - our own names
        total = counted["total"]
    found = cut(total, rows, page.limit, kind, tuple(key))
    return {"total": found.total, name: found.rows, "next_cursor": found.next_cursor}


def _beyond(where: Where, key: tuple[str, ...], last: list[Any]) -> Where:
    """Only what comes after the row of which the key was this."""
    names = {f"after_{place}": value for place, value in enumerate(last)}
    typed = ", ".join(f"{{{name}:{'Int64' if isinstance(value, int) else 'String'}}}" for name, value in names.items())
    return where.and_(f"({', '.join(key)}) > ({typed})", **names)


_PROBLEMS: Final[Mapping[int | str, dict[str, Any]]] = {404: {"model": Problem}}


def router(store: Store) -> APIRouter:
    """The routes, on this store."""
    routes = APIRouter(prefix="/api/v1", tags=["gpus"])

    @routes.get("/hosts")
    def list_hosts(page: Annotated[Page, Query()]) -> HostPage:
        """Hosts that have GPUs, by name."""
        return hosts(store, page)

    @routes.get("/hosts/{host}/gpus", responses=dict(_PROBLEMS))
    def list_gpus_of_host(
        host: Annotated[str, PathParameter(description="The host's name.", max_length=NAME_MAX)],
        query: Annotated[GpuQuery, Query()],
    ) -> GpuPage:
        """GPUs on one host, by their number on it."""
        on_host = _NOTHING.and_("host_name = {host:String}", host=host)
        where = query.where()
        found = gpus(store, Where((*on_host.conditions, *where.conditions), {"host": host, **where.parameters}), query)
        if not found.total and not (where.conditions and gpus(store, on_host, Page(limit=1)).total):
            raise ProblemError(404, "Not found", f"no host {host} has a GPU; GET /api/v1/hosts lists those known")
        return found

    @routes.get("/gpus")
    def list_gpus(query: Annotated[FleetQuery, Query()]) -> GpuPage:
        """GPUs, by host and number on it."""
        return gpus(store, query.where(), query)

    @routes.get("/gpus/{uuid}", responses=dict(_PROBLEMS))
    def one_gpu(
        uuid: Annotated[str, PathParameter(description="The GPU's identity.", max_length=NAME_MAX)],
    ) -> GpuDetail:
        """One GPU, with the newest reading of each of its metrics."""
        return gpu(store, uuid)

    @routes.get("/metrics")
    def list_metrics(page: Annotated[Page, Query()]) -> MetricPage:
        """Metrics of which there are samples, with their units."""
        return metrics(store, page)

    return routes
