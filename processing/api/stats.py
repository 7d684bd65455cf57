"""GET /stats: what lies on the topics and is not read yet, and how every part of the stack is."""

from collections.abc import Callable, Mapping
from typing import Final

import httpx
from fastapi import APIRouter
from pydantic import BaseModel, Field

from processing.store import Store
from shared import kafka
from shared.config import Settings
from shared.errors import KafkaUnavailableError, StoreError
from shared.records import timestamp_of
from shared.survey import Survey
from shared.topics import CLOCK, GROUPS, specs

_PATIENCE_S: Final = 3.0
_SINK: Final = "sink"
_WORST: Final = ("unhealthy", "unreachable", "degraded", "healthy")


class TopicStats(BaseModel):
    """What one topic holds, and who reads it."""

    pending_messages: int | None = Field(
        description="Messages that consumer groups have not read yet, all groups together; null where it is not known."
    )
    pending_by_group: dict[str, int] = Field(description="The same of each group that reads it.")
    subscriber_count: int = Field(description="Consumers that have partitions of it.")
    queue_size: int = Field(description="Offsets that it holds: messages, read or not, and the ends of transactions.")
    bytes: int | None = Field(description="On disk, all replicas together; null where it is not known.")
    oldest: str | None = Field(description="When its first message was written; null where it holds none.")
    newest: str | None = Field(description="When its newest message was written.")
    partitions: int


class Component(BaseModel):
    """How a part of the stack is."""

    status: str = Field(description="healthy, degraded, unhealthy or unreachable.")
    problems: list[str]


class Status(BaseModel):
    """How all of it is: as its worst part."""

    status: str = Field(description="healthy, degraded, unhealthy or unreachable.")
    components: dict[str, Component]


class Stats(BaseModel):
    """Topics by name, and the parts of the stack by theirs."""

    topics: dict[str, TopicStats]
    status: Status


def router(
    settings: Settings,
    store: Store,
    survey: Survey,
    kafka_reachable: Callable[[], bool],
    sink_running: Callable[[], bool],
) -> APIRouter:
    routes = APIRouter(tags=["service"])
    topics = kafka.Topics(settings, "stats")
    # a proxy of the environment is for the world outside, not for our own services
    client = httpx.Client(timeout=_PATIENCE_S, trust_env=False)
    services = {
        "ingestion": settings.ingestion_url or f"http://127.0.0.1:{settings.ingestion_port}",
        "standardization": settings.standardization_url or f"http://127.0.0.1:{settings.standardization_port}",
        "processing": f"http://127.0.0.1:{settings.processing_port}",
    }

    def look_at_topics() -> dict[str, TopicStats]:
        """Raises KafkaUnavailableError."""
        names = {settings.topic(spec.name): spec.name for spec in specs(1, 1) if spec.name != CLOCK}
        counts = topics.partitions(list(names), _PATIENCE_S)
        places = [(name, partition) for name, count in counts.items() for partition in range(count)]
        starts, ends = topics.starts(places, _PATIENCE_S), topics.ends(places, _PATIENCE_S)
        times = topics.times(places, _PATIENCE_S)
        members = topics.assigned(list(GROUPS), _PATIENCE_S)
        sizes = _sizes(topics)
        pending: dict[str, dict[str, int]] = {}
        for (group, name), number in (survey.pending or {}).items():
            pending.setdefault(name, {})[group] = number
        return {
            name: TopicStats(
                pending_messages=None if survey.pending is None else sum(pending.get(name, {}).values()),
                pending_by_group=pending.get(name, {}),
                subscriber_count=sum(members[group].get(full, 0) for group in GROUPS)
                + (name in GROUPS[_SINK] and sink_running()),  # it assigns its partitions itself
                queue_size=sum(ends[place] - starts[place] for place in places if place[0] == full),
                bytes=None if sizes is None else sizes.get(full, 0),
                oldest=_time(min((at[0] for place, at in times.items() if place[0] == full), default=None)),
                newest=_time(max((at[1] for place, at in times.items() if place[0] == full), default=None)),
                partitions=counts[full],
            )
            for full, name in names.items()
        }

    def service(url: str) -> Component:
        try:
            answer = client.get(f"{url}/health")
            return Component.model_validate(answer.json())
        except (httpx.HTTPError, ValueError) as error:
            return Component(status="unreachable", problems=[f"{url}/health: {error!r}"])

    def look_at_components() -> dict[str, Component]:
        found = {name: service(url) for name, url in services.items()}
        there = kafka_reachable()
        found["kafka"] = _component([] if there else [f"no broker answers at {settings.kafka_bootstrap}"])
        try:
            store.ping()
            found["store"] = _component([])
        except StoreError as error:
            found["store"] = _component([str(error)])
        return found

    @routes.get("/stats")
    def stats() -> Stats:
        """The topics, with what is pending on each, and the health of every part; without Kafka there are no topics."""
        components = look_at_components()
        try:
            found = look_at_topics()
        except KafkaUnavailableError as error:
            found = {}
            components["kafka"] = _component([str(error)])
        worst = min((component.status for component in components.values()), key=_badness)
        return Stats(topics=found, status=Status(status=worst, components=components))

    return routes


def _component(problems: list[str]) -> Component:
    return Component(status="unreachable" if problems else "healthy", problems=problems)


def _badness(status: str) -> int:
    return _WORST.index(status) if status in _WORST else 0


def _sizes(topics: kafka.Topics) -> Mapping[str, int] | None:
    try:
        return kafka.topic_bytes(topics.brokers(_PATIENCE_S), _PATIENCE_S)
    except KafkaUnavailableError:
        return None


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else timestamp_of(at_ms * 1_000_000)
