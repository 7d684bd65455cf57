"""GET /dead-letters and their audit: entries that could not go on, what became of them, and who did it."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, Field

from processing.api.filters import TimeQuery, Where
from processing.api.paging import newest
from processing.api.values import Instant, OptionalText
from processing.letters import OPEN, Action
from processing.store import Store
from shared.errors import Reason
from shared.paging import Listing, Page
from shared.service import Problem, ProblemError

# A letter's id is where it lies, as a record's is. Its state is that of its event, of which it has one at most.
LETTERS: Final = f"""(
  SELECT letters.*, if(letters.origin = '', letters.record_id, letters.origin) AS first_id,
    if(empty(closed.event_id), '{OPEN}', toString(closed.action)) AS state
  FROM (
    SELECT *, concat(dead_topic_id, '-', toString(dead_partition), '-', toString(dead_offset), '-0') AS id
    FROM dead_letters
  ) AS letters
  ANY LEFT JOIN dead_letter_events AS closed ON letters.id = closed.letter
)"""  # noqa: S608 - our own names


class DeadLetter(BaseModel):
    """What is known of an entry that could not go on; its bytes stay on the topic dead-letters."""

    id: str = Field(description="The letter's own identity: where it lies on dead-letters.")
    state: Literal["open", "replayed", "resolved"]
    reason: str = Field(description="Why, as one word.")
    detail: str = Field(description="What was wrong and what to do.")
    stage: str = Field(description="Where it ended.")
    topic: str = Field(description="The topic that the stage read it from.")
    partition: int
    offset: int
    index: int = Field(description="Its place in the frame.")
    record_id: str = Field(description="Its identity on raw-logs.")
    run_id: OptionalText = Field(description="The ingest run that brought it.")
    origin: OptionalText = Field(description="The first record_id, when it was a replay.")
    time: Instant = Field(description="When it ended.")
    bytes: int = Field(description="Size of the entry.")
    dead_partition: int = Field(description="Where its bytes lie on dead-letters.")
    dead_offset: int = Field(description="Where its bytes lie on dead-letters.")


class DeadLetterPage(Listing):
    """Dead letters, the newest stored first."""

    dead_letters: list[DeadLetter]


class AuditEvent(BaseModel):
    """What was done with one letter, by whom and when."""

    event_id: str
    letter: str = Field(description="The letter's id.")
    origin: str = Field(description="The first record_id of its entry.")
    run_id: OptionalText = Field(description="The ingest run that brought the entry.")
    action: Action
    actor: str = Field(description="Who did it, as they said.")
    time: Instant = Field(description="When.")
    note: OptionalText = Field(description="Why, as they said.")
    edited: bool = Field(description="Whether the bytes that were sent are others than the letter's.")


class AuditPage(Listing):
    """What was done with dead letters, the newest stored first."""

    events: list[AuditEvent]


class LetterFilter(TimeQuery):
    """Which dead letters."""

    reason: Reason | None = Field(None, description="Only these.")
    stage: str | None = Field(None, description="Only those of this stage.")
    run: str | None = Field(None, description="Only those of this ingest run.")
    source: str | None = Field(None, description="Only those of ingest runs that declared this source.")
    origin: str | None = Field(None, description="Only those of the entry with this first record_id.")
    text: str | None = Field(None, description="Only those whose detail has this text in it, in any case.")

    def where(self, time: str = "time") -> Where:
        where = super().where(time)
        if self.reason is not None:
            where = where.and_("reason = {reason:String}", reason=self.reason.value)
        if self.stage is not None:
            where = where.and_("stage = {stage:String}", stage=self.stage)
        if self.run is not None:
            where = where.and_("run_id = {run:String}", run=self.run)
        if self.source is not None:
            runs = "SELECT run_id FROM runs WHERE source = {source:String}"
            where = where.and_(f"run_id IN ({runs}) AND run_id != ''", source=self.source)
        if self.origin is not None:
            where = where.and_("first_id = {origin:String}", origin=self.origin)
        if self.text is not None:
            where = where.and_("positionCaseInsensitiveUTF8(detail, {text:String}) > 0", text=self.text)
        return where


class DeadLetterQuery(LetterFilter, Page):
    """Filters and page of dead letters."""

    state: Literal["open", "replayed", "resolved"] | None = Field(None, description="Only those in this state.")

    def where(self, time: str = "time") -> Where:
        where = super().where(time)
        return where if self.state is None else where.and_("state = {state:String}", state=self.state)


class AuditQuery(TimeQuery, Page):
    """Filters and page of what was done."""

    letter: str | None = Field(None, description="Only with this letter.")
    origin: str | None = Field(None, description="Only with letters of the entry with this first record_id.")
    run: str | None = Field(None, description="Only with letters of this ingest run.")
    action: Action | None = Field(None, description="Only this.")
    actor: str | None = Field(None, description="Only by them.")

    def where(self, time: str = "time") -> Where:
        where = super().where(time)
        columns = {"letter": "letter", "origin": "origin", "run": "run_id", "action": "action", "actor": "actor"}
        for name, column in columns.items():
            if (value := getattr(self, name)) is not None:
                where = where.and_(f"{column} = {{{name}:String}}", **{name: str(value)})
        return where


def dead_letters(store: Store, query: DeadLetterQuery) -> DeadLetterPage:
    """A page of dead letters, the newest stored first."""
    found = newest(store, "dead_letters", LETTERS, query.where(), query)
    shown = [DeadLetter.model_validate(row) for row in found.rows]
    return DeadLetterPage(total=found.total, dead_letters=shown, next_cursor=found.next_cursor)


def audit(store: Store, query: AuditQuery) -> AuditPage:
    """A page of what was done, the newest stored first."""
    found = newest(store, "dead_letter_events", "dead_letter_events", query.where(), query)
    shown = [AuditEvent.model_validate(row) for row in found.rows]
    return AuditPage(total=found.total, events=shown, next_cursor=found.next_cursor)


def find(store: Store, letter_id: str) -> dict[str, Any]:
    """The row of the letter with this id. Raises ProblemError (404)."""
    rows = store.query(f"SELECT * FROM {LETTERS} WHERE id = {{id:String}} LIMIT 1", {"id": letter_id})  # noqa: S608 - our own names
    if not rows:
        raise ProblemError(404, "Not found", f"no dead letter {letter_id} is stored: it may still be on its way")
    return rows[0]


def oldest(store: Store, where: Where, limit: int) -> Sequence[dict[str, Any]]:
    """Rows of letters that match, the oldest stored first."""
    return store.query(
        f"SELECT * FROM {LETTERS} {where} ORDER BY seq LIMIT {limit}",  # noqa: S608 - our own names
        where.parameters,
    )


def router(store: Store) -> APIRouter:
    """The routes that the store answers."""
    routes = APIRouter(tags=["dead letters"])

    @routes.get("/dead-letters")
    def list_dead_letters(query: Annotated[DeadLetterQuery, Query()]) -> DeadLetterPage:
        """Entries that could not go on, and why."""
        return dead_letters(store, query)

    @routes.get("/dead-letters/audit")
    def list_audit(query: Annotated[AuditQuery, Query()]) -> AuditPage:
        """What was done with dead letters: who, when, what."""
        return audit(store, query)

    @routes.get("/dead-letters/{letter_id}/audit", responses={404: {"model": Problem}})
    def letter_audit(letter_id: Annotated[str, PathParameter(description="The letter's id.")]) -> AuditPage:
        """What was done with the entry of this letter, in all its attempts."""
        return audit(store, AuditQuery(origin=find(store, letter_id)["first_id"], limit=1_000))

    return routes
