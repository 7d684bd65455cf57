"""Dead letters with their bytes: show one, send it again as it is or edited, resolve it; or all that match a filter."""

import base64
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from processing.api.dead_letters import (
    LETTERS,
    AuditEvent,
    AuditQuery,
    DeadLetter,
    LetterFilter,
    audit,
    find,
    oldest,
)
from processing.api.filters import Where
from processing.api.originals import Location, Original, Originals, PayloadResponse, Reading
from processing.desk import LARGE, Closing, Desk
from processing.letters import (
    OPEN,
    Action,
    Event,
    RefusedError,
    check_value,
    entry_of,
    outgoing,
)
from processing.store import Store
from shared.chunking import Payload
from shared.config import Settings
from shared.errors import SpoolFullError
from shared.paging import after, cursor_of
from shared.records import DeadLetter as Letter
from shared.records import timestamp_of
from shared.service import Problem, ProblemError
from shared.spool import Entry, Spool
from shared.topics import H_CONTENT_TYPE, RAW_LOGS, specs

PREVIEW: Final = 4_096  # bytes that are shown inline
TOGETHER: Final = 200  # letters of a transaction
REFUSALS: Final = 20  # that a summary names
HISTORY: Final = 100  # attempts that are shown of one entry
_FORM: Final = "application/x-www-form-urlencoded"  # what curl says of a body when it was told nothing

LetterPath = Annotated[str, PathParameter(description="The letter's id.")]
ActorHeader = Annotated[str | None, Header(alias="Sluice-Actor", max_length=200, description="Who does it.")]


class Bytes(BaseModel):
    """Bytes as text where they are UTF-8, else as base64."""

    encoding: str = Field(description="utf-8 or base64.")
    data: str
    truncated: bool = Field(description="Whether there are more; /raw has them all.")


class OriginalHeader(BaseModel):
    """A header of the entry's message."""

    name: str
    value: Bytes | None


class Attempt(BaseModel):
    """One of the letters of an entry: it was replayed and failed again."""

    id: str
    record_id: str
    state: str
    reason: str
    detail: str
    time: str


class ShownLetter(DeadLetter):
    """All that is known of a dead letter."""

    key: Bytes | None = Field(description="The key of the entry's message.")
    headers: list[OriginalHeader] = Field(description="The headers of the entry's message.")
    preview: Bytes | None = Field(description="The first bytes of the entry; null when they are gone.")
    gone: str | None = Field(description="Why its bytes can't be had, when they can't.")
    attempts: list[Attempt] = Field(description="The letters of the same entry, this one too, the oldest first.")
    stored_as: str | None = Field(description="The record_id under which the entry was stored in the end.")
    audit: list[AuditEvent] = Field(description="What was done with any of these letters, the newest first.")


class By(BaseModel):
    """Who does it, and why."""

    model_config = ConfigDict(extra="forbid")

    actor: str | None = Field(None, max_length=200, description="Who does it; the header Sluice-Actor says it, too.")
    note: str | None = Field(None, max_length=2_000, description="Why, for those who come after.")


class Many(LetterFilter, By):
    """Which open letters, and how many in this call."""

    everything: bool = Field(False, alias="all", description="Needed when there is no filter: all open letters.")
    dry_run: bool = Field(False, description="Only say how many there are.")
    limit: int = Field(1_000, ge=1, le=10_000, description="At most this many in this call.")
    cursor: str | None = Field(None, description="`next_cursor` of the call before.")


class Closed(BaseModel):
    """A letter that has just been closed."""

    id: str
    state: Action
    event_id: str = Field(description="The event in the audit.")
    sent_to: str | None = Field(description="The topic that its entry went to.")


class Refusal(BaseModel):
    """A letter that stays as it is, and why."""

    id: str
    detail: str


class Summary(BaseModel):
    """What became of the letters that a filter named."""

    dry_run: bool
    matched: int = Field(description="Open letters that match, from the cursor on, when the call began.")
    done: int = Field(description="Closed by this call.")
    closed_before: int = Field(description="Closed already, though the store had not heard of it yet.")
    refused: int = Field(description="Left as they are.")
    refusals: list[Refusal] = Field(description="The first of these.")
    next_cursor: str | None = Field(description="Where to go on; null when all were looked at.")


@dataclass(frozen=True, slots=True)
class Who:
    """The actor and the note of a call."""

    actor: str
    note: str | None

    @classmethod
    def of(cls, by: By, header: str | None) -> "Who":
        return cls(by.actor or header or "unknown", by.note)


