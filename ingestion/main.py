"""Ingestion, wired.

HTTP, OTLP, Loki, _bulk, files > entries > frames > [transaction] > raw-logs, ingest-runs
declared sources, streams > entries > frames > [transaction with their places] > raw-logs, ingestion-state
"""

from ingestion.api import router
from ingestion.declared import declared_in
from ingestion.feeds import Feed
from ingestion.ingest import STAGE, Ingest
from ingestion.intake import Intake
from ingestion.source_routes import router as source_router
from ingestion.sources import elasticsearch, loki, otlp
from ingestion.sources.tail import TailFeed
from ingestion.stream_routes import router as stream_router
from ingestion.streams import Streams
from shared import kafka, metrics
from shared.config import Settings
from shared.instance import Instance
from shared.service import Loop, Part, Service, main
from shared.spool import Spool
from shared.survey import Survey
from shared.topics import RAW_LOGS

NAME = "ingestion"


def build(settings: Settings) -> Service:
    declared = declared_in(settings)
    instance = Instance(settings.folder(NAME), settings.copies)
    spool = Spool(instance.folder / "spool", settings.spool_max_bytes)
    metrics.SPOOL_BYTES.labels(NAME).set_function(lambda: spool.used)
    metrics.SPOOL_QUOTA.labels(NAME).set(settings.spool_max_bytes)
    metrics.touch(STAGE, [], writes=[RAW_LOGS])
    watch = kafka.Watch(settings, NAME)
    survey = Survey(settings, NAME, lambda: watch.reachable)
    ingest = Ingest(settings, instance.id)
    streams = Streams(settings, instance.id)
    feeds: list[Feed] = [TailFeed(settings, name, each, declared.node) for name, each in declared.sources.items()]
    parts: list[Part] = [
        watch,
        Loop(survey.name, survey.run, list),
        Loop(ingest.small.name, ingest.small.run, ingest.small.problems),
        Loop(ingest.large.name, ingest.large.run, ingest.large.problems),
        Loop(streams.name, streams.run, streams.problems),
        *(Loop(feed.name, feed.run, feed.problems) for feed in feeds),
    ]
    intake = Intake(settings, ingest, spool, lambda: watch.reachable)
    protocols = [protocol.router(settings, intake) for protocol in (otlp, loki, elasticsearch)]
    routers = [router(settings, intake), stream_router(streams), source_router(feeds), *protocols]

    def notices() -> list[str]:
        return [f"{feed.name}: {fault}" for feed in feeds for fault in feed.faults()]

    return Service(NAME, settings, settings.ingestion_port, parts, routers, __doc__ or "", notices=notices)


if __name__ == "__main__":
    main(NAME, build)
