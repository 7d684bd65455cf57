"""What the analytics can be filtered by, and the SQL conditions that this becomes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from shared.records import Outcome

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d")


def only_rfc3339(value: object) -> object:
    """Numbers are refused, for they could be seconds or milliseconds."""
    if not isinstance(value, datetime) and not (isinstance(value, str) and _RFC3339.match(value)):
        raise ValueError("an RFC 3339 time, such as 2026-01-05T10:00:00Z, is needed")
    return value


Instant = Annotated[
    AwareDatetime,
    BeforeValidator(only_rfc3339),
    # what the store's instants can hold
    Field(ge=datetime(1900, 1, 1, tzinfo=UTC), lt=datetime(2262, 1, 1, tzinfo=UTC)),
]


@dataclass(frozen=True, slots=True)
class Where:
    """Conditions joined by AND, and the parameters that they name."""

    conditions: tuple[str, ...] = ()
    parameters: Mapping[str, object] = field(default_factory=dict)

    def and_(self, condition: str, **parameters: object) -> "Where":
        taken = parameters.keys() & self.parameters.keys()
        assert not taken, f"{taken} would stand for two values"
        return Where((*self.conditions, condition), {**self.parameters, **parameters})

    def __str__(self) -> str:
        return f"WHERE {' AND '.join(self.conditions)}" if self.conditions else ""


class TimeQuery(BaseModel):
    """Filters on time. A name that is not a filter is refused, lest a misspelt one select everything."""

    model_config = ConfigDict(extra="forbid")

    from_: Instant | None = Field(None, alias="from", description="Only what happened at or after this RFC 3339 time.")
    to: Instant | None = Field(None, description="Only what happened before this RFC 3339 time.")

    def where(self, time: str = "timestamp") -> Where:
        """The conditions, on a table whose column `time` tells when it happened."""
        where = Where()
        if self.from_ is not None:
            where = where.and_(f"{time} >= {{since:DateTime64(9, 'UTC')}}", since=sql_instant(self.from_))
        if self.to is not None:
            where = where.and_(f"{time} < {{until:DateTime64(9, 'UTC')}}", until=sql_instant(self.to))
        return where


class SeriesQuery(TimeQuery):
    """Filters on series and time."""

    source: str | None = Field(None, description="Only this source, as it names itself.")
    operation: str | None = Field(None, description="Only this operation.")

    def where(self, time: str = "timestamp") -> Where:
        where = super().where(time)
        if self.source is not None:
            where = where.and_("service_name = {source:String}", source=self.source)
        if self.operation is not None:
            where = where.and_("event_name = {operation:String}", operation=self.operation)
        return where


class EntryQuery(SeriesQuery):
    """Filters on entries."""

    outcome: Outcome | None = Field(None, description="Only entries that ended so.")

    def where(self, time: str = "timestamp") -> Where:
        where = super().where(time)
        return where if self.outcome is None else where.and_("outcome = {outcome:String}", outcome=self.outcome.value)


def sql_instant(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
