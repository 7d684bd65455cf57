"""GET /dead-letters: entries that could not go on."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from processing.api.filters import TimeQuery, Where
from processing.api.paging import newest
from processing.api.values import Instant, OptionalText
from processing.store import Store
from shared.errors import Reason
from shared.paging import Listing, Page


class DeadLetter(BaseModel):
    """What is known of an entry that could not go on; its bytes stay on the topic dead-letters."""

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


class DeadLetterQuery(TimeQuery, Page):
    """Filters and page of dead letters."""

    reason: Reason | None = Field(None, description="Only these.")
    stage: str | None = Field(None, description="Only those of this stage.")
    run: str | None = Field(None, description="Only those of this ingest run.")

    def where(self, time: str = "time") -> Where:
        where = super().where(time)
        if self.reason is not None:
            where = where.and_("reason = {reason:String}", reason=self.reason.value)
        if self.stage is not None:
            where = where.and_("stage = {stage:String}", stage=self.stage)
        if self.run is not None:
            where = where.and_("run_id = {run:String}", run=self.run)
        return where


def dead_letters(store: Store, query: DeadLetterQuery) -> DeadLetterPage:
    """A page of dead letters, the newest stored first."""
    found = newest(store, "dead_letters", "dead_letters", query.where(), query)
    shown = [DeadLetter.model_validate(row) for row in found.rows]
    return DeadLetterPage(total=found.total, dead_letters=shown, next_cursor=found.next_cursor)


def router(store: Store) -> APIRouter:
    """The route, on this store."""
    routes = APIRouter(tags=["dead letters"])

    @routes.get("/dead-letters")
    def list_dead_letters(query: Annotated[DeadLetterQuery, Query()]) -> DeadLetterPage:
        """Entries that could not go on, and why."""
        return dead_letters(store, query)

    return routes
