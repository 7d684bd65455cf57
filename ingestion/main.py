"""Ingestion, wired.

HTTP, OTLP, Loki, _bulk, files > entries > frames > [transaction] > raw-logs, ingest-runs
declared sources, streams > entries > frames > [transaction with their places] > raw-logs, ingestion-state
"""

from ingestion.api import router
from ingestion.declared import Declared, Files, Http, KafkaTopic, Syslog, Tail, declared_in
from ingestion.feeds import Feed
from ingestion.gate import Gate
from ingestion.ingest import STAGE, Ingest
from ingestion.intake import Intake
from ingestion.source_routes import Source
from ingestion.source_routes import router as source_router
from ingestion.sources import elasticsearch, loki, otlp
from ingestion.sources.files import FileFeed
from ingestion.sources.syslog import SyslogFeed
from ingestion.sources.tail import TailFeed
from ingestion.sources.topic import TopicFeed
from ingestion.stream_routes import router as stream_router
from ingestion.streams import Streams
from shared import kafka, metrics
from shared.config import Settings
from shared.instance import Instance
from shared.service import Loop, Part, Service, Together, main
from shared.spool import Spool
from shared.survey import Survey
from shared.topics import RAW_LOGS

NAME = "ingestion"


def feeds_of(settings: Settings, declared: Declared, spool: Spool) -> list[Feed]:
    """The declared sources that read by themselves."""
    node = declared.node
    feeds: list[Feed] = []
    for name, source in declared.sources.items():
        match source:
            case Tail():
                feeds.append(TailFeed(settings, name, source, node))
            case Files():
                feeds.append(FileFeed(settings, name, source, node, spool))
            case Syslog():
                feeds.append(SyslogFeed(settings, name, source, node))
            case KafkaTopic():
                feeds.append(TopicFeed(settings, name, source, node))
            case Http():
                pass  # the gate's
    return feeds


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
    gate = Gate(declared)
    feeds = feeds_of(settings, declared, spool)
    parts: list[Part] = [
        watch,
        Loop(survey.name, survey.run, list),
        Loop(ingest.small.name, ingest.small.run, ingest.small.problems),
        Loop(ingest.large.name, ingest.large.run, ingest.large.problems),
        Loop(streams.name, streams.run, streams.problems),
        Together("sources", [Loop(feed.name, feed.run, list) for feed in feeds]),
    ]
    intake = Intake(settings, ingest, spool, gate, lambda: watch.reachable)
    by_name: dict[str, Source] = {**gate.sources, **{feed.source: feed for feed in feeds}}
    shown = [by_name[name] for name in declared.sources]
    protocols = [protocol.router(settings, intake) for protocol in (otlp, loki, elasticsearch)]
    routers = [router(settings, intake), stream_router(streams, declared.sources), source_router(shown), *protocols]

    def remarks() -> list[str]:
        return [f"{feed.name}: {fault}" for feed in feeds for fault in (*feed.problems(), *feed.faults())]

    return Service(NAME, settings, settings.ingestion_port, parts, routers, __doc__ or "", remarks=remarks)


if __name__ == "__main__":
    main(NAME, build)