class Letters:
    """The letters of a store, their bytes in Kafka, and the desk that closes them."""

    def __init__(self, settings: Settings, store: Store, originals: Originals, desk: Desk, spool: Spool) -> None:
        self._settings = settings
        self._store = store
        self.originals = originals
        self._desk = desk
        self.spool = spool
        self._names = {settings.topic(spec.name): spec.name for spec in specs(1, 1)}

    def show(self, letter_id: str) -> ShownLetter:
        row = find(self._store, letter_id)
        letter: Letter | None = None
        gone = None
        try:
            with self.originals.reading() as reading:
                original = reading.head(_place(row))
            letter = _letter(original, original.payload.read())
        except (ProblemError, RefusedError) as problem:
            if isinstance(problem, ProblemError) and problem.status == 503:
                raise
            gone = problem.detail if isinstance(problem, ProblemError) else str(problem)
        same = Where().and_("first_id = {origin:String}", origin=row["first_id"])
        attempts = oldest(self._store, same, HISTORY)
        return ShownLetter(
            **DeadLetter.model_validate(row).model_dump(),
            key=_bytes(letter.key) if letter and letter.key is not None else None,
            headers=[_header(name, value) for name, value in letter.headers] if letter else [],
            preview=_bytes(letter.value[:PREVIEW], row["bytes"]) if letter else None,
            gone=gone,
            attempts=[Attempt.model_validate(found) for found in attempts],
            stored_as=self._stored_as(row),
            audit=audit(self._store, AuditQuery(origin=row["first_id"], limit=HISTORY)).events,
        )

    def replay(self, letter_id: str, who: Who) -> Closed:
        row = _open(find(self._store, letter_id))
        with self.originals.reading() as reading:
            closing = self._replay_of(row, reading, who)
        return self._close(closing)

    def edit(self, letter_id: str, body: Entry, content_type: str | None, who: Who) -> Closed:
        """Send these bytes in its place. The body is released by who made it."""
        row = _open(find(self._store, letter_id))
        with self.originals.reading() as reading:
            original = reading.original(_place(row))
        try:
            closing = self._closing(row, original, who, body, content_type)
        finally:
            original.payload.release()
        return self._close(closing)

    def resolve(self, letter_id: str, who: Who) -> Closed:
        row = _open(find(self._store, letter_id))
        return self._close(Closing(_event(row, Action.RESOLVED, who)))

    def many(self, action: Action, query: Many, who: Who) -> Summary:
        """Close those that match, the oldest first, up to the newest of when the first call began."""
        where = query.where().and_("state = {open:String}", open=OPEN)
        since, until = self._span(query, where)
        where = where.and_("seq > {after_seq:Int64} AND seq <= {last_seq:Int64}", after_seq=since, last_seq=until)
        (counted,) = self._store.query(f"SELECT count() AS n FROM {LETTERS} {where}", where.parameters)  # noqa: S608 - our own names
        tally = _Tally(query.dry_run, counted["n"])
        if query.dry_run:
            return tally.summary(None)
        rows = oldest(self._store, where, query.limit)
        for closings in self._batches(action, rows, who, tally):
            tally.add(self._desk.close(closings))
            _release(closings)
        more = len(rows) < counted["n"]
        return tally.summary(cursor_of("closing", rows[-1]["seq"], until) if more and rows else None)

    def _span(self, query: Many, where: Where) -> tuple[int, int]:
        if query.cursor is not None:
            since, until = after("closing", query.cursor, int, int)
            return since, until
        (newest,) = self._store.query(f"SELECT max(seq) AS seq FROM {LETTERS} {where}", where.parameters)  # noqa: S608 - our own names
        return -1, newest["seq"]

    def _batches(
        self, action: Action, rows: Sequence[dict[str, Any]], who: Who, tally: "_Tally"
    ) -> Iterator[list[Closing]]:
        """What goes into one transaction each: some letters and few bytes, or one that is large."""
        if action == Action.RESOLVED:
            for begin in range(0, len(rows), TOGETHER):
                yield [Closing(_event(row, action, who)) for row in rows[begin : begin + TOGETHER]]
            return
        batch: list[Closing] = []
        try:
            with self.originals.reading() as reading:
                # as they lie in Kafka, so that they can be read in a row
                for row in sorted(rows, key=lambda row: (row["dead_partition"], row["dead_offset"])):
                    try:
                        closing = self._replay_of(row, reading, who)
                    except (ProblemError, RefusedError) as problem:
                        tally.refuse(row["id"], problem)
                        continue
                    batch.append(closing)
                    if len(batch) == TOGETHER or sum(one.size for one in batch) > LARGE:
                        yield batch
                        batch = []
            if batch:
                yield batch
        finally:
            _release(batch)  # of a call that ends early

    def _replay_of(self, row: dict[str, Any], reading: Reading, who: Who) -> Closing:
        original = reading.original(_place(row))
        try:
            return self._closing(row, original, who)
        except BaseException:
            original.payload.release()
            raise

    def _closing(
        self,
        row: dict[str, Any],
        original: Original,
        who: Who,
        body: Payload | None = None,
        content_type: str | None = None,
    ) -> Closing:
        """The replay of a letter with its own bytes, or with others. Raises RefusedError."""
        edited = body is not None
        value = original.payload if body is None else body
        parse = self._settings.parse_max_bytes
        letter = _letter(original, original.payload.read(0, parse))
        topic = self._names.get(letter.topic, letter.topic)
        to = outgoing(letter, topic, edited=edited, content_type=content_type)
        if value.size <= parse:
            check_value(letter, to, value.read(), edited=edited)
        elif topic != RAW_LOGS:  # there an entry of this size is carried as it is
            raise RefusedError(f"{value.size} bytes are too many for a line of {topic} (PARSE_MAX_BYTES: {parse})")
        event = _event(row, Action.REPLAYED, who, entry=entry_of(letter, row["id"]), edited=edited)
        return Closing(event, to, value)

    def _close(self, closing: Closing) -> Closed:
        try:
            (before,) = self._desk.close([closing])
        finally:
            _release([closing])
        if before is not None:
            raise _closed_already(before.letter, before.action, f" by {before.actor} at {before.time}")
        event = closing.event
        sent_to = closing.message.topic if closing.message else None
        return Closed(id=event.letter, state=Action(event.action), event_id=event.event_id, sent_to=sent_to)

    def _stored_as(self, row: dict[str, Any]) -> str | None:
        found = self._store.query(
            "SELECT record_id FROM records WHERE run_id = {run:String} "
            "AND (record_id = {origin:String} OR origin = {origin:String}) LIMIT 1",
            {"run": row["run_id"], "origin": row["first_id"]},
        )
        return found[0]["record_id"] if found else None


