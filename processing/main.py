"""Processing, wired.

standardized-logs > [stage loop: frames > records > metrics, windows, anomalies] > processed-metrics
processed-metrics, dead-letters, dead-letter-events, ingest-runs > [sink: ledger > rows] > store > API, metrics
dead-letters > [desk] > the topic where the entry was read, dead-letter-events
"""

from processing.api import closing, raw, stats, upkeep
from processing.api import routers as store_routers
from processing.api.counts import counts
from processing.api.originals import Originals, limit
from processing.counts import EntriesBySource
from processing.desk import STAGE as DESK
from processing.desk import Desk
from processing.detect import AnomalyReason
from processing.fleet import NAME as FLEET
from processing.fleet import Fleet
from processing.letters import Action
from processing.sink import STAGE as SINK
from processing.sink import TOPICS as SINK_TOPICS
from processing.sink import Sink
from processing.sources import NAME as SOURCES
from processing.sources import Sources
from processing.store import open_store
from processing.store.schema import TABLES
from processing.transform import STAGE, Processing
from shared import kafka, metrics
from shared.config import Settings
from shared.errors import Reason
from shared.instance import Instance
from shared.service import Loop, Part, Service, main
from shared.spool import Spool
from shared.stage import Stage
from shared.survey import Survey
from shared.topics import DEAD_LETTERS, PROCESSED_METRICS, PROCESSING_STATE, RAW_LOGS, STANDARDIZED_LOGS

NAME = "processing"


def build(settings: Settings) -> Service:
    folder = settings.folder(NAME)
    instance = Instance(folder)
    backups = folder / "backups"
    backups.mkdir(exist_ok=True)
    store = open_store(settings, folder / "store", backups)
    # a spool each: the quota of one is no room for another
    spools = [Spool(folder / f"spool-{user}", settings.spool_max_bytes) for user in (STAGE, SINK, "raw")]
    metrics.SPOOL_BYTES.labels(NAME).set_function(lambda: sum(spool.used for spool in spools))
    metrics.SPOOL_QUOTA.labels(NAME).set(sum(spool.quota for spool in spools))
    metrics.touch(STAGE, Reason, [STANDARDIZED_LOGS], [PROCESSED_METRICS, DEAD_LETTERS])
    metrics.PROCESSING_DURATION.labels(STAGE)
    metrics.touch(SINK, Reason, SINK_TOPICS)
    for table in TABLES:
        metrics.STORED_ROWS.labels(table.name)
    for action in Action:
        metrics.DEAD_LETTERS_CLOSED.labels(action)
    for anomaly in AnomalyReason:
        metrics.ANOMALIES.labels(anomaly)
    EntriesBySource(lambda: counts(store), settings.source_labels).register(metrics.REGISTRY)
    sources = Sources(store, settings.source_labels)
    sources.register(metrics.REGISTRY)
    fleet = Fleet(store, settings.gpu_host_labels, settings.gpu_labels)
    fleet.register(metrics.REGISTRY)
    watch = kafka.Watch(settings, NAME)
    survey = Survey(settings, NAME, lambda: watch.reachable)
    sink = Sink(settings, store, spools[1])
    stage = Stage(
        STAGE,
        settings,
        reads=STANDARDIZED_LOGS,
        writes=[PROCESSED_METRICS],
        state=PROCESSING_STATE,
        transform=Processing(settings),
        instance_id=instance.id,
        spool=spools[0],
    )
    desk = Desk(settings)
    at_once = limit()
    originals = {topic: Originals(settings, topic, spools[2], at_once) for topic in (RAW_LOGS, DEAD_LETTERS)}
    letters = closing.Letters(settings, store, originals[DEAD_LETTERS], desk, spools[2])
    # stopped in the reverse order: first what feeds the sink, then the sink
    parts: list[Part] = [
        watch,
        Loop(survey.name, survey.run, list),
        Loop(SOURCES, sources.run, list),
        Loop(FLEET, fleet.run, list),
        Loop(DESK, desk.run, list),
        Loop(SINK, sink.run, sink.problems),
        Loop(STAGE, stage.run, stage.problems),
    ]
    routers = [
        *store_routers(store),
        raw.router(originals[RAW_LOGS]),
        closing.router(letters, settings.entry_max_bytes),
        stats.router(settings, store, survey, lambda: watch.reachable, lambda: sink.running),
        upkeep.router(settings, store, backups),
    ]
    return Service(NAME, settings, settings.processing_port, parts, routers, __doc__ or "", store.close)


if __name__ == "__main__":
    main(NAME, build)
