"""What SOURCES_FILE declares: sources by name, each of a kind; checked as a whole at the start.

sources:
  web-1:
    kind: tail
    path: /var/log/nginx/access.log
"""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shared.config import MIB, Settings
from shared.declarations import load_declarations

SOURCES_MAX: Final = 100  # each that reads by itself has a thread and a producer
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_CONTENT_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+(\s*;[^\x00-\x1f]*)?")

Key = Literal["source", "host", "round-robin"]


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name has up to 100 letters, digits and . _ -")
    return value


def _content_type(value: str) -> str:
    if not _CONTENT_TYPE.fullmatch(value) or len(value) > 500:
        raise ValueError("a content type is like text/x-access-log")
    return value


def _pattern(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("a path, or a pattern of paths such as /var/log/app/*.log, is needed")
    return value


Name = Annotated[str, AfterValidator(_name)]
ContentType = Annotated[str, AfterValidator(_content_type)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class _Source(BaseModel):
    """What every kind has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: Key = Field(
        default="source",
        description="What the messages of raw-logs are keyed by, and so what stays in order: the source; each host, "
        "beside others; or nothing, so that a source too hot for one partition uses all.",
    )


class Tail(_Source):
    """Files that are followed as they grow."""

    kind: Literal["tail"]
    path: Pattern
    exclude: list[Pattern] = []
    start: Literal["beginning", "end"] = Field(
        default="beginning", description="Where to begin in files that are there when the source is first read."
    )
    format: Literal["auto", "ndjson", "text"] = "auto"
    content_type: ContentType | None = Field(default=None, description="Of lines that are text.")
    partial_seconds: float = Field(
        default=5.0,
        ge=0.1,
        le=86_400,
        description="A line without its end is given out when it has grown no more for so long.",
    )
    rotated_seconds: float = Field(
        default=10.0,
        ge=0.1,
        le=86_400,
        description="A file that was renamed or removed is let go when it has grown no more for so long.",
    )
    line_bytes: int = Field(
        default=16 * MIB, ge=MIB, le=64 * MIB, description="A line is cut at so many bytes, and goes on as another."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.content_type is not None and self.format == "ndjson":
            raise ValueError("content_type is of text; remove it, or let format be text or auto")
        return self


Kind = Annotated[Tail, Field(discriminator="kind")]


class Declared(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    node: Name | None = Field(
        default=None,
        description="Who the places in files belong to; without it the data folder. For where that folder is not kept.",
    )
    sources: dict[Name, Kind] = Field(default={}, max_length=SOURCES_MAX)


def declared_in(settings: Settings) -> Declared:
    """What is declared; nothing without SOURCES_FILE. Raises ConfigurationError that tells file and line."""
    if not settings.sources_file:
        return Declared()
    return load_declarations(Path(settings.sources_file), Declared)


def pattern_of(settings: Settings, path: str) -> str:
    """Where a declared path leads: absolute as the operator wrote it, else under INGEST_DIR."""
    return str(settings.ingest_dir.resolve() / path)