class _Tally:
    def __init__(self, dry_run: bool, matched: int) -> None:
        self._dry_run = dry_run
        self._matched = matched
        self._done = self._before = self._refused = 0
        self._refusals: list[Refusal] = []

    def add(self, before: Sequence[Event | None]) -> None:
        self._before += sum(event is not None for event in before)
        self._done += sum(event is None for event in before)

    def refuse(self, letter_id: str, problem: ProblemError | RefusedError) -> None:
        """Count a letter that can't be replayed. What Kafka or the spool can't do now ends the call instead."""
        if isinstance(problem, ProblemError) and problem.status == 503:
            raise problem
        self._refused += 1
        detail = problem.detail if isinstance(problem, ProblemError) else str(problem)
        if len(self._refusals) < REFUSALS:
            self._refusals.append(Refusal(id=letter_id, detail=detail))

    def summary(self, next_cursor: str | None) -> Summary:
        return Summary(
            dry_run=self._dry_run,
            matched=self._matched,
            done=self._done,
            closed_before=self._before,
            refused=self._refused,
            refusals=self._refusals,
            next_cursor=next_cursor,
        )


def _event(row: dict[str, Any], action: Action, who: Who, *, entry: str = "", edited: bool = False) -> Event:
    return Event(
        event_id=uuid.uuid4().hex,
        letter=row["id"],
        entry=entry or row["id"],
        origin=row["first_id"],
        action=action,
        actor=who.actor,
        time=timestamp_of(time.time_ns()),
        run_id=row["run_id"] or None,
        note=who.note,
        edited=edited,
    )


def _place(row: dict[str, Any]) -> Location:
    return Location(row["dead_topic_id"], row["dead_partition"], row["dead_offset"], 0)


def _open(row: dict[str, Any]) -> dict[str, Any]:
    if row["state"] != OPEN:
        raise _closed_already(row["id"], row["state"])
    return row


def _closed_already(letter_id: str, state: str, more: str = "") -> ProblemError:
    return ProblemError(409, "Closed already", f"the letter {letter_id} is {state} already{more}; its audit tells more")


def _letter(original: Original, value: bytes) -> Letter:
    try:
        return Letter.from_headers(list(original.headers), value)
    except ValueError as error:
        raise RefusedError(f"{error}: somebody else's message, which can only be resolved") from None


def _release(closings: Sequence[Closing]) -> None:
    for closing in closings:
        if closing.value is not None:
            closing.value.release()


def _bytes(value: bytes, size: int | None = None) -> Bytes:
    """Bytes as they can be shown, `size` being that of the whole."""
    truncated = size is not None and size > len(value)
    for cut in range(4 if truncated else 1):  # the end may lie within a character
        try:
            return Bytes(encoding="utf-8", data=value[: len(value) - cut].decode(), truncated=truncated)
        except UnicodeDecodeError:
            continue
    return Bytes(encoding="base64", data=base64.b64encode(value).decode(), truncated=truncated)


