"""What is declared, and how it is: GET /ingest/sources."""

from collections.abc import Sequence
from typing import Any, Protocol

from fastapi import APIRouter
from pydantic import BaseModel, Field


class Source(Protocol):
    """What is asked of a declared source."""

    @property
    def source(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def state(self) -> str: ...

    @property
    def entries(self) -> int: ...

    @property
    def bytes(self) -> int: ...

    def faults(self) -> list[str]: ...

    def shown(self) -> dict[str, Any]: ...


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


def router(sources: Sequence[Source]) -> APIRouter:
    routes = APIRouter(prefix="/ingest/sources", tags=["sources"])

    @routes.get("")
    def list_sources() -> ShownSources:
        """The declared sources of this instance."""
        found = [
            ShownSource(
                name=each.source,
                kind=each.kind,
                state=each.state,
                entries=each.entries,
                bytes=each.bytes,
                problems=each.faults(),
                details=each.shown(),
            )
            for each in sources
        ]
        return ShownSources(total=len(found), sources=found)

    return routes
