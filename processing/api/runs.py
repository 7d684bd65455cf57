"""GET /runs and GET /runs/{run_id}: the receipt of each ingest run, and what became of its entries."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from processing.api.filters import Where
from processing.api.paging import newest
from processing.api.values import Instant, OptionalText
from processing.store import Store
from shared.paging import Listing, Page
from shared.service import Problem, ProblemError

# A push that was retried has a receipt of each attempt, of which one was delivered: the first stands for them all.
_RECEIPTS: Final = """(
  SELECT run_id, min(receipts.seq) AS seq,
    argMin((source, file, entries, bytes, time), (time, receipts.seq)) AS first
  FROM (SELECT * FROM runs {where}) AS receipts GROUP BY run_id
)"""

# An origin is where an entry first lay: its own record_id, unless it was replayed. Replayed and then stored, it is no
# dead letter any more; replayed and not stored yet, it is on its way again, until it is stored or a new letter comes.
# A line that was refused on a later topic is stored under its own record_id when it is replayed.
# One run at a time: grouping the rows of several costs more than asking for each.
_STORED: Final = """
SELECT uniqExact(if(origin = '', record_id, origin)) AS entries FROM records WHERE run_id = {run:String}
"""
# A run of telemetry may have tens of millions: each row that is no replay has a record_id of its own, and needs no set.
_SAMPLES: Final = """
SELECT countIf(origin = '') + uniqExactIf(origin, origin != '') AS entries FROM samples WHERE run_id = {run:String}
"""
_DEAD: Final = """
WITH letters AS (
  SELECT if(origin = '', record_id, origin) AS first_id,
    concat(dead_topic_id, '-', toString(dead_partition), '-', toString(dead_offset), '-0') AS id
  FROM dead_letters WHERE run_id = {run:String}
)
SELECT uniqExact(first_id) AS entries FROM letters
WHERE id NOT IN (SELECT letter FROM dead_letter_events WHERE run_id = {run:String} AND action = 'replayed')
AND first_id NOT IN (
  SELECT if(origin = '', record_id, origin) FROM records
  WHERE run_id = {run:String} AND (origin != '' OR record_id IN (SELECT first_id FROM letters))
)
AND first_id NOT IN (
  SELECT if(origin = '', record_id, origin) FROM samples
  WHERE run_id = {run:String} AND (origin != '' OR record_id IN (SELECT first_id FROM letters))
)
"""


class Run(BaseModel):
    """An ingest run: accepted = stored + dead_lettered + in_flight."""

    run_id: str
    source: OptionalText = Field(description="The source that was declared with it.")
    file: OptionalText = Field(description="The file that was read, if one was.")
    time: Instant = Field(description="When it was accepted.")
    accepted: int = Field(description="Entries that Kafka acknowledged.")
    bytes: int = Field(description="Bytes of these entries.")
    stored: int = Field(description="Entries of it in the store.")
    dead_lettered: int = Field(description="Entries of it that could not go on.")
    in_flight: int = Field(description="Entries of it still on their way.")
    complete: bool = Field(description="Whether none is on its way.")


class RunQuery(Page):
    """Page of runs."""

    limit: int = Field(20, ge=1, le=100, description="At most this many; each is counted anew.")


class RunPage(Listing):
    """Ingest runs, the newest first."""

    runs: list[Run]


def find_run(store: Store, run_id: str) -> Run:
    """What became of a run. Raises ProblemError (404) while no receipt of it is stored."""
    receipts = _RECEIPTS.format(where="WHERE run_id = {run:String}")
    rows = store.query(f"SELECT * FROM {receipts}", {"run": run_id})  # noqa: S608 - our own names
    if not rows:
        raise ProblemError(404, "Not found", f"no receipt of run {run_id} is stored: it may still be on its way")
    return _with_progress(store, rows[0])


def runs(store: Store, page: RunQuery) -> RunPage:
    """A page of runs, the newest first."""
    found = newest(store, "runs", _RECEIPTS.format(where=""), Where(), page)
    shown = [_with_progress(store, receipt) for receipt in found.rows]
    return RunPage(total=found.total, runs=shown, next_cursor=found.next_cursor)


def _with_progress(store: Store, receipt: dict[str, Any]) -> Run:
    which = {"run": receipt["run_id"]}
    # stored first: an entry that is replayed and stored in between is then missed for a moment, never counted twice
    (records,) = store.query(_STORED, which)
    (samples,) = store.query(_SAMPLES, which)
    stored = records["entries"] + samples["entries"]
    (dead,) = store.query(_DEAD, which)
    source, file, accepted, size, time = receipt["first"]
    in_flight = max(0, accepted - stored - dead["entries"])
    return Run(
        run_id=receipt["run_id"],
        source=source,
        file=file,
        time=time,
        accepted=accepted,
        bytes=size,
        stored=stored,
        dead_lettered=dead["entries"],
        in_flight=in_flight,
        complete=not in_flight,
    )


def router(store: Store) -> APIRouter:
    """The routes, on this store."""
    routes = APIRouter(tags=["runs"])

    @routes.get("/runs")
    def list_runs(page: Annotated[RunQuery, Query()]) -> RunPage:
        """Ingest runs, the newest first."""
        return runs(store, page)

    @routes.get("/runs/{run_id}", responses={404: {"model": Problem}})
    def run(run_id: Annotated[str, PathParameter(description="The run's id, as ingestion answered it.")]) -> Run:
        """What became of the entries of one run."""
        return find_run(store, run_id)

    return routes