def _header(name: str, value: bytes | None) -> OriginalHeader:
    return OriginalHeader(name=name, value=None if value is None else _bytes(value))


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        raise ProblemError(409, "Refused", str(error)) from error


async def _receive(request: Request, body: Entry, limit: int) -> None:
    try:
        async for piece in request.stream():
            if body.size + len(piece) > limit:
                raise ProblemError(413, "Body too large", f"an entry has at most {limit} bytes (ENTRY_MAX_BYTES)")
            body.append(piece)
    except SpoolFullError as error:
        raise ProblemError(507, "No room", str(error), {"Retry-After": "5"}) from error
    except ClientDisconnect as error:
        raise ProblemError(400, "Body cut off", f"the client left after {body.size} bytes") from error


_EDIT_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "The new bytes of the entry; without a Content-Type they keep the one that the entry had.",
        "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_ONE: Final[dict[int | str, dict[str, Any]]] = {code: {"model": Problem} for code in (404, 409, 410, 503)}


def router(letters: Letters, entry_max_bytes: int) -> APIRouter:
    """The routes that need the letters' bytes, or the desk."""
    routes = APIRouter(tags=["dead letters"])

    @routes.post("/dead-letters/replay", responses={503: {"model": Problem}})
    def replay_many(query: Annotated[Many, Query()], sluice_actor: ActorHeader = None) -> Summary:
        """Send the open letters that match again, as they are; call again with next_cursor until there is none."""
        return letters.many(Action.REPLAYED, _filtered(query), Who.of(query, sluice_actor))

    @routes.post("/dead-letters/resolve", responses={503: {"model": Problem}})
    def resolve_many(query: Annotated[Many, Query()], sluice_actor: ActorHeader = None) -> Summary:
        """Close the open letters that match; call again with next_cursor until there is none."""
        return letters.many(Action.RESOLVED, _filtered(query), Who.of(query, sluice_actor))

    @routes.get("/dead-letters/{letter_id}", responses={404: {"model": Problem}, 503: {"model": Problem}})
    def show(letter_id: LetterPath) -> ShownLetter:
        """One letter: why, its first bytes, its headers, its earlier attempts and what was done."""
        return letters.show(letter_id)

    @routes.get(
        "/dead-letters/{letter_id}/raw",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"application/octet-stream": {}}, "description": "The bytes of the entry."},
            **{code: {"model": Problem} for code in (404, 410, 503)},
        },
    )
    def raw(letter_id: LetterPath) -> StreamingResponse:
        """The bytes of a letter, as long as dead-letters retains them."""
        place = Location.parse(letter_id)
        if place is None or place.index:
            raise ProblemError(
                404, "Not found", "a letter's id is <8 hex digits>-<partition>-<offset>-0, as lists have it"
            )
        original = letters.originals.read(place)
        kind = dict(original.headers).get(f"orig.{H_CONTENT_TYPE}")
        return PayloadResponse(original.payload, kind.decode(errors="replace") if kind else None)

    @routes.post("/dead-letters/{letter_id}/replay", responses=_ONE)
    def replay(letter_id: LetterPath, by: Annotated[By, Query()], sluice_actor: ActorHeader = None) -> Closed:
        """Send the entry again, as it is."""
        with _refusals():
            return letters.replay(letter_id, Who.of(by, sluice_actor))

    @routes.post("/dead-letters/{letter_id}/edit", responses=_ONE, openapi_extra=dict(_EDIT_BODY))
    async def edit(
        request: Request, letter_id: LetterPath, by: Annotated[By, Query()], sluice_actor: ActorHeader = None
    ) -> Closed:
        """Send the entry again, with the bytes of this body."""
        kind = request.headers.get("content-type")
        with letters.spool.create() as body, _refusals():
            await _receive(request, body, entry_max_bytes)
            return await run_in_threadpool(
                letters.edit, letter_id, body, None if kind == _FORM else kind, Who.of(by, sluice_actor)
            )

    @routes.post("/dead-letters/{letter_id}/resolve", responses=_ONE)
    def resolve(letter_id: LetterPath, by: Annotated[By, Query()], sluice_actor: ActorHeader = None) -> Closed:
        """Close the letter; nothing more comes of it."""
        return letters.resolve(letter_id, Who.of(by, sluice_actor))

    return routes


def _filtered(query: Many) -> Many:
    if not query.everything and not query.where().conditions:
        raise ProblemError(422, "Invalid request", "name a filter, or say all=true (--all) for every open letter")
    return query
