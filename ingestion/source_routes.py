"""What is declared, and how it is: GET /ingest/sources."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ingestion.feeds import Feed


class ShownSource(BaseModel):
    """A declared source and how far it is."""

    name: str
    kind: str
    state: str = Field(description="running, or why not.")
    entries: int = Field(description="Entries that Kafka has of it, of this process.")
    bytes: int = Field(description="Bytes of these.")
    problems: list[str] = Field(description="What is wrong with what it reads; at most ten.")
    details: dict[str, Any] = Field(description="By kind: files with their places, an address, a topic.")


class ShownSources(BaseModel):
    """In the order of SOURCES_FILE."""

    total: int
    sources: list[ShownSource]
    next_cursor: None = None


def router(feeds: Sequence[Feed]) -> APIRouter:
    routes = APIRouter(prefix="/ingest/sources", tags=["sources"])

    @routes.get("")
    def list_sources() -> ShownSources:
        """The declared sources of this instance."""
        found = [
            ShownSource(
                name=feed.source,
                kind=feed.kind,
                state=feed.state,
                entries=feed.entries,
                bytes=feed.bytes,
                problems=feed.faults(),
                details=feed.shown(),
            )
            for feed in feeds
        ]
        return ShownSources(total=len(found), sources=found)

    return routes
