"""/ingest/streams: start, list, change, pause, resume and stop streams."""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ingestion.replay import Spec, check_start
from ingestion.sources.file import FileRefusedError
from ingestion.streams import NoSuchStreamError, NotPossibleError, Stream, Streams
from shared.errors import KafkaUnavailableError
from shared.service import Problem, ProblemError

RATE_MAX = 100_000.0
WORKERS_MAX = 64
_PATIENCE_S = 20.0
_PRINTABLE = r"^\P{Cc}+$"

Rate = Annotated[float, Field(gt=0.001, le=RATE_MAX, allow_inf_nan=False, description="Entries per second.")]


class NewStream(BaseModel):
    """What to replay, and how."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(description="Name of a file under the ingest folder, as for /ingest/trigger.", max_length=1024)
    rate: Rate = 100.0
    workers: int = Field(
        1, ge=1, le=WORKERS_MAX, description="Partitions that it writes to at once; a device keeps to one of them."
    )
    loop: bool = Field(False, description="Begin again at the end of the file.")
    shuffle_hosts: bool = Field(
        False, description="Change the order of hosts within each 5,000 entries; each host keeps its own order."
    )
    start_at: str | None = Field(
        None, description="The number of the first entry (from 1), or an RFC 3339 time; later passes begin at 1."
    )
    timestamps: Literal["now", "keep"] = Field("now", description="Whether an entry's time becomes that of sending it.")
    source: str | None = Field(
        None, min_length=1, max_length=200, pattern=_PRINTABLE, description="The source of entries that name none."
    )

    @field_validator("start_at")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            check_start(value)
        return value


class ChangedRate(BaseModel):
    """Another rate."""

    model_config = ConfigDict(extra="forbid")

    rate: Rate


class ShownStream(BaseModel):
    """A stream and how far it is."""

    id: str
    file: str
    rate: float = Field(description="Entries per second.")
    workers: int
    loop: bool
    shuffle_hosts: bool
    start_at: str | None
    timestamps: str
    source: str | None
    status: str = Field(description="running, paused, finished or failed.")
    created: str = Field(description="RFC 3339, UTC.")
    sent: int = Field(description="Entries on raw-logs, of all passes.")
    passes: int = Field(description="Passes of the file, the one under way included.")
    run_id: str = Field(description="The ingest run that this pass is; its receipt comes with its end.")
    error: str | None = Field(description="Why it failed.")


class ShownStreams(BaseModel):
    """The oldest first."""

    total: int
    streams: list[ShownStream]
    next_cursor: None = None


def _shown(stream: Stream) -> ShownStream:
    spec = stream.spec
    return ShownStream(
        id=stream.id,
        file=spec.file,
        rate=spec.rate,
        workers=spec.workers,
        loop=spec.loop,
        shuffle_hosts=spec.shuffle_hosts,
        start_at=spec.start_at,
        timestamps=spec.timestamps,
        source=spec.source,
        status=stream.status,
        created=stream.created,
        sent=stream.sent,
        passes=stream.passes,
        run_id=stream.run_id,
        error=stream.error,
    )


def router(streams: Streams, declared: Collection[str] = ()) -> APIRouter:
    """`declared` are the names of sources that no stream may take: who sends under them is declared."""
    routes = APIRouter(prefix="/ingest/streams", tags=["streams"])
    problems: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (400, 403, 404, 409, 422, 503)}
    named = Annotated[str, PathParameter(description="The stream's id.", max_length=64)]

    async def done(change: Callable[[], Future[Stream]]) -> ShownStream:
        """What a stream is once its change counts."""
        try:
            return _shown(await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(change())), _PATIENCE_S))
        except FileRefusedError as error:
            raise ProblemError(404, "No such file", str(error)) from error
        except NoSuchStreamError as error:
            raise ProblemError(404, "No such stream", str(error)) from error
        except NotPossibleError as error:
            raise ProblemError(409, "Not possible now", str(error)) from error
        except KafkaUnavailableError as error:
            raise _unavailable(f"{error}; the change may or may not have been made") from error
        except TimeoutError as error:
            raise _unavailable("no answer in time; the change may or may not have been made") from error

    @routes.post("", status_code=201, responses=problems)
    async def start(wanted: NewStream) -> ShownStream:
        """Begin to replay a file. It goes on over restarts, until it ends or is stopped."""
        if wanted.source in declared:
            raise ProblemError(
                403,
                "A declared source",
                f"{wanted.source} is declared in SOURCES_FILE, and only what is declared there sends under its name; "
                "give the stream another source, or none",
            )
        spec = Spec(**wanted.model_dump())
        return await done(lambda: streams.start(spec))

    @routes.get("")
    def list_streams() -> ShownStreams:
        """The streams of this instance."""
        found = [_shown(stream) for stream in streams.all()]
        return ShownStreams(total=len(found), streams=found)

    @routes.get("/{stream_id}", responses={404: {"model": Problem}})
    def one(stream_id: named) -> ShownStream:
        """One stream."""
        try:
            return _shown(streams.find(stream_id))
        except NoSuchStreamError as error:
            raise ProblemError(404, "No such stream", str(error)) from error

    @routes.patch("/{stream_id}", responses=problems)
    async def change_rate(stream_id: named, wanted: ChangedRate) -> ShownStream:
        """Go on at another rate."""
        return await done(lambda: streams.change_rate(stream_id, wanted.rate))

    @routes.post("/{stream_id}/pause", responses=problems)
    async def pause(stream_id: named) -> ShownStream:
        """Send nothing until it is resumed."""
        return await done(lambda: streams.pause(stream_id))

    @routes.post("/{stream_id}/resume", responses=problems)
    async def resume(stream_id: named) -> ShownStream:
        """Go on where it was paused."""
        return await done(lambda: streams.resume(stream_id))

    @routes.delete("/{stream_id}", responses=problems)
    async def stop(stream_id: named) -> ShownStream:
        """End it for good. What it has sent stays, and gets its receipt."""
        return await done(lambda: streams.stop(stream_id))

    return routes


def _unavailable(detail: str) -> ProblemError:
    return ProblemError(503, "Kafka is not reachable", detail, {"Retry-After": "2"})
