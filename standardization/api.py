"""What standardization answers: the templates of free text that this process knows, and the mappings it reads by."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from prometheus_client import Counter
from pydantic import BaseModel, Field

from shared import metrics
from shared.paging import Listing, Page, after, cursor_of
from shared.records import timestamp_of
from standardization.declared import DeclaredMapping
from standardization.mappings_folder import Active, Refusal
from standardization.templates import Tally, Template, TemplateMemory

_KIND = "templates"
_MAPPINGS = "mappings"
_NEW = timedelta(hours=1)


class ShownTemplate(BaseModel):
    """A template and how often it was seen."""

    template_id: str = Field(description="16 hex digits, made from the text: the same wherever the text is the same.")
    template: str = Field(description="The text, `<*>` where values stand.")
    former_ids: list[str] = Field(
        description="Ids that its earlier records have, from before it was generalized; the last 32 of them."
    )
    count: int = Field(description="Records of it.")
    first_seen: datetime = Field(description="When raw-logs took the first.")
    last_seen: datetime = Field(description="When raw-logs took the last.")
    new: bool = Field(description="First seen within the last hour.")
    example: str = Field(description="The first text of it, at most 500 characters.")


class TemplatePage(Listing):
    """Templates, the most frequent first."""

    new_last_hour: int = Field(description="How many of all were first seen within the last hour.")
    templates: list[ShownTemplate]


class TemplateQuery(Page):
    """Which templates."""

    new: bool | None = Field(None, description="Only those first seen within the last hour, or only the others.")
    contains: str | None = Field(None, max_length=200, description="Only those whose text contains this, in any case.")


class ShownMapping(BaseModel):
    """An active mapping, and what it has done since this process started."""

    name: str
    revision: str
    digest: str = Field(description="Of what it declares: another digest is another mapping, whatever its revision.")
    file: str
    line: int = Field(description="Where it begins in the file.")
    sources: list[str] = Field(description="Whose entries it is for; empty: whoever's.")
    when: list[str] = Field(description="The paths that it has conditions on.")
    fields: list[str] = Field(description="The fields of the record that it fills.")
    template: bool = Field(description="Whether the messages of its records get a template.")
    records: int = Field(description="Records that it made.")
    values_dropped: int = Field(description="Values that it left out of them.")


class ShownRefusal(BaseModel):
    """Why what lies in the folder is not what is active."""

    detail: str = Field(description="What was wrong, where, and what to do.")
    file: str | None
    line: int | None
    since: datetime


class MappingPage(Listing):
    """The active mappings, in the order in which they are tried."""

    loaded_at: datetime | None = Field(description="When this set was taken; null: there is no MAPPINGS_DIR.")
    refused: ShownRefusal | None = Field(description="Why the folder's newer contents are not active; null: they are.")
    mappings: list[ShownMapping]


def mappings(active: Active, page: Page) -> MappingPage:
    """A page of the active mappings."""
    begin = max(0, after(_MAPPINGS, page.cursor, int)[0]) if page.cursor is not None else 0
    end = begin + page.limit
    records, dropped = _by_mapping(metrics.MAPPED_RECORDS), _by_mapping(metrics.MAPPED_VALUES_DROPPED)
    return MappingPage(
        total=len(active.mappings),
        next_cursor=cursor_of(_MAPPINGS, end) if end < len(active.mappings) else None,
        loaded_at=None if active.loaded_at is None else datetime.fromtimestamp(active.loaded_at, UTC),
        refused=None if active.refusal is None else _refused(active.refusal),
        mappings=[
            _mapping(one, records.get(one.name, 0), dropped.get(one.name, 0)) for one in active.mappings[begin:end]
        ],
    )


def _refused(refusal: Refusal) -> ShownRefusal:
    since = datetime.fromtimestamp(refusal.since, UTC)
    return ShownRefusal(detail=refusal.detail, file=refusal.file, line=refusal.line, since=since)


def _by_mapping(counter: Counter) -> dict[str, int]:
    """What a counter says, by name of the mapping. Read once a page: a counter gives all of its values or none."""
    return {
        sample.labels["mapping"]: int(sample.value)
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


def _mapping(one: DeclaredMapping, records: int, dropped: int) -> ShownMapping:
    return ShownMapping(
        name=one.name,
        revision=one.revision,
        digest=one.digest,
        file=one.file,
        line=one.line,
        sources=list(one.sources),
        when=[".".join(condition.path) for condition in one.when],
        fields=list(one.fields),
        template=one.template,
        records=records,
        values_dropped=dropped,
    )


def templates(memory: TemplateMemory, query: TemplateQuery, now: datetime) -> TemplatePage:
    """A page of the templates of this process's partitions; equal texts of several partitions are one."""
    shown = _shown(memory.listed(), now)
    new = sum(one.new for one in shown)
    if query.new is not None:
        shown = [one for one in shown if one.new is query.new]
    if query.contains is not None:
        wanted = query.contains.lower()
        shown = [one for one in shown if wanted in one.template.lower()]
    total = len(shown)
    shown.sort(key=_order)
    if query.cursor is not None:
        count, template_id = after(_KIND, query.cursor, int, str)
        shown = [one for one in shown if _order(one) > (-count, template_id)]
    page = shown[: query.limit]
    more = cursor_of(_KIND, page[-1].count, page[-1].template_id) if len(shown) > len(page) else None
    return TemplatePage(total=total, new_last_hour=new, templates=page, next_cursor=more)


def router(
    memory: TemplateMemory,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    active: Callable[[], Active] = Active,
) -> APIRouter:
    """The routes, on what this process knows."""
    routes = APIRouter(prefix="/standardization", tags=["standardization"])

    @routes.get("/templates")
    def list_templates(query: Annotated[TemplateQuery, Query()]) -> TemplatePage:
        """The templates of free text in the partitions that this process holds: of several copies, each has its own."""
        return templates(memory, query, clock())

    @routes.get("/mappings")
    def list_mappings(page: Annotated[Page, Query()]) -> MappingPage:
        """The declared mappings that this process reads by, what they have done, and why newer ones were refused."""
        return mappings(active(), page)

    return routes


def _order(one: ShownTemplate) -> tuple[int, str]:
    return -one.count, one.template_id


def _shown(found: list[tuple[Template, Tally]], now: datetime) -> list[ShownTemplate]:
    by_id: dict[str, list[tuple[Template, Tally]]] = {}
    for template, tally in found:
        by_id.setdefault(template.template_id, []).append((template, tally))
    return [_one(same, now) for same in by_id.values()]


def _one(same: list[tuple[Template, Tally]], now: datetime) -> ShownTemplate:
    """One template of the partitions that have it."""
    earliest = min((template for template, _ in same), key=lambda template: template.first_seen)
    first_seen = _time(earliest.first_seen)
    return ShownTemplate(
        template_id=earliest.template_id,
        template=earliest.text,
        former_ids=sorted({former for template, _ in same for former in template.former_ids} - {earliest.template_id}),
        count=sum(tally.count for _, tally in same),
        first_seen=first_seen,
        last_seen=_time(max(tally.last_seen for _, tally in same)),
        new=now - first_seen < _NEW,
        example=earliest.example,
    )


def _time(ms: int) -> datetime:
    return datetime.fromisoformat(timestamp_of(ms * 1_000_000))
